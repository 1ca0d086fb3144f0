"""A suite: members differ from the preset in what their name says and in nothing else; random points are functions."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from underfire.attacks.perturbations import Pixels
from underfire.attacks.solvers import adv2
from underfire.attacks.suite import PRESET, random_points, suite
from underfire.core.rng import image_keys
from underfire.core.schedules import FAR
from underfire.core.types import Images
from underfire.interpreters import CAM, GRAD, MASK, Ensemble, Interpreter

INTERPRETERS = [CAM(), GRAD(), MASK(), Ensemble((CAM(), GRAD()), (1.0, 1.0))]
IDS = [f"image {i}" for i in range(5)]


@pytest.mark.parametrize("recipe", ["annealed", "paper"])
@pytest.mark.parametrize("interpreter", INTERPRETERS, ids=lambda each: each.name)
def test_members_keep_all_of_the_recipe_but_what_they_are_named_for(interpreter: Interpreter, recipe: str) -> None:
    given: dict[str, Any] = {"recipe": recipe, "eps": 0.1, "seed": 3}
    preset, *others = suite(interpreter, **given)
    assert (preset.name, preset.attack) == (PRESET, adv2(interpreter, **given))
    for member in others:
        at_end = [each.attack.weights["map"](torch.tensor([FAR])).item() for each in (member, preset)]
        weight = 4 if "weight × 4" in member.name else 1 / 4 if "weight ÷ 4" in member.name else 1
        assert at_end[0] == pytest.approx(weight * at_end[1])
        assert member.attack.steps == (3 if "steps × 3" in member.name else 1) * preset.attack.steps
        assert (member.start > 0) == ("random start" in member.name)
        same = {name: getattr(preset.attack, name) for name in ("weights", "rungs", "rule", "prediction")}
        assert replace(member.attack, **same) == preset.attack


def test_so_many_steps_are_those_of_the_preset() -> None:
    assert {member.attack.steps for member in suite(CAM(), steps=7)} == {7, 21}


def test_names_are_distinct_and_so_are_members() -> None:
    members = suite(CAM())
    assert len({member.name for member in members}) == len(members)
    assert len({str((member.attack, member.start)) for member in members}) == len(members)


def images(n: int = 5) -> Images:
    return torch.rand((n, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def test_random_points_are_functions_of_seed_image_and_number() -> None:
    x, keys, ball = images(), image_keys(IDS), Pixels(0.1)
    found = random_points(ball, x, keys, 0, 1)
    assert torch.equal(found, random_points(ball, x, keys, 0, 1))
    order = torch.tensor([3, 0])
    assert torch.equal(random_points(ball, x[order], keys[order], 0, 1), found[order])
    grey = torch.full_like(x, 0.5)
    draws = [random_points(ball, grey, keys, seed, start) for seed, start in ((0, 1), (0, 2), (1, 1))]
    rows = torch.cat(draws).flatten(1)
    assert len(rows.unique(dim=0)) == 3 * len(IDS)


def test_random_points_fill_the_budget_and_stay_within_it() -> None:
    x, ball = images(), Pixels(0.1)
    theta = random_points(ball, x, image_keys(IDS), 0, 1)
    assert torch.equal(ball.project(x, theta), theta)
    inner = theta[((x > 0.1) & (x < 0.9))]
    assert inner.abs().max() > 0.099
    assert inner.mean().abs() < 0.01
    assert inner.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)
