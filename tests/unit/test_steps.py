"""The sign step: Eq. 1 and 4 by hand, one image at a time, and known minima."""

import torch
from torch import Tensor

from underfire.schedules import Constant, Linear
from underfire.steps import NoMemory, SignStep, value_and_gradient
from underfire.types import Terms

START = torch.tensor([[0.5, -2.0, 0.0], [1.0, 1.0, -3.0]])


def quadratic(theta: Tensor) -> Terms:
    """Half the squared distance to (0, 0, 1), row by row."""
    loss = (theta - torch.tensor([0.0, 0.0, 1.0])).square().sum(1) / 2
    return Terms(loss, {"loss": loss}, theta)


def test_value_and_gradient_of_each_row() -> None:
    terms, gradient = value_and_gradient(quadratic, START)
    torch.testing.assert_close(terms.total.detach(), torch.tensor([2.625, 9.0]))
    assert torch.equal(gradient, torch.tensor([[0.5, -2.0, -1.0], [1.0, 1.0, -4.0]]))
    assert not START.requires_grad


def test_a_step_moves_every_parameter_by_alpha_against_its_gradient() -> None:
    moved, memory, terms = SignStep(Constant(0.25)).step(quadratic, START, NoMemory(), torch.tensor([0, 0]))
    assert torch.equal(moved, torch.tensor([[0.25, -1.75, 0.25], [0.75, 0.75, -2.75]]))
    assert memory == NoMemory()
    torch.testing.assert_close(terms.total.detach(), quadratic(START).total)


def test_a_parameter_without_gradient_stays() -> None:
    still = torch.tensor([[0.0, 0.0, 1.0]])
    assert torch.equal(SignStep(Constant(0.25)).step(quadratic, still, NoMemory(), torch.tensor([0]))[0], still)


def test_each_image_is_at_its_own_step_of_the_schedule() -> None:
    moved, _, _ = SignStep(Linear(1.0, 0.0, 4)).step(quadratic, START, NoMemory(), torch.tensor([1, 4]))
    torch.testing.assert_close((moved - START).abs(), torch.tensor([[0.75] * 3, [0.0] * 3]))


def test_falling_steps_reach_the_minimum() -> None:
    """Steps falling from 0.5 to 0 end within the last ones' size of the minimum; constant ones would swing."""
    rule, theta = SignStep(Linear(0.5, 0.0, 100)), START
    for k in range(100):
        theta, _, _ = rule.step(quadratic, theta, NoMemory(), torch.tensor([k, k]))
    torch.testing.assert_close(theta, torch.tensor([[0.0, 0.0, 1.0]] * 2), rtol=0, atol=0.01)
