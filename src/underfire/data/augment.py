"""Training pictures that have no up and no down, such as photos of skin, varied at random.

    varied(images, keys, step=3, seed=0)       # as large as before

Each image is turned by quarters and mirrored (all eight ways alike), cut to 80 to 100 % of its side and resized, and
its brightness, contrast and saturation change by up to a tenth: all drawn from (seed, image, step) alone.
"""

import torch
from torch import Tensor

from underfire.core.rng import uniform
from underfire.core.types import Images, Keys
from underfire.data.decode import Picture

SMALLEST_CUT = 0.8  # of the side
COLOUR = 0.1


def varied(images: Images, keys: Keys, step: int, seed: int) -> Images:
    """New variants of the images, in [0, 1]; those that are not square are turned by half turns alone."""
    steps = torch.full_like(keys, step)
    places = uniform(seed, "place", keys, steps, 5).tolist()
    colours = uniform(seed, "colours", keys, steps, 3).tolist()
    return torch.stack([_coloured(_placed(x, *p), *c) for x, p, c in zip(images, places, colours, strict=True)])


def _placed(picture: Picture, turn: float, mirror: float, cut: float, down: float, along: float) -> Picture:
    from torchvision.transforms.v2 import functional as F

    height, width = picture.shape[1:]
    quarters = int(4 * turn) if height == width else 2 * int(2 * turn)
    turned = torch.rot90(picture, quarters, (1, 2))
    share = SMALLEST_CUT + (1 - SMALLEST_CUT) * cut
    rows, columns = max(1, round(share * height)), max(1, round(share * width))
    top, left = round(down * (height - rows)), round(along * (width - columns))
    mirrored = turned.flip(2) if mirror < 0.5 else turned
    cropped: Tensor = F.resized_crop(
        mirrored, top, left, rows, columns, [height, width], F.InterpolationMode.BILINEAR, antialias=True
    )
    return cropped


def _coloured(picture: Picture, brightness: float, contrast: float, saturation: float) -> Picture:
    from torchvision.transforms.v2 import functional as F

    picture = F.adjust_brightness(picture, _factor(brightness))
    picture = F.adjust_contrast(picture, _factor(contrast))
    result: Tensor = F.adjust_saturation(picture, _factor(saturation))
    return result.clamp(0, 1)


def _factor(draw: float) -> float:
    return 1 + COLOUR * (2 * draw - 1)
