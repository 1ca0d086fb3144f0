"""Numbers that change over a run: schedule(step) -> one number per image, step counted per image from 0."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from underfire.core.checks import check_count, check_number
from underfire.core.errors import UnderfireError
from underfire.core.types import Labels, Row

FAR = 10**6  # a step at which schedules have reached their last value


@runtime_checkable
class Schedule(Protocol):
    """A function of each image's own step counter; beyond its length it keeps its last value."""

    def __call__(self, step: Labels) -> Row: ...


@dataclass(frozen=True)
class Constant:
    """The same value at every step."""

    value: float

    def __post_init__(self) -> None:
        check_number("The value of a constant schedule", self.value)

    def __call__(self, step: Labels) -> Row:
        return torch.full(step.shape, self.value, device=step.device)


@dataclass(frozen=True)
class Linear:
    """From start to end in equal increments over `steps`."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_ends(self.start, self.end, self.steps)

    def __call__(self, step: Labels) -> Row:
        return self.start + (self.end - self.start) * _fraction(step, self.steps)


@dataclass(frozen=True)
class Cosine:
    """From start to end along half a cosine wave: flat at both ends."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        _check_ends(self.start, self.end, self.steps)

    def __call__(self, step: Labels) -> Row:
        return self.end + (self.start - self.end) * (1 + torch.cos(math.pi * _fraction(step, self.steps))) / 2


@dataclass(frozen=True)
class InTurn:
    """One schedule after another, each from its own step 0 for so many steps; the last goes on."""

    schedules: tuple[Schedule, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.schedules or len(self.schedules) != len(self.steps):
            pair = f"{len(self.schedules)} and {len(self.steps)}"
            raise UnderfireError(f"Schedules in turn must be as many as numbers of steps, not {pair}.")
        for schedule, steps in zip(self.schedules, self.steps, strict=True):
            check_schedule("A schedule in turn", schedule, least=-math.inf)
            check_count("The number of steps of a schedule", steps, least=0)

    def __call__(self, step: Labels) -> Row:
        value, begins = self.schedules[0](step), 0
        for schedule, steps in zip(self.schedules[1:], self.steps, strict=False):
            begins += steps
            value = torch.where(step >= begins, schedule((step - begins).clamp_min(0)), value)
        return value


def check_schedule(name: str, schedule: Schedule, least: float = 0.0) -> Schedule:
    """The same schedule, or UnderfireError unless its first and last value are finite numbers from `least` on."""
    if not isinstance(schedule, Schedule):
        raise UnderfireError(f"{name} must be a schedule such as Constant(0.01), not {schedule!r}.")
    for value in schedule(torch.tensor([0, FAR])).tolist():
        check_number(name, value, least=least)
    return schedule


def _check_ends(start: float, end: float, steps: int) -> None:
    check_number("The start of a schedule", start)
    check_number("The end of a schedule", end)
    check_count("The number of steps of a schedule", steps, least=0)


def _fraction(step: Labels, steps: int) -> Row:
    return (step / max(steps, 1)).clamp_max(1)
