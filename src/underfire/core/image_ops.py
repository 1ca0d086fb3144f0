"""Operations on images and maps: validation, map normalisation, block averages, resizing, blur, sampling."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Flags, Flows, Images, Maps, Row

MAP_FLOOR = 1e-12


def check_images(images: Tensor) -> Images:
    """The same tensor, or UnderfireError unless it holds N >= 1 finite RGB images in [0, 1], N3HW."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise UnderfireError("Images must be a floating-point tensor in [0, 1]; divide 8-bit images by 255.")
    if images.ndim != 4 or images.shape[1] != 3:
        raise UnderfireError(f"Images must have shape (N, 3, H, W), not {tuple(images.shape)}.")
    if images.shape[0] == 0:
        raise UnderfireError("The batch of images is empty; give at least one image.")
    if not bool(images.isfinite().all()):
        raise UnderfireError("Images contain NaN or infinite pixels; remove or repair those images.")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise UnderfireError(
            f"Images must lie in [0, 1] but span [{low:g}, {high:g}]; "
            "divide 8-bit images by 255 and leave the normalisation to the Classifier."
        )
    return images


def normalise_map(maps: Maps) -> Maps:
    """mm(m) = (m - min m) / max(m - min m), per map; a constant map becomes zeros."""
    shifted = maps - maps.amin((1, 2), keepdim=True)
    return shifted / shifted.amax((1, 2), keepdim=True).clamp_min(MAP_FLOOR)


def is_constant(maps: Maps) -> Flags:
    """Which maps show nothing: all cells equal."""
    return maps.amax((1, 2)) == maps.amin((1, 2))


def block_mean(maps: Maps, side: int) -> Float[Tensor, "n a b"]:
    """Average over side x side blocks; a remainder at the right or lower edge is dropped."""
    return F.avg_pool2d(maps, side)


def cell_side(images: Images) -> int:
    """Pixels on a side of one cell of a map with a grid of its own: 1/4 of the input side, 1/2 below 64 pixels."""
    return 4 if min(images.shape[2:]) >= 64 else 2


def cell_grid(images: Images) -> tuple[int, int]:
    """Rows and columns of such a map."""
    side = cell_side(images)
    return images.shape[2] // side, images.shape[3] // side


def resize(x: Float[Tensor, "n c h w"], rows: int, columns: int) -> Float[Tensor, "n c i j"]:
    """Bilinear between the centres of cells, edges repeated, without smoothing; deterministic on every device."""
    vertical, horizontal = (_interpolation(*sides, x) for sides in ((x.shape[2], rows), (x.shape[3], columns)))
    return vertical @ x @ horizontal.T


def central(x: Float[Tensor, "n c h w"], share: float) -> Float[Tensor, "n c h w"]:
    """The central share of each side resized back to the whole, as `resize` does."""
    vertical, horizontal = (_interpolation(side, side, x, share) for side in x.shape[2:])
    return vertical @ x @ horizontal.T


def area_mean(x: Float[Tensor, "n c h w"], rows: int, columns: int) -> Float[Tensor, "n c i j"]:
    """Averages over the equal cells of a grid of any size, each pixel weighted by its share of the cell."""
    vertical, horizontal = (_shares(*sides, x) for sides in ((x.shape[2], rows), (x.shape[3], columns)))
    return vertical @ x @ horizontal.T


