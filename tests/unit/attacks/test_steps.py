"""The sign step: Eq. 1 and 4 by hand and known minima. The two-phase step: known longest steps. Both row by row."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from underfire.attacks.steps import (
    AdamStep,
    Direction,
    MomentumSignStep,
    NoState,
    SignStep,
    TwoPhaseStep,
    UnitStep,
    value_and_gradient,
)
from underfire.core import rows
from underfire.core.schedules import Constant, Linear
from underfire.core.types import Keys, Terms

KEYS = torch.arange(2)  # of images, which these rules do not ask for
START = torch.tensor([[0.5, -2.0, 0.0], [1.0, 1.0, -3.0]])


class Quadratic:
    """Half the squared distance to (0, 0, 1), row by row."""

    keys = KEYS

    def __call__(self, theta: Tensor) -> Terms:
        loss = (theta - torch.tensor([0.0, 0.0, 1.0])).square().sum(1) / 2
        return Terms(loss, {"loss": loss}, theta)

    prediction = __call__

    def project(self, theta: Tensor) -> Tensor:
        return theta


quadratic = Quadratic()


def test_value_and_gradient_of_each_row() -> None:
    terms, gradient = value_and_gradient(quadratic, START)
    torch.testing.assert_close(terms.total.detach(), torch.tensor([2.625, 9.0]))
    assert torch.equal(gradient, torch.tensor([[0.5, -2.0, -1.0], [1.0, 1.0, -4.0]]))
    assert not START.requires_grad


def test_a_step_moves_every_parameter_by_alpha_against_its_gradient() -> None:
    moved, state, terms = SignStep(Constant(0.25)).step(quadratic, START, NoState(), torch.tensor([0, 0]))
    assert torch.equal(moved, torch.tensor([[0.25, -1.75, 0.25], [0.75, 0.75, -2.75]]))
    assert state == NoState()
    torch.testing.assert_close(terms.total.detach(), quadratic(START).total)


def test_a_parameter_without_gradient_stays() -> None:
    still = torch.tensor([[0.0, 0.0, 1.0]])
    assert torch.equal(SignStep(Constant(0.25)).step(quadratic, still, NoState(), torch.tensor([0]))[0], still)


def test_each_image_is_at_its_own_step_of_the_schedule() -> None:
    moved, _, _ = SignStep(Linear(1.0, 0.0, 4)).step(quadratic, START, NoState(), torch.tensor([1, 4]))
    torch.testing.assert_close((moved - START).abs(), torch.tensor([[0.75] * 3, [0.0] * 3]))


def test_momentum_remembers_the_gradients_of_each_row_at_their_own_scale() -> None:
    """Mean sizes of the first gradients: 7/6 and 2. The second step sees 3/4 of them beside the new ones."""
    rule, still = MomentumSignStep(Constant(0.25), decay=0.75), torch.tensor([0, 0])
    moved, state, _ = rule.step(quadratic, START, rule.init(START), still)
    assert torch.equal(moved, START - 0.25 * (START - torch.tensor([0.0, 0.0, 1.0])).sign())
    torch.testing.assert_close(state.value, torch.tensor([[3 / 7, -12 / 7, -6 / 7], [0.5, 0.5, -2.0]]))
    against = Direction(torch.tensor([[-2.0, 0.0, 0.0], [0.0, -0.5, 0.0]]))
    moved, _, _ = rule.step(quadratic, START, against, still)
    expected = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])  # 0.5 - 0.375 stays positive in the second row
    expected[0, 0] = -1.0  # 3/7 - 1.5 does not
    assert torch.equal(moved, START - 0.25 * expected)


def test_momentum_without_a_gradient_goes_on_and_then_rests() -> None:
    rule, still = MomentumSignStep(Constant(0.25)), torch.tensor([[0.0, 0.0, 1.0]])
    moved, state, _ = rule.step(quadratic, still, rule.init(still), torch.tensor([0]))
    assert torch.equal(moved, still)
    assert torch.equal(state.value, torch.zeros_like(still))


def test_a_step_of_unit_length_goes_alpha_down_the_gradient_of_each_row() -> None:
    rule, still = UnitStep(Constant(0.25), decay=0.75), torch.tensor([0, 0])
    gradient = START - torch.tensor([0.0, 0.0, 1.0])
    unit = gradient / gradient.norm(dim=1, keepdim=True)
    moved, state, _ = rule.step(quadratic, START, rule.init(START), still)
    torch.testing.assert_close(moved, START - 0.25 * unit)
    torch.testing.assert_close(state.value, unit)
    moved, _, _ = rule.step(quadratic, START, Direction(-2 * unit), still)
    torch.testing.assert_close(moved, START + 0.25 * unit)  # 1 - 1.5 of it
    rest = torch.tensor([[0.0, 0.0, 1.0]])
    assert torch.equal(rule.step(quadratic, rest, rule.init(rest), still[:1])[0], rest)


def test_falling_steps_reach_the_minimum() -> None:
    """Steps falling from 0.5 to 0 end within the last ones' size of the minimum; constant ones would swing."""
    rule, theta = SignStep(Linear(0.5, 0.0, 100)), START
    for k in range(100):
        theta, _, _ = rule.step(quadratic, theta, NoState(), torch.tensor([k, k]))
    torch.testing.assert_close(theta, torch.tensor([[0.0, 0.0, 1.0]] * 2), rtol=0, atol=0.01)


