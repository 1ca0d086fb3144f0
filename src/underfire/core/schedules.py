"""Numbers that change over a run: schedule(step) -> one number per image, step counted per image from 0."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from underfire.core.types import Labels, Row


@runtime_checkable
class Schedule(Protocol):
    """A function of each image's own step counter; beyond its length it keeps its last value."""

    def __call__(self, step: Labels) -> Row: ...


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __call__(self, step: Labels) -> Row:
        return torch.full(step.shape, self.value, device=step.device)


@dataclass(frozen=True)
class Linear:
    """From start to end in equal increments over `steps`."""

    start: float
    end: float
    steps: int

    def __call__(self, step: Labels) -> Row:
        return self.start + (self.end - self.start) * _fraction(step, self.steps)


@dataclass(frozen=True)
class Cosine:
    """From start to end along half a cosine wave: flat at both ends."""

    start: float
    end: float
    steps: int

    def __call__(self, step: Labels) -> Row:
        return self.end + (self.start - self.end) * (1 + torch.cos(math.pi * _fraction(step, self.steps))) / 2


def _fraction(step: Labels, steps: int) -> Row:
    return (step / steps).clamp_max(1)
