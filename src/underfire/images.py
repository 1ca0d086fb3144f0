"""Operations on images and maps: validation, map normalisation, block averages."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underfire.types import Flags, Images, Maps, UnderfireError

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


def to_8bit(images: Images) -> Images:
    """What an 8-bit file would hold, still as floats in [0, 1]: rounded, not truncated."""
    return torch.round(images * 255) / 255