def test_adam_is_torchs_own() -> None:
    """With its defaults, on both rows at once; torch keeps one count for all."""
    rule, theta = AdamStep(Constant(0.01)), START.double()
    state, leaf = rule.init(theta), theta.clone().requires_grad_()
    torchs = torch.optim.Adam([leaf], lr=0.01, betas=(0.9, 0.999), eps=1e-8)
    for k in range(50):
        theta, state, _ = rule.step(quadratic, theta, state, torch.tensor([k, k]))
        torchs.zero_grad()
        quadratic(leaf).total.sum().backward()
        torchs.step()
    assert state.count.tolist() == [50, 50]
    torch.testing.assert_close(theta, leaf.detach(), rtol=1e-7, atol=1e-9)


def test_adam_counts_for_each_row() -> None:
    """A row that begins while its neighbour is at its tenth step begins as if it were alone."""
    rule = AdamStep(Linear(0.1, 0.0, 20))

    def alone(row: int, steps: int) -> tuple[Tensor, Any]:
        theta, state = START[row : row + 1], rule.init(START[row : row + 1])
        for k in range(steps):
            theta, state, _ = rule.step(quadratic, theta, state, torch.tensor([k]))
        return theta, state

    theta, state = (rows.cat([alone(0, 10)[i], alone(1, 0)[i]]) for i in range(2))
    moved, state, _ = rule.step(quadratic, theta, state, torch.tensor([10, 0]))
    assert torch.equal(moved, torch.cat([alone(0, 11)[0], alone(1, 1)[0]]))
    assert state.count.tolist() == [11, 1]


def test_adams_first_step_has_the_size_alpha_whatever_the_gradient() -> None:
    rule = AdamStep(Constant(0.25))
    moved, _, _ = rule.step(quadratic, START, rule.init(START), torch.tensor([0, 0]))
    torch.testing.assert_close(moved, START - 0.25 * (START - torch.tensor([0.0, 0.0, 1.0])).sign())
    still = torch.tensor([[0.0, 0.0, 1.0]])
    assert torch.equal(rule.step(quadratic, still, rule.init(still), torch.tensor([0]))[0], still)


@dataclass(frozen=True)
class Plane:
    """theta = (a, b, c) per row: map loss `slope` a; -log p = base - rate a + 2 rate b.

    So a step of length s down the map's gradient costs rate s of log p, and one down the prediction's own
    gradient gains sqrt(5) rate s.
    """

    base: Tensor
    rate: Tensor
    slope: float = 1.0
    bound: float = math.inf
    read: list[Tensor] = field(default_factory=list)
    asked: list[Tensor] = field(default_factory=list)
    keys: Keys = field(default_factory=lambda: KEYS)

    def __call__(self, theta: Tensor) -> Terms:
        self.read.append(theta.detach())
        loss = self.slope * theta[:, 0]
        return Terms(loss, {"map": loss, "prediction": self._surprise(theta)}, theta)

    def prediction(self, theta: Tensor) -> Terms:
        self.asked.append(theta.detach())
        loss = self._surprise(theta)
        return Terms(loss, {"prediction": loss}, theta)

    def _surprise(self, theta: Tensor) -> Tensor:
        return self.base - self.rate * theta[:, 0] + 2 * self.rate * theta[:, 1]

    def project(self, theta: Tensor) -> Tensor:
        return theta.clamp(-self.bound, self.bound)


REACH, FLOOR = 0.08, 0.95
ORIGIN = torch.zeros(4, 3, dtype=torch.float64)
ROOM = torch.tensor([0.01, 0.01, 0.01, -0.01], dtype=torch.float64)  # of -log p below the floor
BASE = -math.log(FLOOR) - ROOM
RATE = torch.tensor([1.0, 0.2, 0.01, 1.0], dtype=torch.float64)  # longest steps .01, .05, beyond max_step, none
FIRST = torch.zeros(4, dtype=torch.int64)
DOWN = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64) / 5**0.5  # the prediction's gradient


def search(objective: Plane, theta: Tensor = ORIGIN, step: Tensor = FIRST, **changes: object) -> Tensor:
    rule = TwoPhaseStep(**({"max_step": Constant(REACH), "prediction_step": 0.0} | changes))
    moved, state, _ = rule.step(objective, theta, NoState(), step)
    assert state == NoState()
    return moved


