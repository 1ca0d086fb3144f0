"""Law 4, Budget: every returned image lies in [0, 1] and in the ball, and is what its theta decodes to."""

import pytest
import torch

from tiny_attacks import INTERPRETERS, a_goal, attack, interpreter_of
from tiny_networks import NETWORKS, classifier, images
from underfire import engine
from underfire.perturbations import Pixels
from underfire.schedules import Constant
from underfire.steps import SignStep

ROUNDING = 2**-24  # half the spacing of float32 below 1, twice


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("name", INTERPRETERS)
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.031, 0.9])
def test_images_stay_in_range_and_in_the_ball(net: str, name: str, eps: float) -> None:
    """Far starts and long steps push every pixel against its bounds; some pixels start on the bounds of [0, 1]."""
    model, pixels = classifier(net), Pixels(eps)
    interpreter = interpreter_of(name, model)
    x0 = images(2)
    assert (x0 == 0).any()
    assert (x0 == 1).any()
    start = pixels.project(x0, 4 * images(2, seed=1) - 2)
    wild = attack(interpreter, perturbation=pixels, rule=SignStep(Constant(0.7 * eps)), steps=3, quantum=3)
    ((_, outcome),) = engine.stream(wild, model, a_goal(model, interpreter, x0), width=2, start=start)
    assert outcome.image.min() >= 0
    assert outcome.image.max() <= 1
    change = (outcome.image - x0).abs()
    assert change.max() <= eps + ROUNDING
    assert change.max() >= eps - ROUNDING, "the bounds must have been reached"
    assert torch.equal(pixels.decode(x0, outcome.theta), outcome.image)
