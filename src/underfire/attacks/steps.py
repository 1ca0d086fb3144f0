"""Step rules: how theta moves, given the per-image objective."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.core.checks import check_count, check_number
from underfire.core.schedules import Schedule, check_schedule
from underfire.core.types import Keys, Labels, Row, Terms


@runtime_checkable
class Objective(Protocol):
    """The per-image loss as a function of theta, for images that do not influence each other."""

    @property
    def keys(self) -> Keys:
        """The images' identity, for rules that draw."""
        ...

    def __call__(self, theta: Tensor) -> Terms:
        """All terms."""
        ...

    def prediction(self, theta: Tensor) -> Terms:
        """The prediction loss alone, at the price of one pass through the classifier."""
        ...

    def project(self, theta: Tensor) -> Tensor:
        """The nearest allowed theta."""
        ...


@runtime_checkable
class StepRule(Protocol):
    """One move of theta; what the rule remembers of each image is a row record."""

    def init(self, theta: Tensor) -> Any:
        """The first state."""
        ...

    def step(self, objective: Objective, theta: Tensor, state: Any, step: Labels) -> tuple[Tensor, Any, Terms]:
        """(moved theta before projection, state, terms read at the theta that came in)."""
        ...


@dataclass(frozen=True)
class NoState:
    """The state of a rule that has none."""


@dataclass(frozen=True)
class SignStep:
    """theta - alpha * sign(gradient), Eq. 1 and 4."""

    alpha: Schedule

    def __post_init__(self) -> None:
        check_schedule("alpha", self.alpha)

    def init(self, theta: Tensor) -> NoState:
        return NoState()

    def step(self, objective: Objective, theta: Tensor, state: NoState, step: Labels) -> tuple[Tensor, NoState, Terms]:
        terms, gradient = value_and_gradient(objective, theta)
        alpha = self.alpha(step).to(theta.dtype)
        return theta - _per_row(alpha, theta) * gradient.sign(), state, terms


@dataclass(frozen=True)
class Direction:
    """What a rule with momentum remembers: row record."""

    value: Tensor


@dataclass(frozen=True)
class Momentum:
    """What rules share that go on in the direction v = decay * v + scaled gradient."""

    alpha: Schedule
    decay: float = 0.75

    def __post_init__(self) -> None:
        check_schedule("alpha", self.alpha)
        _check_decay("decay", self.decay)

    def init(self, theta: Tensor) -> Direction:
        return Direction(torch.zeros_like(theta))

    def _moved(self, theta: Tensor, towards: Tensor, step: Labels) -> Tensor:
        return theta - _per_row(self.alpha(step).to(theta.dtype), theta) * towards


@dataclass(frozen=True)
class MomentumSignStep(Momentum):
    """theta - alpha * sign(v), v = decay * v + gradient / mean |gradient| (Dong et al. 2018)."""

    def step(
        self, objective: Objective, theta: Tensor, state: Direction, step: Labels
    ) -> tuple[Tensor, Direction, Terms]:
        terms, gradient = value_and_gradient(objective, theta)
        direction = self.decay * state.value + gradient / _per_row(_mean_size(gradient), theta)
        return self._moved(theta, direction.sign(), step), Direction(direction), terms


@dataclass(frozen=True)
class UnitStep(Momentum):
    """theta - alpha * v / |v|_2, v = decay * v + gradient / |gradient|_2: a step of length alpha, image by image."""

    def step(
        self, objective: Objective, theta: Tensor, state: Direction, step: Labels
    ) -> tuple[Tensor, Direction, Terms]:
        terms, gradient = value_and_gradient(objective, theta)
        direction = self.decay * state.value + _unit(gradient)
        return self._moved(theta, _unit(direction), step), Direction(direction), terms


@dataclass(frozen=True)
class Moments:
    """What Adam remembers: row record; count says how often each row has moved."""

    mean: Tensor
    square: Tensor
    count: Labels


