"""Image files and stored arrays as float RGB pictures.

    decode(Path("cat.png"))   # (3, H, W) in [0, 1]

Files are turned upright by their EXIF orientation, greyscale, palette and CMYK become RGB, and transparency
is composited on white. The 16 bits of a PNG's grey, RGB and RGBA channels are kept.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

Picture = Float[Tensor, "3 h w"]  # one RGB image in [0, 1]

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


@dataclass(frozen=True)
class FileSource:
    """Image files, by name inside a folder; the fingerprint of one is its size in bytes."""

    folder: Path
    names: tuple[str, ...]

    def take(self, index: Sequence[int]) -> "FileSource":
        return FileSource(self.folder, tuple(self.names[i] for i in index))

    def pixels(self, i: int) -> Picture:
        return decode(self.folder / self.names[i])

    def fingerprint(self, i: int) -> bytes:
        return str((self.folder / self.names[i]).stat().st_size).encode()

    def content(self, i: int) -> bytes:
        """The file."""
        return (self.folder / self.names[i]).read_bytes()


@dataclass(frozen=True)
class ArraySource:
    """8-bit RGB images of one size; the fingerprint of one is its pixels."""

    images: UInt8[np.ndarray, "n h w 3"]

    def take(self, index: Sequence[int]) -> "ArraySource":
        return ArraySource(self.images[list(index)])

    def pixels(self, i: int) -> Picture:
        return torch.from_numpy(self.images[i]).permute(2, 0, 1) / 255

    def fingerprint(self, i: int) -> bytes:
        return self.content(i)

    def content(self, i: int) -> bytes:
        """The pixels."""
        pixels: bytes = self.images[i].tobytes()
        return pixels


def decode(path: Path) -> Picture:
    """The picture in an image file.

    Raises whatever Pillow finds wrong with it (OSError, SyntaxError, DecompressionBombWarning and others),
    and ValueError for 32-bit pixels. Pillow holds colour in 8 bits per channel, so a 16-bit colour PNG is
    decoded twice, first for the high bytes and then for the low ones.
    """
    with (
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(path, formats=_FORMATS) as image,
    ):
        coding = image.tile[0].args if image.tile else None
        if image.mode in ("I", "F"):
            raise ValueError(f"its 32-bit pixels (mode {image.mode}) have no known white")
        if image.mode.startswith("I;16"):
            values = np.stack([_upright(image, image.mode)] * 3, axis=-1) / 65535
        elif coding in _LOW_BYTES:
            with Image.open(path, formats=_FORMATS) as low:
                low.tile = [low.tile[0]._replace(args=_LOW_BYTES[coding])]
                values = (256 * _upright(image, image.mode) + _upright(low, low.mode)) / 65535
        else:
            values = _upright(image, "RGBA") / 255
    alpha = values[..., 3:] if values.shape[-1] == 4 else np.float32(1)
    return torch.from_numpy(values[..., :3] * alpha + (1 - alpha)).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image, mode: str) -> Float[np.ndarray, "h w *c"]:
    return np.asarray(ImageOps.exif_transpose(image).convert(mode), dtype=np.float32)
