"""Pixels: the projection is the nearest allowed point, and decoding cuts no gradient."""

import pytest
import torch
from torch import Tensor

from tiny_networks import images
from underfire.perturbations import Pixels

every_eps = pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.031, 0.5, 1.0])
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def somewhere(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Parameters in and far outside the ball."""
    return 3 * images(2, seed=seed, dtype=dtype) - 1.5


def test_no_change_decodes_to_the_image_itself() -> None:
    x0, pixels = images(2), Pixels()
    theta = pixels.init(x0)
    assert torch.equal(pixels.decode(x0, theta), x0)
    assert torch.equal(pixels.project(x0, theta), theta)
    assert torch.equal(pixels.size(theta), torch.zeros(2))
    assert torch.equal(pixels.cost(theta), torch.zeros(2))


@every_eps
@every_dtype
def test_projections_decode_into_range_and_ball(eps: float, dtype: torch.dtype) -> None:
    """The range holds exactly; the ball up to the rounding of x0 + theta below 1."""
    pixels = Pixels(eps)
    x0 = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x0[0], x0[1] = 0, 1
    theta = pixels.project(x0, 3 * torch.rand(x0.shape, generator=torch.Generator().manual_seed(1), dtype=dtype) - 1.5)
    x = pixels.decode(x0, theta)
    assert x.min() >= 0
    assert x.max() <= 1
    assert (x - x0).abs().max() <= eps + torch.finfo(dtype).eps / 2
    assert (pixels.size(theta) <= eps + torch.finfo(dtype).eps / 2).all()


@every_eps
def test_projection_is_the_nearest_point_of_a_box(eps: float) -> None:
    """Of the interval [max(-eps, -x0), min(eps, 1 - x0)] in every pixel."""
    x0, theta = images(2, dtype=torch.float64), somewhere(1)
    nearest = theta.clamp((-x0).clamp_min(-eps), (1 - x0).clamp_max(eps))
    torch.testing.assert_close(Pixels(eps).project(x0, theta), nearest, rtol=0, atol=1e-15)


@every_eps
@every_dtype
def test_projecting_twice_is_projecting_once(eps: float, dtype: torch.dtype) -> None:
    """To the last bit of the image, so that an image that has arrived rests."""
    x0, pixels = images(2, dtype=dtype), Pixels(eps)
    once = pixels.project(x0, somewhere(1, dtype))
    assert torch.equal(pixels.decode(x0, pixels.project(x0, once)), pixels.decode(x0, once))


def test_decoding_passes_every_gradient_also_on_the_bounds() -> None:
    x0, pixels = images(2), Pixels(0.031)
    theta = pixels.project(x0, somewhere(1, torch.float32)).requires_grad_()
    weight = somewhere(2, torch.float32)
    (gradient,) = torch.autograd.grad((pixels.decode(x0, theta) * weight).sum(), theta)
    assert torch.equal(gradient, weight)


def test_size_is_the_largest_change_of_each_image() -> None:
    theta = torch.zeros(2, 3, 4, 4)
    theta[0, 1, 2, 3], theta[1, 0, 0, 0] = -0.25, 0.125
    assert Pixels().size(theta).tolist() == [0.25, 0.125]
