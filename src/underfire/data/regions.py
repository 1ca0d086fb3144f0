"""Where in an image an attack may change anything: a box, a picture for all images, or one for each.

    region = region_named("8,8,16,16")             # left, top, width and height in pixels
    region = region_named("sticker.png")           # white inside, for every image
    region = region_named("masks/")                # NAME.png for each image
    inside = region.inside(ids, height, width)

Pictures are resized and cropped as the images are, and must then have their size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.data.decode import FileSource
from underfire.data.image_set import ImageSet, UnreadableImage
from underfire.data.masks import decode_mask, masks_of

Inside = Bool[Tensor, "n h w"]


@runtime_checkable
class Region(Protocol):
    """A frozen record of parameters, which says of each image where it may be changed."""

    def inside(self, ids: Sequence[str], height: int, width: int) -> Inside:
        """True where these images, of that size, may be changed; UnderfireError if that is nowhere, or not known."""
        ...


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; left and top are those of its first column and row, from 0."""

    left: int
    top: int
    width: int
    height: int

    def inside(self, ids: Sequence[str], height: int, width: int) -> Inside:
        right, bottom = self.left + self.width, self.top + self.height
        if min(self.left, self.top) < 0 or min(self.width, self.height) < 1 or right > width or bottom > height:
            raise UnderfireError(
                f"The region {self.left},{self.top},{self.width},{self.height} does not lie within images of "
                f"{width}×{height} pixels; give left,top,width,height."
            )
        mask = torch.zeros(len(ids), height, width, dtype=torch.bool)
        mask[:, self.top : bottom, self.left : right] = True
        return mask


@dataclass(frozen=True)
class Middle:
    """A square in the middle, whose side is that share of the image's shorter one, a pixel or more."""

    share: float

    def inside(self, ids: Sequence[str], height: int, width: int) -> Inside:
        side = max(1, round(self.share * min(height, width)))
        return Box((width - side) // 2, (height - side) // 2, side, side).inside(ids, height, width)


@dataclass(frozen=True)
class Drawn:
    """Pictures, white inside: a file for all images, or a folder with one for each, found by name.

    The digest of what is there is its identity.
    """

    digest: str
    crop: int | None
    resize: int | None
    path: Path = field(compare=False)

    def inside(self, ids: Sequence[str], height: int, width: int) -> Inside:
        if self.path.is_dir():
            names = masks_of(tuple(ids), self.path)
            return self._read(self.path, names, height, width)
        return self._read(self.path.parent, (self.path.name,), height, width).expand(len(ids), -1, -1)

    def _read(self, folder: Path, names: tuple[str, ...], height: int, width: int) -> Inside:
        labels, source = torch.zeros(len(names), dtype=torch.int64), FileSource(folder, names, decode_mask)
        pictures = ImageSet(names, labels, (), source, crop=self.crop, resize=self.resize)
        return torch.stack([_checked(pictures, i, height, width) for i in range(len(names))])


def _checked(pictures: ImageSet, i: int, height: int, width: int) -> Bool[Tensor, "h w"]:
    name = pictures.ids[i]
    try:
        mask: Bool[Tensor, "h w"] = pictures.read(i).mean(0) > 0.5
    except UnreadableImage as problem:
        raise UnderfireError(f"The region {name} cannot be read: {problem.reason}.") from problem
    if mask.shape != (height, width):
        raise UnderfireError(
            f"The region {name} has {mask.shape[1]}×{mask.shape[0]} pixels where its image has {width}×{height}; give "
            "both one size."
        )
    if not bool(mask.any()):
        raise UnderfireError(f"The region {name} is empty; draw white what may be changed.")
    return mask


def region_named(text: str, crop: int | None = None, resize: int | None = None) -> Region:
    """left,top,width,height in pixels, or a picture or a folder of pictures, cut like images of that crop and resize.

    UnderfireError if it is none of these.
    """
    place = check_region(text)
    return place if isinstance(place, Box) else Drawn(_digest(place), crop, resize, place)


def check_region(text: str) -> Box | Path:
    """The box, or where the pictures are, of which none is read; UnderfireError if it is neither."""
    numbers = text.split(",")
    if len(numbers) == 4 and all(each.strip().lstrip("-").isdecimal() for each in numbers):
        return Box(*map(int, numbers))
    if not (path := Path(text)).exists():
        raise UnderfireError(
            f"There is no region '{text}'; give left,top,width,height in pixels, a picture, or a folder of pictures."
        )
    return path


def _digest(path: Path) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for each in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        hasher.update(each.name.encode() + b"\0" + hashlib.blake2b(each.read_bytes(), digest_size=16).digest())
    return hasher.hexdigest()
