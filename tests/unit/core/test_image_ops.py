"""Images and maps: what is accepted, and how maps are normalised, averaged and rounded."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import (
    area_mean,
    block_mean,
    blur,
    blur_kernel,
    cell_side,
    central,
    check_images,
    convolve,
    is_constant,
    normalise_map,
    resize,
    sample,
    shifted,
    spreading,
    to_8bit,
    total_variation,
)


def maps(n: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 5, 7, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (torch.full((2, 3, 4, 4), float("nan")), "NaN or infinite"),
        (torch.full((2, 3, 4, 4), float("inf")), "NaN or infinite"),
        (torch.full((2, 3, 4, 4), 255.0), r"\[0, 1\] but span \[255, 255\]; divide 8-bit images by 255"),
        (torch.tensor([-2.0, 2.0]).repeat(1, 3, 4, 2), r"span \[-2, 2\].*leave the normalisation to the Classifier"),
        (torch.full((2, 3, 4, 4), -1e-6), r"\[0, 1\] but span"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "floating-point tensor in .*divide 8-bit images by 255"),
        (torch.zeros(2, 1, 4, 4), r"shape \(N, 3, H, W\), not \(2, 1, 4, 4\)"),
        (torch.zeros(2, 4, 4, 3), r"shape \(N, 3, H, W\), not \(2, 4, 4, 3\)"),
        (torch.zeros(3, 4, 4), r"shape \(N, 3, H, W\), not \(3, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4), "batch of images is empty"),
    ],
)
def test_what_is_no_image(images: Tensor, complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        check_images(images)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 4, 4), np.float32), [[0.0]], None])
def test_what_is_no_tensor(images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UnderfireError, match="must be a floating-point tensor"):
        check_images(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_images_are_accepted_as_they_are(dtype: torch.dtype) -> None:
    images = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).view(1, 3, 1, 1)
    assert check_images(images) is images


def test_normalised_maps_run_from_0_to_1_and_forget_scale_and_offset() -> None:
    raw = maps()
    normalised = normalise_map(raw)
    assert torch.equal(normalised.amin((1, 2)), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(normalised.amax((1, 2)), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(normalise_map(3 * raw - 2), normalised, rtol=0, atol=1e-14)
    torch.testing.assert_close(normalise_map(-raw), 1 - normalised, rtol=0, atol=1e-14)


def test_each_map_is_normalised_by_itself() -> None:
    raw = maps() * torch.tensor([1e-6, 1.0, 10.0, 1e6], dtype=torch.float64).view(4, 1, 1)
    for i in range(4):
        assert torch.equal(normalise_map(raw)[i], normalise_map(raw[i : i + 1])[0])


@pytest.mark.parametrize("value", [-3.0, 0.0, 1e8])
def test_a_constant_map_becomes_zeros_and_is_flagged_also_under_autograd(value: float) -> None:
    raw = torch.cat([torch.full((1, 5, 7), value, dtype=torch.float64), maps(1)]).requires_grad_()
    normalised = normalise_map(raw)
    assert torch.equal(normalised[0], torch.zeros(5, 7, dtype=torch.float64))
    assert is_constant(raw).tolist() == is_constant(normalised).tolist() == [True, False]
    (gradient,) = torch.autograd.grad(normalised[1].square().sum() + normalised[0].sum(), raw)
    assert gradient.isfinite().all()


def test_block_mean_averages_blocks_and_drops_the_rest() -> None:
    raw = torch.arange(35, dtype=torch.float64).view(1, 5, 7)
    expected = raw[:, :4, :6].reshape(1, 2, 2, 3, 2).mean((2, 4))
    torch.testing.assert_close(block_mean(raw, 2), expected)


def test_8_bit_rounding_keeps_what_8_bits_hold() -> None:
    levels = (torch.arange(256, dtype=torch.float64) / 255).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(to_8bit(levels), levels)


def test_8_bit_rounding_goes_to_the_nearest_level() -> None:
    """Truncation would send the second to 7."""
    values = (torch.tensor([7.49, 7.51, 254.6]) / 255).view(1, 3, 1, 1)
    torch.testing.assert_close(to_8bit(values) * 255, torch.tensor([7.0, 8.0, 255.0]).view(1, 3, 1, 1))


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), (32, 32)), ((13, 13), (27, 27)), ((5, 7), (3, 20)), ((1, 4), (6, 4))]
)
def test_resize_is_bilinear_between_the_centres_of_cells(old: tuple[int, int], new: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *old, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.nn.functional.interpolate(x, new, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(x, *new), expected)


def test_resize_to_the_same_size_changes_no_bit() -> None:
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(x, 5, 7), x)


@pytest.mark.parametrize("side", [4, 6])
def test_the_central_cells_are_what_is_resized(side: int) -> None:
    """A centre of whole cells, away from the edges that resize repeats."""
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    border = (12 - side) // 2
    inside = slice(12 // side, 12 - 12 // side)
    expected = resize(x[:, :, border:-border, border:-border], 12, 12)
    found = central(x, side / 12)
    torch.testing.assert_close(found[:, :, inside, inside], expected[:, :, inside, inside])
    assert torch.equal(central(x, 1.0), x)


def test_blur_is_a_gaussian_average() -> None:
    """In the middle of a large image it is the sampled bell; it keeps constants, also at the edges."""
    point = torch.zeros(1, 1, 61, 41, dtype=torch.float64)
    point[0, 0, 30, 20] = 1
    rows, columns = torch.arange(61) - 30, torch.arange(41) - 20
    bell = torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * 2.5**2)).double()
    torch.testing.assert_close(blur(point, 2.5)[0, 0], bell / bell.sum(), atol=1e-9, rtol=0)
    constant = torch.full((1, 3, 6, 9), 0.3, dtype=torch.float64)
    torch.testing.assert_close(blur(constant, 4.0), constant)


@pytest.mark.parametrize(("height", "width", "side"), [(224, 224, 4), (64, 300, 4), (63, 300, 2), (32, 32, 2)])
def test_cells_are_a_quarter_of_the_side_or_half_of_a_small_one(height: int, width: int, side: int) -> None:
    assert cell_side(torch.zeros(1, 3, height, width)) == side


@pytest.mark.parametrize(("taps", "sigma"), [(7, 1.4), (11, 2.0), (13, 2.3), (21, 3.5)])
def test_large_kernels_are_gaussians_of_automatic_width(taps: int, sigma: float) -> None:
    kernel, places = blur_kernel(taps), torch.arange(taps) - taps // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    bell = -places.double().square() / (2 * sigma**2)
    torch.testing.assert_close((kernel / kernel[taps // 2]).log(), bell, rtol=1e-9, atol=1e-12)


def test_small_kernels_are_binomial() -> None:
    assert blur_kernel(1).tolist() == [1]
    assert blur_kernel(3).tolist() == [1 / 4, 2 / 4, 1 / 4]
    assert blur_kernel(5).tolist() == [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16]


def test_a_convolution_averages_what_lies_inside() -> None:
    x, kernel = maps(2)[:, None], blur_kernel(7)
    window = (kernel[:, None] * kernel)[None, None]
    total, weight = (torch.nn.functional.conv2d(v, window, padding=3) for v in (x, torch.ones_like(x)))
    torch.testing.assert_close(convolve(x, kernel), total / weight)


def test_spreading_resizes_and_then_averages() -> None:
    x, kernel = maps(2)[:, None], blur_kernel(3)
    down, along = spreading(5, 20, kernel, x), spreading(7, 21, kernel, x)
    torch.testing.assert_close(down @ x @ along.T, convolve(resize(x, 20, 21), kernel))


def test_each_image_is_shifted_by_its_own_offsets() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float64).view(2, 3, 4, 5)
    moved = shifted(x, torch.tensor([[0, 3], [1, 2]]))
    assert torch.equal(moved[0], x[0].roll((0, -3), (1, 2)))
    assert torch.equal(moved[1], x[1].roll((-1, -2), (1, 2)))


@pytest.mark.parametrize("corner", [(1, 1), (5, 11), (17, 3), (17, 17)])
def test_variation_of_a_square_is_the_same_wherever_it_stands(corner: tuple[int, int]) -> None:
    """Of 40 unit differences two start at the same cell, the lower right corner: 38 + 2^1.5."""
    mask = torch.zeros(1, 28, 28, dtype=torch.float64)
    mask[:, corner[0] : corner[0] + 10, corner[1] : corner[1] + 10] = 1
    assert total_variation(mask, 3.0).item() == pytest.approx(40.8284, abs=1e-4)


def test_variation_of_a_constant_is_next_to_nothing_and_has_a_gradient() -> None:
    mask = torch.full((2, 28, 28), 0.7, requires_grad=True)
    variation = total_variation(mask, 3.0)
    assert variation.max() < 1e-8
    assert torch.equal(torch.autograd.grad(variation.sum(), mask)[0], torch.zeros_like(mask))


def test_variation_pairs_the_differences_that_start_at_the_same_cell() -> None:
    masks = maps(2)
    expected = torch.zeros(2, dtype=torch.float64)
    for i in range(5):
        for j in range(7):
            down = masks[:, i + 1, j] - masks[:, i, j] if i < 4 else 0
            along = masks[:, i, j + 1] - masks[:, i, j] if j < 6 else 0
            expected += (down**2 + along**2 + 1e-8) ** 1.5
    torch.testing.assert_close(total_variation(masks, 3.0), expected)


def test_area_means_weigh_pixels_by_their_share_of_the_cell() -> None:
    x = torch.arange(3, dtype=torch.float64).view(1, 1, 1, 3)
    assert torch.allclose(area_mean(x, 1, 2).flatten(), torch.tensor([1 / 3, 5 / 3], dtype=torch.float64))
    finer = x.flatten().repeat_interleave(2)
    assert torch.allclose(area_mean(x, 2, 6), finer.expand(1, 1, 2, 6))
    noise = torch.rand(2, 3, 12, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(area_mean(noise, 4, 2), torch.nn.functional.avg_pool2d(noise, (3, 4)))


# ------------------------------------------------------------------ sampling along a flow


def a_flow(reach: float = 3.0, dtype: torch.dtype = torch.float64, side: int = 9) -> Tensor:
    return reach * (2 * torch.rand(2, 2, side, side + 2, generator=torch.Generator().manual_seed(3), dtype=dtype) - 1)


def pixels(dtype: torch.dtype = torch.float64, side: int = 9) -> Tensor:
    return torch.rand(2, 3, side, side + 2, generator=torch.Generator().manual_seed(4), dtype=dtype)


def test_a_flow_says_where_pixels_are_taken_from() -> None:
    """Down before along; what lies beyond the edge is the edge."""
    x = torch.arange(20.0).view(1, 1, 4, 5).expand(1, 3, 4, 5)
    down, along = torch.zeros(2, 1, 2, 4, 5)
    down[:, 0], along[:, 1] = 1, 0.25
    assert sample(x, down)[0, 0].tolist() == [*x[0, 0, 1:].tolist(), x[0, 0, 3].tolist()]
    assert sample(x, down)[0, 0, 0].tolist() == [5, 6, 7, 8, 9]
    assert sample(x, along)[0, 0, 0].tolist() == [0.25, 1.25, 2.25, 3.25, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_flow_is_the_identity_to_the_last_bit(dtype: torch.dtype) -> None:
    x = pixels(dtype)
    assert torch.equal(sample(x, torch.zeros(2, 2, 9, 11, dtype=dtype)), x)


@pytest.mark.parametrize("reach", [0.4, 3.0, 100.0])
def test_sampling_is_torchs_own(reach: float) -> None:
    """grid_sample with border and align_corners counts from -1 to 1 between the centres of the corners."""
    x, flow = pixels(), a_flow(reach)
    place = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")) + flow
    grid = 2 * place / torch.tensor([8.0, 10.0], dtype=torch.float64).view(2, 1, 1) - 1
    expected = F.grid_sample(x, grid.flip(1).permute(0, 2, 3, 1), padding_mode="border", align_corners=True)
    torch.testing.assert_close(sample(x, flow), expected, rtol=0, atol=1e-12 * max(1, reach))


@pytest.mark.parametrize("reach", [1e-7, 0.4, 50.0])
def test_every_pixel_is_a_mix_of_the_four_around_its_place(reach: float) -> None:
    """To the last bit inside the range of those four, in float32, and with pixels on the bounds of [0, 1]."""
    x, flow = (1.4 * pixels(torch.float32) - 0.2).clamp(0, 1), a_flow(reach, torch.float32)
    whole = flow.floor()
    corners = torch.stack(
        [
            sample(x, whole + torch.tensor(step).view(2, 1, 1))
            for step in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
        ]
    )
    mixed = sample(x, flow)
    rounding = torch.finfo(torch.float32).eps / 2
    assert (mixed >= corners.amin(0) - rounding).all()
    assert (mixed <= corners.amax(0) + rounding).all()
    assert mixed.min() >= 0
    assert mixed.max() <= 1


def test_sampling_can_be_differentiated_twice() -> None:
    """Away from whole numbers, where the slope jumps."""
    x = torch.rand(1, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = a_flow(1.5, side=3)[:1, :, :, :3].requires_grad_()
    assert (flow - flow.round()).abs().min() > 1e-3

    def curved(flow: Tensor) -> Tensor:
        return sample(x, flow).square().sum(1)

    assert torch.autograd.gradcheck(curved, flow)
    assert torch.autograd.gradgradcheck(curved, flow)


def test_small_flows_count_as_much_at_the_far_edge_of_a_large_image() -> None:
    """224 + 1e-6 is 224 in float32; the flow is never added to a place."""
    x = torch.arange(500.0).view(1, 1, 1, 500).expand(1, 3, 1, 500) / 500
    flow = torch.full((1, 2, 1, 500), 1e-6).requires_grad_()
    (slope,) = torch.autograd.grad(sample(x, flow)[0, 0, 0, 400], flow)
    assert slope[0, 1, 0, 400].item() == pytest.approx(1 / 500, rel=1e-4)


def test_each_image_has_its_own_flow() -> None:
    x, flow = pixels(), a_flow()
    for i in range(2):
        assert torch.equal(sample(x, flow)[i], sample(x[i : i + 1], flow[i : i + 1])[0])
