"""phi(x; m): grids and kernels for every size of input, and the blend by independent means."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny_networks import images
from underfire.core.image_ops import blur_kernel
from underfire.interpreters.mask.deletion import Deletion, Geometry

STILL = torch.zeros(2, 2, dtype=torch.int64)
SMALL = Geometry(cell=4, image_taps=5, mask_taps=3, jitter=1)


@pytest.mark.parametrize(
    ("side", "geometry", "cells"),
    [
        (224, Geometry(8, 21, 11, 3), 28),
        (144, Geometry(8, 13, 7, 2), 18),
        (64, Geometry(8, 5, 3, 1), 8),
        (32, Geometry(4, 5, 3, 1), 8),
        (16, SMALL, 4),
    ],
)
def test_sizes_follow_the_input(side: int, geometry: Geometry, cells: int) -> None:
    assert Geometry.of(side) == geometry
    assert Deletion.of(torch.zeros(1, 3, side, side), geometry).grid == (cells, cells)


def test_grids_need_not_be_square() -> None:
    assert Deletion.of(torch.zeros(1, 3, 16, 24), SMALL).grid == (4, 6)


def average(x: Tensor, taps: int) -> Tensor:
    """Over what lies inside the image, with the outer product of a kernel as weights."""
    kernel = blur_kernel(taps).to(x)
    window = (kernel[:, None] * kernel).expand(x.shape[1], 1, taps, taps)
    total, weight = (F.conv2d(v, window, padding=taps // 2, groups=x.shape[1]) for v in (x, torch.ones_like(x)))
    return total / weight


def test_the_blend_is_m_x_plus_the_rest_of_blurred_x() -> None:
    x = images(2, dtype=torch.float64)
    mask = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = average(F.interpolate(mask[:, None], (16, 16), mode="bilinear", align_corners=False), 3)
    expected = kept * x + (1 - kept) * average(x, 5)
    torch.testing.assert_close(Deletion.of(x, SMALL)(mask, STILL), expected, rtol=0, atol=1e-13)


def test_a_mask_of_ones_keeps_everything_and_one_of_zeros_blurs_everything() -> None:
    x = images(2, dtype=torch.float64)
    deletion, offsets = Deletion.of(x, SMALL), torch.tensor([[0, 1], [1, 0]])
    for value, shown in ((1.0, x), (0.0, average(x, 5))):
        deleted = deletion(torch.full((2, 4, 4), value, dtype=torch.float64), offsets)
        moved = torch.stack([shown[0].roll((0, -1), (1, 2)), shown[1].roll((-1, 0), (1, 2))])
        torch.testing.assert_close(deleted, moved, rtol=0, atol=1e-13)
