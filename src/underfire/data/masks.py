"""Masks of the objects in images: found by name, and read so that 1 is object and 0 is not.

names = masks_of(("part_1/ISIC_1.jpg",), Path("masks"))      # ("ISIC_1_segmentation.png",)
object = decode_mask(Path("masks") / names[0])               # (3, H, W), each value 0 or 1 if the mask has two values
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Num
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data.decode import Picture, opened, upright
from underfire.data.folders import images_below, is_image

_SUFFIX = re.compile(r"[ _-](segmentation|mask|seg|gt)(_\d+)?$", re.IGNORECASE)


def masks_of(names: Sequence[str], folder: Path, photos: Path | None = None) -> tuple[str, ...]:
    """The mask of each image: of its path or file name without extension, with or without a usual suffix.

    No photo of the images' own folder is a mask. UnderfireError if a mask is missing or there are two.
    """
    beside = photos is not None and photos.resolve() == folder.resolve()
    found: dict[str, list[str]] = {}
    for mask in set(images_below(folder).images) - set(names if beside else ()):
        whole = PurePosixPath(mask)
        for key in {_key(whole), _key(PurePosixPath(whole.name))}:
            found.setdefault(key, []).append(mask)
    masks = [_mask_of(PurePosixPath(name), found, folder) for name in names]
    if missing := [PurePosixPath(name).stem for name, mask in zip(names, masks, strict=True) if mask is None]:
        first = f"{missing[0]}.png (or {missing[0]}_segmentation.png)"
        raise UnderfireError(f"{folder} lacks {len(missing)} of {len(names)} masks, the first is {first}.")
    return tuple(mask for mask in masks if mask is not None)


def _mask_of(name: PurePosixPath, found: dict[str, list[str]], folder: Path) -> str | None:
    stem = name.with_suffix("") if is_image(name.name) else name
    for key in (stem.as_posix().casefold(), stem.name.casefold()):
        masks = sorted(set(found.get(key, ())))
        if len(masks) > 1:  # photos and masks side by side, or two folders of them
            suffixed = [mask for mask in masks if _SUFFIX.search(PurePosixPath(mask).stem)]
            masks = suffixed or masks
        if len(masks) > 1:
            raise UnderfireError(f"{folder} holds two masks of {name}, {masks[0]} and {masks[1]}: keep one.")
        if masks:
            return masks[0]
    return None


def _key(mask: PurePosixPath) -> str:
    return _SUFFIX.sub("", mask.with_suffix("").as_posix()).casefold()


def masks_beside(names: Sequence[str]) -> frozenset[str]:
    """Those of the files that are masks of others among them, such as a_mask.png beside a.png."""
    photos = {name.rpartition(".")[0] for name in names}
    stems = {name: name.rpartition(".")[0] for name in names}
    return frozenset(
        name for name, stem in stems.items() if (plain := _SUFFIX.sub("", stem)) != stem and plain in photos
    )


def decode_mask(path: Path) -> Picture:
    """A mask as a picture: 1 where the object is.

    Of two values the lower is none of the object's, whatever they are; where there are more, grey is read by its
    lightness, and any colour of a palette but its black (else its first) is object. What is transparent is not object.
    """
    with opened(path) as decoded:
        values = _values(decoded.image)
    levels = np.unique(values)
    if len(levels) <= 2:
        values = np.where(values > (levels[0] if len(levels) == 2 else 0), 1, 0)
    else:
        values = values / (65535 if decoded.image.mode.startswith("I;16") else 255)
    return torch.from_numpy(values.astype(np.float32))[None].expand(3, -1, -1).contiguous()


def _values(image: Image.Image) -> Num[np.ndarray, "h w"]:
    """One number per pixel: 1 where the object is, lightness up to white, or if there are two colours one for each."""
    if image.mode.startswith("I;16"):
        return upright(image, image.mode)
    if image.mode in ("I", "F"):
        return np.where(upright(image, image.mode) > 0, 1, 0)
    channels = upright(image, "RGBA")
    colours = np.floor(channels[..., :3] * channels[..., 3:] / 255)
    packed: Num[np.ndarray, "h w"] = colours @ np.array([65536, 256, 1], dtype=np.float32)
    if len(np.unique(packed)) <= 2:
        return packed
    if image.mode == "P" and (colours.max(-1) != colours.min(-1)).any():
        return np.where(packed if not packed.all() else upright(image, "P"), 1, 0)
    lightness: Num[np.ndarray, "h w"] = colours.mean(-1)
    return lightness
