"""Pixels and flows: the projection is the nearest allowed point, and decoding cuts no gradient."""

import pytest
import torch
from torch import Tensor

from tiny_networks import images
from underfire.attacks.perturbations import Flow, GridPixels, L2Ball, Pixels
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import sample

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


def test_pixels_have_no_measure_beside_their_change() -> None:
    assert Pixels().measures(torch.zeros(2, 3, 4, 4)) == {}


@every_eps
@every_dtype
def test_projections_into_a_ball_of_l2_are_within_range_and_ball(eps: float, dtype: torch.dtype) -> None:
    ball, x0 = L2Ball(10 * eps), images(20, dtype=dtype)
    x0[0], x0[1] = 0, 1
    theta = ball.project(x0, somewhere(1, dtype)[:1] + images(20, seed=2, dtype=dtype))
    x = ball.decode(x0, theta)
    assert x.min() >= 0
    assert x.max() <= 1
    assert (ball.size(theta) <= 10 * eps * (1 + 8 * torch.finfo(dtype).eps)).all()


def test_what_leaves_a_ball_of_l2_is_shortened_to_its_surface() -> None:
    """The nearest point of the ball is on the ray, where [0, 1] leaves room."""
    x0, ball = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64), L2Ball(0.3)
    theta = images(2, seed=3, dtype=torch.float64)[:, :, :4, :4] - 0.5
    theta[1] *= 0.01
    projected = ball.project(x0, theta)
    lengths = theta.flatten(1).norm(dim=1)
    torch.testing.assert_close(projected[0], theta[0] * 0.3 / lengths[0])
    torch.testing.assert_close(projected[1], theta[1])
    assert lengths[0] > 0.3 > lengths[1]


# ------------------------------------------------------------------ flows


def a_flow(reach: float, dtype: torch.dtype = torch.float64, n: int = 2) -> Tensor:
    """Parameters for images of 16 x 16 pixels, inside and far outside of them."""
    return reach * (2 * torch.rand(n, 2, 16, 16, generator=torch.Generator().manual_seed(5), dtype=dtype) - 1)


def test_no_flow_decodes_to_the_image_itself() -> None:
    x0, flow = images(2), Flow()
    theta = flow.init(x0)
    assert theta.shape == (2, 2, 16, 16)
    assert torch.equal(flow.decode(x0, theta), x0)
    assert torch.equal(flow.project(x0, theta), theta)
    assert torch.equal(flow.size(theta), torch.zeros(2))
    assert torch.equal(flow.cost(theta), torch.zeros(2))


@pytest.mark.parametrize("reach", [0.5, 30.0])
def test_projected_flows_stay_inside_the_image_and_show_what_the_edge_would_repeat(reach: float) -> None:
    """So the projection changes no image, only where a pixel that was taken from outside is now taken from."""
    x0, theta = images(2, dtype=torch.float64), a_flow(reach)
    projected = Flow().project(x0, theta)
    place = projected + torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij"))
    assert place.min() >= 0
    assert place.max() <= 15
    inside = (place - projected + theta).clamp(0, 15) - (place - projected)
    torch.testing.assert_close(projected, inside, rtol=0, atol=1e-12)
    torch.testing.assert_close(Flow().decode(x0, projected), sample(x0, theta), rtol=0, atol=1e-12)
    assert torch.equal(Flow().project(x0, projected), projected)


def test_decoding_a_flow_passes_gradients_on_the_edges_of_the_image() -> None:
    """A projected pixel at the upper or left edge feels what lies inside; at the others the edge is repeated."""
    x0 = images(2, dtype=torch.float64)
    theta = Flow().project(x0, a_flow(30.0)).requires_grad_()
    (gradient,) = torch.autograd.grad(Flow().decode(x0, theta).square().sum(), theta)
    place = theta.detach()[:, 0] + torch.arange(16.0)[:, None]
    assert (gradient[:, 0][place == 0] != 0).float().mean() > 0.9


def test_cost_sums_the_differences_of_adjacent_flows_from_both_sides() -> None:
    """Eq. 14, pair by pair."""
    theta = a_flow(2.0, n=1)[..., :3, :4]
    r, expected = theta[0].permute(1, 2, 0), 0.0
    for i in range(3):
        for j in range(4):
            for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= k < 3 and 0 <= m < 4:
                    expected += float((r[i, j] - r[k, m]).norm())
    assert Flow(floor=1e-9).cost(theta).item() == pytest.approx(expected, rel=1e-6)
    assert Flow().cost(theta).item() == pytest.approx(expected, abs=2 * 17 * 1e-4)


def test_a_rigid_flow_costs_nothing_and_has_a_gradient() -> None:
    rigid = torch.full((2, 2, 5, 6), 1.5).requires_grad_()
    cost = Flow().cost(rigid)
    assert torch.equal(cost, torch.zeros(2))
    assert torch.equal(torch.autograd.grad(cost.sum(), rigid)[0], torch.zeros_like(rigid))


def test_the_gradient_of_the_cost_is_that_of_finite_differences_also_below_the_floor() -> None:
    for reach in (2.0, 1e-4, 1e-6):
        theta = a_flow(reach, n=1)[..., :3, :4].requires_grad_()
        assert torch.autograd.gradcheck(Flow().cost, theta, eps=1e-9, atol=1e-5)


def test_measures_of_a_flow_are_per_image() -> None:
    theta = torch.zeros(2, 2, 4, 5)
    theta[1, 0], theta[1, 1] = 3.0, -4.0
    theta[0, 1, 2, 2] = 20.0
    measures = Flow().measures(theta)
    assert set(measures) == {"flow_mean", "flow_smoothness"}
    assert measures["flow_mean"].tolist() == [1.0, 5.0]
    assert measures["flow_smoothness"].tolist() == pytest.approx([160.0, 0.0], abs=1e-2)
    assert torch.equal(measures["flow_mean"], Flow().size(theta))


# ------------------------------------------------------------------ the grid of 8 bits


@pytest.mark.parametrize("eps", [0.5 / 255, 1 / 255, 8 / 255, 0.031])
@pytest.mark.parametrize("rounded", [True, False])
def test_images_on_the_grid_are_what_8_bits_hold_and_within_the_ball(eps: float, rounded: bool) -> None:
    x0, within = images(3, dtype=torch.float32), GridPixels(eps)
    x0 = (255 * x0).round() / 255 if rounded else x0
    theta = within.project(x0, 0.1 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)))
    for each in (theta, within.project(x0, within.init(x0))):
        x = within.decode(x0, each)
        assert torch.equal(x, (255 * x).round() / 255)
        assert float((x - x0).abs().max()) <= eps + 1e-6
        assert float(x.min()) >= 0
        assert float(x.max()) <= 1


def test_rounding_to_the_grid_lets_the_gradient_through() -> None:
    x0, within = images(2, dtype=torch.float32), GridPixels(8 / 255)
    theta = (0.01 * torch.ones_like(x0)).requires_grad_()
    weights = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((weights * within.decode(x0, theta)).sum(), theta)
    assert torch.equal(gradient, weights)


def test_a_budget_of_less_than_half_a_step_leaves_no_grid() -> None:
    with pytest.raises(UnderfireError, match="less than half a step of 8 bits"):
        GridPixels(0.4 / 255)
