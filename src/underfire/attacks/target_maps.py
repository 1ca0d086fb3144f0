"""What the attacker asks for: the map to be shown instead of the benign one.

    rule = target_map_named("patch")                   # or random-class, or a picture file; None for benign
    maps, donors = rule.maps(wanted, seed=0)

A rule is a frozen record of parameters; what it draws is a function of (seed, image) alone, and of the pool of
maps to choose from where it borrows them.

A patch is a rectangle or a circle in coordinates that span the image from 0 to 1 both ways, so that it is the same
shape on every grid (and on an image that is not square a circle is an ellipse). Independently for each image:

    shape ~ coin     area a ~ U(.05, .26)     side ratio s ~ exp U(0, log 3)     angle ~ U(0, pi)
    rectangle: sides sqrt(a s) and sqrt(a / s)     circle: radius sqrt(a / pi)
    centre uniform over the places where the whole shape lies inside the image
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import area_mean, block_mean
from underfire.core.types import Keys, Labels, Maps, Row
from underfire.data.decode import decode

SAMPLES = 16  # points along a cell's side at which a patch is looked at
NO_DONOR = -1  # donor of a map that is not another image's
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Pool:
    """Correctly classified images whose benign maps can be borrowed."""

    keys: Keys
    labels: Labels
    maps: Maps


@dataclass(frozen=True)
class Wanted:
    """The images that want a map: their keys and target classes, and the pool, on whose grid it is drawn."""

    keys: Keys
    target: Labels
    pool: Pool


@runtime_checkable
class TargetMap(Protocol):
    """A rule that gives every image the map to be shown."""

    @property
    def borrows(self) -> bool:
        """Whether maps are those of the pool, so that they depend on who is in it."""
        ...

    def maps(self, wanted: Wanted, seed: int) -> tuple[Maps, Labels]:
        """Maps in [0, 1], and whose benign map each is: an index into the pool, or NO_DONOR."""
        ...


@dataclass(frozen=True)
class Patches:
    """N shapes: centre, half sides and angle; a circle has its radius as half sides and fills its ellipse alone."""

    circle: Float[Tensor, " n"]  # 1 for a circle, 0 for a rectangle
    centre: Float[Tensor, "n 2"]  # down and along
    half: Float[Tensor, "n 2"]
    angle: Row


@dataclass(frozen=True)
class Patch:
    """A random rectangle or circle, 1 inside and 0 outside; a cell's value is the share of it that is covered."""

    smallest: float = 0.05  # share of the image's area
    largest: float = 0.26
    longest: float = 3.0  # ratio of a rectangle's sides

    @property
    def borrows(self) -> bool:
        return False

    def maps(self, wanted: Wanted, seed: int) -> tuple[Maps, Labels]:
        patches = self.draw(wanted.keys, seed)
        return covered(patches, *wanted.pool.maps.shape[1:]).to(wanted.pool.maps), torch.full_like(
            wanted.keys, NO_DONOR
        )

    def draw(self, keys: Keys, seed: int) -> Patches:
        """One shape for each key."""
        u = rng.uniform(seed, "patch", keys, torch.zeros_like(keys), 6)
        circle = (u[:, 0] < 0.5).double()
        area = self.smallest + (self.largest - self.smallest) * u[:, 1]
        ratio = self.longest ** u[:, 2]
        angle = math.pi * u[:, 3]
        rectangle = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1) / 2
        half = torch.where(circle[:, None] == 1, (area / math.pi).sqrt()[:, None], rectangle)
        margin = torch.where(circle[:, None] == 1, half, _reach(half, angle))
        return Patches(circle, margin + (1 - 2 * margin) * u[:, 4:], half, angle)


