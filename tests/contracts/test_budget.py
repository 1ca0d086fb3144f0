"""Law 4, Budget: every returned image lies in [0, 1] and in the ball, and is what its theta decodes to;
a bent image is a convex mix of pixels."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from law_cases import pairs
from tiny_attacks import ALGORITHM_1, BENT, INTERPRETERS, a_goal, attack, interpreter_of
from tiny_networks import NETWORKS, classifier, images
from underfire.attacks import engine
from underfire.attacks.perturbations import Flow, L2Ball, Pixels
from underfire.attacks.steps import AdamStep, SignStep, TwoPhaseStep, UnitStep
from underfire.core.image_ops import sample
from underfire.core.schedules import Constant
from underfire.data.regions import Box
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier

ROUNDING = 2**-24  # half the spacing of float32 below 1, twice


@pytest.mark.parametrize(("net", "name"), pairs(NETWORKS, INTERPRETERS))
@pytest.mark.parametrize("eps", [0.0, pytest.param(0.01, marks=pytest.mark.extended), 0.031, 0.9])
def test_images_stay_in_range_and_in_the_ball(net: str, name: str, eps: float) -> None:
    """Far starts and long steps push every pixel against its bounds; some pixels start on the bounds of [0, 1]."""
    model, pixels = classifier(net), Pixels(eps)
    interpreter = interpreter_of(name, model)
    x0 = images(2)
    assert (x0 == 0).any()
    assert (x0 == 1).any()
    start = pixels.project(x0, 4 * images(2, seed=1) - 2)
    assert_within_bounds_once_reached(model, interpreter, pixels, x0, start, rule=SignStep(Constant(0.7 * eps)))


@pytest.mark.parametrize("perturbation", [L2Ball(0.5), Pixels(1.0), Flow()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("name", ["blind", "grad-differences", "mask"])
def test_outside_of_its_region_an_image_keeps_every_bit(name: str, perturbation: Any) -> None:
    model, x0 = classifier("resnet"), images(3)
    interpreter = interpreter_of(name, model)
    region = Box(3, 5, 8, 6).inside(("a", "b", "c"), 16, 16)
    region[1] = Box(0, 0, 16, 2).inside(("b",), 16, 16)[0]
    rule = UnitStep(Constant(0.3)) if isinstance(perturbation, L2Ball) else AdamStep(Constant(0.5))
    wild = attack(interpreter, perturbation=perturbation, rule=rule, rungs=(3,), quantum=3, warm_start=None)
    goal = replace(a_goal(model, interpreter, x0), region=region)
    image = engine.run(wild, model, goal, batch_size=2).image
    changed = (image != x0).any(1)
    assert not bool((changed & ~region).any())
    assert bool((changed & region).any())
    if isinstance(perturbation, L2Ball):
        assert bool(((image - x0).flatten(1).norm(dim=1) <= 0.5 + 1e-5).all())


@pytest.mark.parametrize("name", ["cam", "mask-unrolled"])
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.031])
def test_a_search_for_the_longest_step_ends_in_range_and_in_the_ball(name: str, eps: float) -> None:
    """Its steps have lengths in L2, which no pixel's bounds know."""
    model, pixels = classifier("resnet"), Pixels(eps)
    start = pixels.project(images(2), 4 * images(2, seed=1) - 2)
    rule = TwoPhaseStep(Constant(5.0), prediction_step=5.0, floor=0.01)
    assert_within_bounds_once_reached(
        model, interpreter_of(name, model), pixels, images(2), start, **(ALGORITHM_1 | {"rule": rule})
    )


def assert_within_bounds_once_reached(
    model: Classifier, interpreter: Interpreter, pixels: Pixels, x0: Tensor, start: Tensor, **changes: Any
) -> None:
    wild = attack(interpreter, perturbation=pixels, rungs=(3,), quantum=3, **changes)
    ((_, outcome),) = engine.stream(wild, model, a_goal(model, interpreter, x0), batch_size=2, start=start)
    assert outcome.image.min() >= 0
    assert outcome.image.max() <= 1
    change = (outcome.image - x0).abs()
    assert change.max() <= pixels.eps + ROUNDING
    assert change.max() >= pixels.eps - ROUNDING, "the bounds must have been reached"
    assert torch.equal(pixels.decode(x0, outcome.theta), outcome.image)


@pytest.mark.parametrize("name", INTERPRETERS)
@pytest.mark.parametrize("reach", [0.3, 20.0])
def test_bent_images_are_mixes_of_the_four_pixels_around_places_inside_the_image(name: str, reach: float) -> None:
    """Far starts and long steps push every pixel over the edges; some pixels lie on the bounds of [0, 1]."""
    model, x0 = classifier("resnet"), images(2)
    interpreter = interpreter_of(name, model)
    start = Flow().project(x0, reach * (4 * images(2, seed=1)[:, :2] - 2))
    wild = attack(interpreter, **(BENT | {"rule": AdamStep(Constant(reach)), "rungs": (3,), "quantum": 3}))
    ((_, outcome),) = engine.stream(wild, model, a_goal(model, interpreter, x0), batch_size=2, start=start)
    assert torch.equal(Flow().decode(x0, outcome.theta), outcome.image)
    place = outcome.theta + torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    assert place.min() >= 0
    assert place.max() <= 15
    assert ((place == 0) | (place == 15)).any(), "the edges must have been reached"
    steps = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).view(4, 2, 1, 1)
    around = torch.stack([sample(x0, outcome.theta.floor() + step) for step in steps])
    assert (outcome.image >= around.amin(0) - ROUNDING).all()
    assert (outcome.image <= around.amax(0) + ROUNDING).all()
    assert outcome.image.min() >= 0
    assert outcome.image.max() <= 1
