"""Squeezers: coarser copies of images, on which a classifier should not change its mind (Xu, Evans and Qi 2018).

    squeeze = squeezer_named("median:3")        # or bits:2, nlm:11-3-4
    squeezed = squeeze(images)

    bits:b      round((2^b - 1) x) / (2^b - 1), half to even
    median:k    the median of the k x k pixels around each, channel by channel
    nlm:w-p-h   colour non-local means: average of the pixels of a w x w window whose p x p patches are alike,
                filter strength h (Buades, Coll and Morel 2005; OpenCV's, on 8-bit images)

All of them can be differentiated, as whoever attacks them must: the median passes the gradient to the pixel that it
takes; rounding and non-local means, which have no useful gradient, pass it straight through, as the identity does.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import changed_in_8bit, straight_through
from underfire.core.types import Images
from underfire.detection.names import SQUEEZERS

MOST_BITS = 16


@runtime_checkable
class Squeezer(Protocol):
    """A frozen record of parameters; each image is squeezed by itself."""

    @property
    def name(self) -> str:
        """As on the command line and in tables."""
        ...

    def __call__(self, images: Images) -> Images:
        """Images in [0, 1] of the same shape, type and device; differentiable in `images`."""
        ...


@dataclass(frozen=True)
class BitDepth:
    """Every pixel value rounded to the nearest of 2^bits levels from 0 to 1, half to even."""

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MOST_BITS:
            raise UnderfireError(f"Squeezer 'bits:{self.bits}' must keep 1 to {MOST_BITS} bits.")

    @property
    def name(self) -> str:
        return f"bits:{self.bits}"

    def __call__(self, images: Images) -> Images:
        steps = 2**self.bits - 1
        return straight_through(images, torch.round(images.detach() * steps) / steps)


@dataclass(frozen=True)
class Median:
    """The median of the side x side pixels around each, per channel; images are mirrored at their edges.

    The mirror repeats the edge pixel (SciPy's mode "reflect"). An even window reaches further up and left, and takes
    the upper of the two middle values, as SciPy's median_filter does.
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise UnderfireError(f"Squeezer 'median:{self.side}' must look at 1 pixel or more.")

    @property
    def name(self) -> str:
        return f"median:{self.side}"

    def __call__(self, images: Images) -> Images:
        height, width = images.shape[2:]
        rows, columns = (self._mirrored(side, images.device) for side in (height, width))
        padded = images[:, :, rows[:, None], columns]
        reach = range(self.side)
        window = torch.stack([padded[:, :, i : i + height, j : j + width] for i in reach for j in reach], dim=-1)
        # a stable sort: which of equal pixels gets the gradient is the same on every device
        return window.sort(dim=-1, stable=True).values[..., self.side**2 // 2]

    def _mirrored(self, side: int, device: torch.device) -> Int[Tensor, " padded"]:
        before = self.side // 2
        place = torch.arange(-before, side + self.side - 1 - before, device=device) % (2 * side)
        return torch.minimum(place, 2 * side - 1 - place)


@dataclass(frozen=True)
class NonLocalMeans:
    """Colour non-local means on 8-bit images: window and patch are odd sides in pixels, strength is in 8-bit levels.

    The strength holds for luminance and colour alike. OpenCV averages in 8-bit CIELAB, so that even one plain colour
    can come back up to two levels darker.
    """

    window: int
    patch: int
    strength: float

    def __post_init__(self) -> None:
        sides = (self.window, self.patch)
        if any(side < 1 or side % 2 == 0 for side in sides) or not 0 < self.strength < math.inf:
            raise UnderfireError(
                f"Squeezer '{self.name}' needs an odd window, an odd patch and a positive strength, as nlm:11-3-4 has."
            )
        _opencv()

    @property
    def name(self) -> str:
        return f"nlm:{self.window}-{self.patch}-{self.strength:g}"

    def __call__(self, images: Images) -> Images:
        return changed_in_8bit(images, self._denoised)

    def _denoised(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        blue_first = np.ascontiguousarray(pixels[..., ::-1])
        denoised: UInt8[np.ndarray, "h w 3"] = _opencv().fastNlMeansDenoisingColored(
            blue_first,
            None,
            h=self.strength,
            hColor=self.strength,
            templateWindowSize=self.patch,
            searchWindowSize=self.window,
        )
        return denoised[..., ::-1]


def _non_local_means(argument: str) -> Squeezer:
    window, patch, strength = argument.split("-")
    return NonLocalMeans(int(window), int(patch), float(strength))


_KINDS: Mapping[str, Callable[[str], Squeezer]] = MappingProxyType(
    {
        "bits": lambda argument: BitDepth(int(argument)),
        "median": lambda argument: Median(int(argument)),
        "nlm": _non_local_means,
    }
)


def squeezer_named(text: str) -> Squeezer:
    """The squeezer of that name with its numbers, as on the command line; UnderfireError if it is none."""
    name, _, argument = text.partition(":")
    if name not in _KINDS:
        raise UnderfireError(f"There is no squeezer '{text}'; write them like {', '.join(SQUEEZERS)}.")
    try:
        return _KINDS[name](argument)
    except ValueError:
        example = next(each for each in SQUEEZERS if each.startswith(name))
        raise UnderfireError(f"Squeezer '{text}' lacks the numbers it needs; write it like {example}.") from None


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise UnderfireError(
            "Non-local means needs OpenCV, which is not installed: pip install opencv-python-headless, "
            "or name the squeezers to use without nlm, as in fs:bits:2+bits:3+median:3."
        ) from None
    return cv2
