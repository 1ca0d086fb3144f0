"""Step rules: how theta moves, given the per-image objective."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.schedules import Schedule
from underfire.types import Labels, Terms

Objective = Callable[[Tensor], Terms]


@runtime_checkable
class StepRule(Protocol):
    """One move of theta; what the rule remembers of each image is a row record."""

    def init(self, theta: Tensor) -> Any:
        """The first memory."""
        ...

    def step(self, objective: Objective, theta: Tensor, memory: Any, step: Labels) -> tuple[Tensor, Any, Terms]:
        """(moved theta before projection, memory, terms read at the theta that came in)."""
        ...


@dataclass(frozen=True)
class NoMemory:
    """The memory of a rule that has none."""


@dataclass(frozen=True)
class SignStep:
    """theta - alpha * sign(gradient), Eq. 1 and 4."""

    alpha: Schedule

    def init(self, theta: Tensor) -> NoMemory:
        return NoMemory()

    def step(
        self, objective: Objective, theta: Tensor, memory: NoMemory, step: Labels
    ) -> tuple[Tensor, NoMemory, Terms]:
        terms, gradient = value_and_gradient(objective, theta)
        alpha = self.alpha(step).to(theta.dtype).view(-1, *[1] * (theta.ndim - 1))
        return theta - alpha * gradient.sign(), memory, terms


def value_and_gradient(objective: Objective, theta: Tensor) -> tuple[Terms, Tensor]:
    """The objective's terms and its gradient; images are independent, so one summed backward serves all rows."""
    leaf = theta.detach().requires_grad_()
    terms = objective(leaf)
    (gradient,) = torch.autograd.grad(terms.total.sum(), leaf)
    return terms, gradient