def blur(x: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Gaussian average with deviation `sigma` in pixels, over what lies inside the image."""
    vertical, horizontal = (_gaussian(side, sigma, x) for side in x.shape[2:])
    return vertical @ x @ horizontal.T


def convolve(x: Float[Tensor, "n c h w"], kernel: Float[Tensor, " taps"]) -> Float[Tensor, "n c h w"]:
    """Average of neighbours down and along with the weights of a symmetric kernel, over what lies inside the image."""
    vertical, horizontal = (_banded(side, kernel.to(x)) for side in x.shape[2:])
    return vertical @ x @ horizontal.T


def spreading(cells: int, side: int, kernel: Float[Tensor, " taps"], like: Tensor) -> Float[Tensor, "side cells"]:
    """The matrix that resizes a column of cells to `side` pixels and averages these with the kernel."""
    return _banded(side, kernel.to(like)) @ _interpolation(cells, side, like)


def blur_kernel(taps: int) -> Float[Tensor, " taps"]:
    """A blur of an odd number of taps: binomial up to 5, then Gaussian, sigma = .3 ((taps - 1) / 2 - 1) + .8."""
    places = torch.arange(taps, dtype=torch.float64) - taps // 2
    sigma = 0.3 * (taps // 2 - 1) + 0.8
    weights = torch.tensor(_BINOMIAL[taps]) if taps in _BINOMIAL else torch.exp(-0.5 * (places / sigma) ** 2)
    return weights / weights.sum()


_BINOMIAL = {1: [1.0], 3: [1.0, 2.0, 1.0], 5: [1.0, 4.0, 6.0, 4.0, 1.0]}


def shifted(x: Images, offsets: Int[Tensor, "n 2"]) -> Images:
    """Each image moved up and left by its own number of rows and columns; what leaves comes in on the other side."""
    n, channels, height, width = x.shape
    rows = (torch.arange(height, device=x.device) + offsets[:, :1]) % height
    columns = (torch.arange(width, device=x.device) + offsets[:, 1:]) % width
    index = (rows[:, :, None] * width + columns[:, None, :]).view(n, 1, -1).expand(-1, channels, -1)
    return x.flatten(2).gather(2, index).view_as(x)


def sample(x: Images, flow: Flows) -> Images:
    """Every pixel (i, j) taken from (i, j) + flow, bilinear between pixel centres, edges repeated.

    Of the four pixels around that place it is a convex mix, never outside their range, and a flow of 0 is the
    identity, both to the last bit. Twice differentiable in the flow where that is not a whole number; deterministic on
    every device (four gathers).
    """
    n, channels, height, width = x.shape
    whole = flow.detach().floor()
    down, along = (flow - whole)[:, :, None].unbind(1)
    rows = torch.arange(height, device=x.device)[:, None] + whole[:, 0].long()
    columns = torch.arange(width, device=x.device) + whole[:, 1].long()

    def gather(i: Tensor, j: Tensor) -> Tensor:
        index = (i.clamp(0, height - 1) * width + j.clamp(0, width - 1)).view(n, 1, -1).expand(-1, channels, -1)
        return x.flatten(2).gather(2, index).view_as(x)

    def mix(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        return a + share * (b - a)

    above = mix(gather(rows, columns), gather(rows, columns + 1), along)
    below = mix(gather(rows + 1, columns), gather(rows + 1, columns + 1), along)
    return mix(above, below, down)


def total_variation(masks: Maps, beta: float) -> Row:
    """Sum over cells of (dx^2 + dy^2 + 1e-8)^(beta / 2), dx and dy both starting at the cell; 0 beyond the edge."""
    down = F.pad(masks.diff(dim=1), (0, 0, 0, 1))
    along = F.pad(masks.diff(dim=2), (0, 1))
    return (down.square() + along.square() + 1e-8).pow(beta / 2).sum((1, 2))


def _banded(side: int, kernel: Float[Tensor, " taps"]) -> Float[Tensor, "side side"]:
    """Row i holds the kernel about i; what falls outside is shared out among the rest."""
    places, reach = torch.arange(side, device=kernel.device), len(kernel) // 2
    offset = places - places[:, None] + reach
    weights = torch.where((offset < 0) | (offset >= len(kernel)), 0, kernel[offset.clamp(0, len(kernel) - 1)])
    return weights / weights.sum(1, keepdim=True)


def _interpolation(old: int, new: int, like: Tensor, share: float = 1.0) -> Float[Tensor, "new old"]:
    """Row i weighs the old cells on either side of the centre of new cell i; these cover the central share of those."""
    centres = torch.arange(old, device=like.device, dtype=torch.float64)
    place = (torch.arange(new, device=like.device, dtype=torch.float64) + 0.5) * (share * old) / new
    place = (place + (1 - share) / 2 * old - 0.5).clamp(0, old - 1)
    return (1 - (place[:, None] - centres).abs()).clamp_min(0).to(like.dtype)


def _shares(old: int, new: int, like: Tensor) -> Float[Tensor, "new old"]:
    """Row i holds the shares of new cell i that the old cells cover."""
    begin = torch.arange(new, device=like.device, dtype=torch.float64)[:, None] / new
    place = torch.arange(old, device=like.device, dtype=torch.float64) / old
    overlap = (begin + 1 / new).minimum(place + 1 / old) - begin.maximum(place)
    return (overlap.clamp_min(0) * new).to(like.dtype)


def _gaussian(side: int, sigma: float, like: Tensor) -> Float[Tensor, "side side"]:
    places = torch.arange(side, device=like.device, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, changed: Tensor) -> Tensor:
        return changed.view_as(changed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(images: Images, changed: Images) -> Images:
    """The value of `changed` to the last bit with the gradient of `images`."""
    result: Images = _StraightThrough.apply(images, changed)
    return result


def to_8bit(images: Images) -> Images:
    """What an 8-bit file would hold, as floats in [0, 1]: rounded, not truncated; gradients pass straight through."""
    return straight_through(images, torch.round(images.detach() * 255) / 255)


def changed_in_8bit(
    images: Images, change: Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w 3"]]
) -> Images:
    """What becomes of images, each rounded to 8 bits, by a change of pixel arrays; as floats in [0, 1] again.

    Gradients pass straight through, as if nothing had been changed.
    """
    pixels = (images.detach() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    changed = torch.from_numpy(np.stack([change(each) for each in pixels]))
    return straight_through(images, changed.permute(0, 3, 1, 2).to(images) / 255)