@dataclass(frozen=True)
class AdamStep:
    """theta - alpha * m / (sqrt(v) + floor), m and v the unbiased running means of gradient and its square."""

    alpha: Schedule
    decay: float = 0.9
    square_decay: float = 0.999
    floor: float = 1e-8

    def __post_init__(self) -> None:
        check_schedule("alpha", self.alpha)
        _check_decay("decay", self.decay)
        _check_decay("square_decay", self.square_decay)
        check_number("floor", self.floor, above=0.0)

    def init(self, theta: Tensor) -> Moments:
        zero = torch.zeros_like(theta)
        return Moments(zero, zero, torch.zeros(len(theta), dtype=torch.int64, device=theta.device))

    def step(self, objective: Objective, theta: Tensor, state: Moments, step: Labels) -> tuple[Tensor, Moments, Terms]:
        terms, gradient = value_and_gradient(objective, theta)
        mean = self.decay * state.mean + (1 - self.decay) * gradient
        square = self.square_decay * state.square + (1 - self.square_decay) * gradient.square()
        count = state.count + 1
        bias, square_bias = (_per_row(1 - d ** count.to(theta.dtype), theta) for d in (self.decay, self.square_decay))
        direction = (mean / bias) / ((square / square_bias).sqrt() + self.floor)
        alpha = self.alpha(step).to(theta.dtype)
        return theta - _per_row(alpha, theta) * direction, Moments(mean, square, count), terms


@dataclass(frozen=True)
class TwoPhaseStep:
    """Alg. 1 (§ 3.6): a step down the prediction's gradient, then as far down the map's as the prediction allows.

    Both gradients are normalised in L2, image by image; one that vanishes moves nothing. The first step has length
    `prediction_step`; the second is the largest up to `max_step` that keeps p >= `floor`, found by `bisections`
    bisections. Give the objective's prediction term the weight 0. The objective is evaluated twice: where theta
    came in, for the terms and the first gradient, and where the first step led, for the second.
    """

    max_step: Schedule
    prediction_step: float = 0.05
    floor: float = 0.95
    bisections: int = 12

    def __post_init__(self) -> None:
        check_schedule("max_step", self.max_step)
        check_number("prediction_step", self.prediction_step, least=0.0)
        check_number("floor", self.floor, above=0.0, most=1.0)
        check_count("bisections", self.bisections)

    def init(self, theta: Tensor) -> NoState:
        return NoState()

    def step(self, objective: Objective, theta: Tensor, state: NoState, step: Labels) -> tuple[Tensor, NoState, Terms]:
        terms, gradient = value_and_gradient(objective, theta, of="prediction")
        predicted = objective.project(theta - self.prediction_step * _unit(gradient))
        _, gradient = value_and_gradient(objective, predicted)
        return self._search(objective, predicted, _unit(gradient), self.max_step(step).to(theta.dtype)), state, terms

    def _search(self, objective: Objective, theta: Tensor, direction: Tensor, max_step: Row) -> Tensor:
        """The farthest allowed point down the direction, row by row, at which p >= floor."""
        good, bad = torch.zeros_like(max_step), max_step
        with torch.no_grad():
            for _ in range(self.bisections):
                middle = (good + bad) / 2
                moved = objective.project(theta - _per_row(middle, theta) * direction)
                held = objective.prediction(moved).parts["prediction"] <= -math.log(self.floor)
                good, bad = torch.where(held, middle, good), torch.where(held, bad, middle)
        return objective.project(theta - _per_row(good, theta) * direction)


def _check_decay(name: str, value: float) -> None:
    check_number(name, value, least=0.0, most=1 - 1e-9)


def _unit(gradient: Tensor) -> Tensor:
    """The gradient over its L2 norm, row by row; zeros and numbers that are none stay without consequence.

    Dividing by the largest entry first keeps the squares of a saturated prediction's gradient from vanishing.
    """
    gradient, floor = gradient.nan_to_num(0, 0, 0), torch.finfo(gradient.dtype).tiny
    gradient = gradient / _per_row(gradient.flatten(1).abs().amax(1), gradient).clamp_min(floor)
    return gradient / _per_row(gradient.flatten(1).norm(dim=1), gradient).clamp_min(floor)


def _mean_size(gradient: Tensor) -> Row:
    """Mean absolute value, row by row, never 0."""
    return gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)


def _per_row(values: Row, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def value_and_gradient(
    objective: Callable[[Tensor], Terms], theta: Tensor, of: str | None = None
) -> tuple[Terms, Tensor]:
    """The objective's terms, without their graph, and the gradient of their total or of the part named.

    Images are independent, so one summed backward serves all rows.
    """
    leaf = theta.detach().requires_grad_()
    terms = objective(leaf)
    value = terms.total if of is None else terms.parts[of]
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    parts = {name: part.detach() for name, part in terms.parts.items()}
    return Terms(terms.total.detach(), parts, terms.logits.detach()), gradient