@pytest.mark.parametrize("slope", [1e-6, 1.0, 1e6])
def test_the_longest_step_that_keeps_the_floor_is_found_in_each_row(slope: float) -> None:
    """To within max_step / 2^12 and from below: never past the floor; the gradient's own length does not count."""
    moved = search(Plane(BASE, RATE, slope))
    longest = torch.tensor([0.01, 0.05, REACH, 0.0], dtype=torch.float64)
    short_of_it = longest + moved[:, 0]
    assert short_of_it.min() >= -1e-8
    assert short_of_it.max() <= REACH / 2**12 + 1e-8
    assert not moved[:, 1:].any()


def test_a_step_reads_the_map_twice_and_costs_a_pass_for_each_halving() -> None:
    """Where it came from, for the terms and the prediction's gradient, and where that gradient leads."""
    objective = Plane(BASE, RATE)
    search(objective, bisections=7, prediction_step=0.01)
    came, led = objective.read
    assert torch.equal(came, ORIGIN)
    torch.testing.assert_close(led, 0.01 * DOWN.expand(4, 3))
    assert len(objective.asked) == 7
    torch.testing.assert_close(objective.asked[0][:, 0], led[:, 0] - REACH / 2)


def test_the_search_sees_where_the_bounds_leave_theta() -> None:
    """A bound of .002 keeps the first row's confidence however far it would go."""
    objective = Plane(BASE, RATE, bound=0.002)
    moved = search(objective)
    assert all(theta.abs().max() <= 0.002 for theta in objective.asked)
    torch.testing.assert_close(moved[:, 0], torch.tensor([-0.002, -0.002, -0.002, 0.0], dtype=torch.float64))


def test_reach_follows_its_schedule_by_each_images_own_step() -> None:
    everywhere = Plane(BASE - 1, RATE)
    moved = search(everywhere, step=torch.tensor([0, 1, 2, 4]), max_step=Linear(0.08, 0.0, 4))
    expected = torch.tensor([0.08, 0.06, 0.04, 0.0], dtype=torch.float64)
    torch.testing.assert_close(-moved[:, 0], expected, rtol=2**-11, atol=0)


@pytest.mark.parametrize("length", [0.05, 0.3])
def test_the_first_step_has_its_length_down_the_gradient_of_the_prediction(length: float) -> None:
    moved = search(Plane(BASE, RATE, slope=0.0), prediction_step=length)
    torch.testing.assert_close(moved, (length * DOWN).expand(4, 3))


def test_the_map_moves_last_and_as_far_as_the_prediction_then_allows() -> None:
    """Algorithm 1's order: .01 down the prediction's gradient leaves room for sqrt(5) .01 more."""
    moved = search(Plane(BASE, RATE), prediction_step=0.01) - 0.01 * DOWN
    longest = torch.tensor([0.01, 0.05, REACH, -0.01], dtype=torch.float64) + 0.01 * 5**0.5
    torch.testing.assert_close(-moved[:, 0], longest.clamp(max=REACH), rtol=0, atol=REACH / 2**12 + 1e-8)
    assert not moved[:, 1:].abs().gt(1e-12).any()


def test_the_terms_are_those_of_the_theta_that_came_in() -> None:
    objective = Plane(BASE, RATE)
    _, _, terms = TwoPhaseStep(Constant(REACH)).step(objective, ORIGIN + 0.1, NoState(), FIRST)
    expected = objective(ORIGIN + 0.1)
    assert all(torch.equal(terms.parts[name], expected.parts[name]) for name in ("map", "prediction"))
    assert torch.equal(terms.logits, ORIGIN + 0.1)
    assert not terms.total.requires_grad


def test_the_default_first_step_is_the_papers() -> None:
    moved = search(Plane(BASE, RATE, slope=0.0), prediction_step=TwoPhaseStep(Constant(REACH)).prediction_step)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((4,), 0.05, dtype=torch.float64))


@pytest.mark.parametrize("slope", [0.0, math.nan, -math.inf])
def test_gradients_that_vanish_or_are_no_numbers_move_nothing(slope: float) -> None:
    still = Plane(BASE, torch.tensor([0.0, 0.0, math.nan, 0.0], dtype=torch.float64), slope)
    assert torch.equal(search(still, prediction_step=0.05), ORIGIN)


@pytest.mark.parametrize("size", [1e-45, 1e-40, 1e-25, 1.0, 1e25])
def test_lengths_are_kept_where_squares_are_not(size: float) -> None:
    """In float32 the squares of a saturated prediction's gradient vanish, and those of a steep one are infinite."""
    steep = Plane(torch.zeros(4), torch.full((4,), size), slope=size)
    still = Plane(torch.zeros(4), torch.full((4,), size), slope=0.0)
    assert search(steep, ORIGIN.float()).norm(dim=1).max() <= 0.08
    lengths = search(still, ORIGIN.float(), prediction_step=0.05).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((4,), 0.05))
