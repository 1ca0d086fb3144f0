"""Smoothing: the median of maps of noisy copies, drawn per image, fresh at every look of the attacker."""

import pytest
import torch

from tiny_networks import classifier, images
from underfire.attacks.solvers import adv2
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.interpreters import CAM, Smooth
from underfire.interpreters.protocol import Interpreter
from underfire.interpreters.registry import interpreter_named

KEYS, Y = image_keys("abc"), torch.tensor([0, 1, 2])


def test_maps_are_medians_over_noise_of_that_size() -> None:
    model, x, smooth = classifier("resnet"), images(3), Smooth(CAM(), copies=5, sigma=0.1)
    copies = smooth._noisy(x, "deployed", KEYS, torch.zeros_like(KEYS))
    noise = torch.stack(copies) - x
    assert noise.std().item() == pytest.approx(0.1, rel=0.05)
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    maps = torch.stack([CAM().explain(model, copy, Y, KEYS) for copy in copies])
    assert torch.equal(smooth.explain(model, x, Y, KEYS), maps.median(0).values)


def test_noise_belongs_to_image_seed_and_copy() -> None:
    x, smooth = images(1).expand(3, -1, -1, -1), Smooth(CAM(), copies=3)
    zero = torch.zeros_like(KEYS)
    copies = torch.stack(smooth._noisy(x, "deployed", KEYS, zero))
    others = (smooth._noisy(x, "attacker", KEYS, zero), Smooth(CAM(), 3, seed=1)._noisy(x, "deployed", KEYS, zero))
    noises = torch.cat([copies, *(torch.stack(other) for other in others)]) - x
    assert len(noises.flatten(0, 1).flatten(1).unique(dim=0)) == 27
    order = torch.tensor([2, 0])
    assert torch.equal(torch.stack(smooth._noisy(x[order], "deployed", KEYS[order], zero[order])), copies[:, order])


def test_the_attacker_sees_fresh_noise_at_every_step_and_has_a_gradient() -> None:
    model, x, smooth = classifier("resnet"), images(3).requires_grad_(), Smooth(CAM(), copies=3)
    belief, seen = smooth.begin(model, x, Y, KEYS), []
    for _ in range(3):
        belief = smooth.advance(model, belief, x, Y)
        seen.append(smooth.read(model, belief, x, Y).maps)
    assert not any(torch.equal(seen[i], seen[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    (gradient,) = torch.autograd.grad(seen[0].sum(), x)
    assert gradient.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("name", ["smooth:cam", "smooth:rts", "smooth:smooth:grad"])
def test_named_on_the_command_line_and_attacked_by_preset(name: str) -> None:
    smooth = interpreter_named(name)
    assert isinstance(smooth, Interpreter)
    assert smooth.name == name.replace(":", "-")
    assert adv2(smooth).interpreter == smooth


def test_refused_in_one_sentence() -> None:
    with pytest.raises(UnderfireError, match="as in smooth:cam"):
        interpreter_named("smooth")
    with pytest.raises(UnderfireError, match="no interpreter 'nothing'"):
        interpreter_named("smooth:nothing")
    for wrong in ({"copies": 4}, {"copies": 0}, {"sigma": -0.1}):
        with pytest.raises(UnderfireError, match="an odd number of copies"):
            Smooth(CAM(), **wrong)