@dataclass(frozen=True)
class RandomClassMap:
    """The benign map of a random other image whose class is not the target class."""

    @property
    def borrows(self) -> bool:
        return True

    def maps(self, wanted: Wanted, seed: int) -> tuple[Maps, Labels]:
        pool = wanted.pool
        fitting = (wanted.keys[:, None] != pool.keys) & (wanted.target[:, None] != pool.labels)
        if not bool(fitting.any(1).all()):
            target = int(wanted.target[~fitting.any(1)][0])
            raise UnderfireError(
                f"No other image can lend its map to an image whose target class is {target}: the other chosen "
                "images are all of that class, or there are none; choose more images with --n."
            )
        shape = len(wanted.keys), len(pool.keys)
        asking, asked = wanted.keys.repeat_interleave(shape[1]), pool.keys.repeat(shape[0])
        lots = rng.uniform(seed, "map donor", asking, asked, 1).view(shape)
        donors = lots.where(fitting, -torch.inf).argmax(1)
        return pool.maps[donors], donors


@dataclass(frozen=True)
class PictureMap:
    """The luminance of one picture for all images, averaged over the cells.

    The digest of its pixels is its identity.
    """

    digest: str
    luminance: Float[Tensor, "h w"] = field(compare=False, repr=False)

    @property
    def borrows(self) -> bool:
        return False

    def maps(self, wanted: Wanted, seed: int) -> tuple[Maps, Labels]:
        like = wanted.pool.maps
        picture = area_mean(self.luminance[None, None].to(like), *like.shape[1:])[0].clamp(0, 1)
        return picture.repeat(len(wanted.keys), 1, 1), torch.full_like(wanted.keys, NO_DONOR)


def target_map_named(text: str) -> TargetMap | None:
    """The rule of that name, or a picture file, as on the command line; None for each image's own benign map."""
    return _NAMED[text] if text in _NAMED else _read_picture(Path(text))


def covered(patches: Patches, rows: int, columns: int) -> Maps:
    """The share of each cell of a grid that a patch covers, by SAMPLES x SAMPLES points per cell."""
    down, along = (
        (torch.arange(cells * SAMPLES, device=patches.angle.device, dtype=torch.float64) + 0.5) / (cells * SAMPLES)
        for cells in (rows, columns)
    )
    drawn = [
        _inside(down[:, None] - centre[0], along - centre[1], circle, half, angle)
        for circle, centre, half, angle in zip(*vars(patches).values(), strict=True)
    ]
    return torch.cat([block_mean(points.double()[None], SAMPLES) for points in drawn])


def _inside(down: Tensor, along: Tensor, circle: Tensor, half: Tensor, angle: Tensor) -> Tensor:
    """Which points, given relative to the centre, lie in the shape."""
    across = (down * angle.cos() - along * angle.sin()) / half[0]
    beside = (down * angle.sin() + along * angle.cos()) / half[1]
    return torch.where(circle == 1, across.square() + beside.square(), across.abs().maximum(beside.abs()).square()) <= 1


def _reach(half: Float[Tensor, "n 2"], angle: Row) -> Float[Tensor, "n 2"]:
    """Half the height and width of the upright box around rotated rectangles."""
    c, s = angle.cos().abs(), angle.sin().abs()
    return torch.stack([half[:, 0] * c + half[:, 1] * s, half[:, 0] * s + half[:, 1] * c], 1)


def _read_picture(path: Path) -> PictureMap:
    if not path.is_file():
        raise UnderfireError(f"There is no target map '{path}'; give {', '.join(_NAMED)}, or a picture file.")
    try:
        picture = decode(path)
    except Exception as problem:  # decoders raise whatever a damaged file makes them trip over
        raise UnderfireError(f"The target map {path} cannot be read as a picture: {problem}") from problem
    luminance = torch.einsum("chw,c->hw", picture, torch.tensor(LUMINANCE))
    pixels = f"{tuple(luminance.shape)}".encode() + luminance.numpy().tobytes()
    return PictureMap(hashlib.blake2b(pixels, digest_size=16).hexdigest(), luminance)


_NAMED: Mapping[str, TargetMap | None] = MappingProxyType(
    {"benign": None, "patch": Patch(), "random-class": RandomClassMap()}
)
