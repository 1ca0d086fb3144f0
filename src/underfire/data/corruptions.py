"""Harmless changes of an image: small enough that neither its class nor its map should change.

    noisy = Noise()(images, keys)          # or JPEG(), Blur(), Crop()
    expected = Crop().moved(maps)          # where the change takes a map of the image before it

All of them can be differentiated: what rounds to 8 bits, as files do, passes gradients straight through.

The default strengths leave the class of about 95 % of benign images as it is (measured on CIFAR-10, see
docs/detectors.md).
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import blur, central, changed_in_8bit, to_8bit
from underfire.core.rng import normal
from underfire.core.types import Images, Keys, Maps
from underfire.data.names import CORRUPTIONS


@runtime_checkable
class Corruption(Protocol):
    """A frozen record of parameters; each image is changed by itself, and what is drawn comes from its key alone."""

    @property
    def name(self) -> str:
        """As on the command line and in tables."""
        ...

    def __call__(self, images: Images, keys: Keys) -> Images:
        """The changed images, of the same shape, type and device, in [0, 1]; keys are in memory."""
        ...

    def moved(self, maps: Maps) -> Maps:
        """What maps of the images should look like after the change."""
        ...


def _check(possible: bool, problem: str) -> None:
    if not possible:
        raise UnderfireError(f"{problem}; give another.")


class InPlace:
    """`moved` of a change that leaves everything where it was."""

    def moved(self, maps: Maps) -> Maps:
        return maps


@dataclass(frozen=True)
class Noise(InPlace):
    """A normal deviate of this deviation added to every value, then cut to [0, 1]."""

    deviation: float = 0.035

    def __post_init__(self) -> None:
        _check(0 <= self.deviation < math.inf, f"Noise cannot have a deviation of {self.deviation:g}")

    @property
    def name(self) -> str:
        return "noise"

    def __call__(self, images: Images, keys: Keys) -> Images:
        shape = images.shape[1:]
        drawn = normal(0, "harmless noise", keys, torch.zeros_like(keys), shape.numel())
        noise: Images = drawn.view(-1, *shape).to(images)
        return (images + self.deviation * noise).clamp(0, 1)


@dataclass(frozen=True)
class PNG(InPlace):
    """Rounded to 8 bits, and compressed without loss."""

    @property
    def name(self) -> str:
        return "png"

    def __call__(self, images: Images, keys: Keys) -> Images:
        return to_8bit(images)


@dataclass(frozen=True)
class JPEG(InPlace):
    """Rounded to 8 bits, compressed with this quality and decompressed; colours at full resolution."""

    quality: int = 65

    def __post_init__(self) -> None:
        _check(1 <= self.quality <= 100, f"JPEG cannot have a quality of {self.quality}")

    @property
    def name(self) -> str:
        return "jpeg"

    def __call__(self, images: Images, keys: Keys) -> Images:
        return changed_in_8bit(images, self._compressed)

    def _compressed(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality, subsampling=0)
        return np.asarray(Image.open(file))


@dataclass(frozen=True)
class Blur(InPlace):
    """Gaussian average with this deviation in pixels."""

    sigma: float = 0.52

    def __post_init__(self) -> None:
        _check(0 < self.sigma < math.inf, f"Blur cannot have a deviation of {self.sigma:g} pixels")

    @property
    def name(self) -> str:
        return "blur"

    def __call__(self, images: Images, keys: Keys) -> Images:
        return blur(images, self.sigma)


@dataclass(frozen=True)
class Crop:
    """The central share of each side, resized back; maps likewise."""

    share: float = 0.96

    def __post_init__(self) -> None:
        _check(0 < self.share <= 1, f"Crop cannot keep a share of {self.share:g} of each side")

    @property
    def name(self) -> str:
        return "crop"

    def __call__(self, images: Images, keys: Keys) -> Images:
        return central(images, self.share)

    def moved(self, maps: Maps) -> Maps:
        return central(maps[:, None], self.share)[:, 0]


@dataclass(frozen=True)
class Shift(InPlace):
    """Moved to the right by so many pixels, edges repeated: less than a cell of most maps."""

    pixels: int = 1

    @property
    def name(self) -> str:
        return "shift"

    def __call__(self, images: Images, keys: Keys) -> Images:
        places = torch.arange(images.shape[3], device=images.device) - self.pixels
        return images[..., places.clamp(0, images.shape[3] - 1)]


@dataclass(frozen=True)
class Brightness(InPlace):
    """Every value times a factor, then cut to [0, 1]."""

    factor: float

    def __post_init__(self) -> None:
        _check(0 < self.factor < math.inf, f"Brightness cannot change by a factor of {self.factor:g}")

    @property
    def name(self) -> str:
        return "brightness"

    def __call__(self, images: Images, keys: Keys) -> Images:
        return (self.factor * images).clamp(0, 1)


# what happens to pictures on their way, smaller than what detectors look at: natural variation is measured under these
HARMLESS: tuple[Corruption, ...] = (
    JPEG(75),
    Shift(1),
    Crop(0.98),
    Noise(2 / 255),
    Brightness(0.98),
    Brightness(1.02),
)

# what leaves the machine is a file: adversarial images are scored as each of these gives them back, too
FILES: Mapping[str, Corruption] = MappingProxyType({"png": PNG(), "jpeg95": JPEG(95), "jpeg75": JPEG(75)})

CHANGES: Mapping[str, Corruption] = MappingProxyType(
    dict(zip(CORRUPTIONS, (Noise(), JPEG(), Blur(), Crop()), strict=True))
)


def change_named(name: str) -> Corruption:
    """The change of that name in its default strength, as on the command line; UnderfireError if it is none."""
    if name not in CHANGES:
        raise UnderfireError(f"There is no harmless change '{name}'; there are {', '.join(CHANGES)}.")
    return CHANGES[name]
