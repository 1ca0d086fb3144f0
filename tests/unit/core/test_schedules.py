"""Schedules: their ends, their shape between, and that each image counts its own steps."""

import math

import pytest
import torch

from underfire.core.schedules import Constant, Cosine, Linear, Schedule

every_schedule = pytest.mark.parametrize(
    "schedule", [Constant(2.0), Linear(2.0, 5.0, 30), Cosine(2.0, 5.0, 30)], ids=str
)


def test_constant() -> None:
    assert torch.equal(Constant(0.3)(torch.tensor([0, 7, 10**6])), torch.full((3,), 0.3))


@pytest.mark.parametrize("schedule", [Linear(2.0, 5.0, 30), Cosine(2.0, 5.0, 30), Linear(5.0, 2.0, 1)], ids=str)
def test_from_start_to_end_and_no_further(schedule: Linear | Cosine) -> None:
    steps = torch.tensor([0, schedule.steps, schedule.steps + 1, 10**9])
    torch.testing.assert_close(schedule(steps), torch.tensor([schedule.start, *[schedule.end] * 3]))


def test_linear_grows_in_equal_increments() -> None:
    increments = Linear(2.0, 5.0, 30)(torch.arange(31)).diff()
    torch.testing.assert_close(increments, torch.full((30,), 0.1), rtol=0, atol=1e-6)


def test_cosine_is_half_a_wave() -> None:
    expected = [3.5 - 1.5 * math.cos(math.pi * k / 30) for k in range(31)]
    torch.testing.assert_close(Cosine(2.0, 5.0, 30)(torch.arange(31)), torch.tensor(expected))


def test_cosine_to_zero_ends_at_zero_exactly() -> None:
    assert Cosine(2 / 255, 0.0, 100)(torch.tensor([100])).item() == 0


@every_schedule
def test_each_image_has_its_own_step(schedule: Schedule) -> None:
    steps = torch.tensor([11, 0, 29, 11])
    assert torch.equal(schedule(steps), torch.cat([schedule(steps[i : i + 1]) for i in range(4)]))
