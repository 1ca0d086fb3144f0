"""Image files and stored arrays as float RGB pictures.

    decode(Path("cat.png"))   # (3, H, W) in [0, 1]

White and depth are what the format says: inverted grey, 12 and 16 bits, CMYK with and without Adobe's marker. Files are
turned upright by their EXIF orientation, greyscale, palette and CMYK become RGB, transparency is composited on white,
and of several frames the first is taken. The 16 bits of a PNG's or TIFF's channels are kept.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from underfire.core.types import Images
from underfire.data.metadata import without_metadata

Picture = Float[Tensor, "3 h w"]  # one RGB image in [0, 1]

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
_HIGH_FIRST, _LOW_FIRST = "16B", "16L"
_LOW_BYTES = {  # codings of 16-bit colour, of which Pillow keeps the high bytes: read the other way about, the low ones
    f"{mode};{order}": f"{mode};{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (
        (_HIGH_FIRST, _LOW_FIRST),
        (_LOW_FIRST, _HIGH_FIRST),
        ("16N", _HIGH_FIRST if sys.byteorder == "little" else _LOW_FIRST),
    )
}
_ORIENTATION, _WHITE_IS_ZERO, _BITS, _SIGNED = 0x0112, 262, 258, 339  # tags of EXIF and TIFF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@runtime_checkable
class PixelSource(Protocol):
    """Where the pixels of an image set come from."""

    def take(self, index: Sequence[int]) -> "PixelSource":
        """That of these images alone, in this order."""
        ...

    def pixels(self, i: int) -> Picture:
        """Image i; raises whatever is wrong with it."""
        ...

    def fingerprint(self, i: int) -> bytes:
        """What tells a set apart from another without reading images that are not needed."""
        ...

    def content(self, i: int) -> bytes:
        """All that is stored of image i."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Image files, by name inside a folder; the fingerprint of one is its size in bytes."""

    folder: Path
    names: tuple[str, ...]
    read: Callable[[Path], Picture] | None = None  # `decode` where none is given

    def take(self, index: Sequence[int]) -> "FileSource":
        return FileSource(self.folder, tuple(self.names[i] for i in index), self.read)

    def pixels(self, i: int) -> Picture:
        return (self.read or decode)(self.folder / self.names[i])

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


@dataclass(frozen=True)
class TensorSource:
    """Images as they are in memory, in [0, 1]; the fingerprint of one is its pixels."""

    images: Images

    def take(self, index: Sequence[int]) -> "TensorSource":
        return TensorSource(self.images[list(index)])

    def pixels(self, i: int) -> Picture:
        return self.images[i]

    def fingerprint(self, i: int) -> bytes:
        return self.content(i)

    def content(self, i: int) -> bytes:
        """The pixels."""
        pixels: bytes = self.images[i].numpy().tobytes()
        return pixels


@dataclass(frozen=True)
class Decoded:
    """A loaded image, and how its pixels are coded in the file (Pillow's raw mode)."""

    image: Image.Image
    coding: str


def decode(path: Path) -> Picture:
    """The picture in an image file.

    Raises whatever Pillow finds wrong with it (OSError, SyntaxError, DecompressionBombWarning and others),
    and ValueError for pixels whose white is not known. Pillow holds colour in 8 bits per channel, so 16-bit colour is
    decoded twice, first for the high bytes and then for the low ones.
    """
    with opened(path) as decoded:
        image, deep = decoded.image, decoded.coding in _LOW_BYTES
        transparent = image.info.get("transparency")
        if image.mode.startswith("I") or deep:
            values, white = _grey(image) if image.mode.startswith("I") else (upright(image, image.mode), 255)
            if deep:
                with opened(path, _LOW_BYTES[decoded.coding]) as low:
                    values, white = 256 * values + upright(low.image, low.image.mode), 65535
            values /= white
            if transparent is not None:
                key = np.asarray(transparent, dtype=np.float32) / np.float32(white)
                values = np.concatenate([values, (values != key).any(-1, keepdims=True)], axis=-1)
        else:
            _check(image)
            values = upright(image, "RGBA" if _may_be_transparent(image) else "RGB") / 255
    alpha = values[..., 3:] if values.shape[-1] == 4 else None
    shown = values[..., :3] if alpha is None else values[..., :3] * alpha + (1 - alpha)
    return torch.from_numpy(shown).permute(2, 0, 1).contiguous()


@contextmanager
def opened(path: Path, coding: str | None = None) -> Iterator[Decoded]:
    """The first frame of a file, loaded, its pixels taken to be in another coding if one is given.

    Metadata that cannot be parsed costs no picture: where a file is refused, it is read once more without them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            decoded = _loaded(path, coding)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise
        except Exception as problem:  # decoders raise whatever a damaged file makes them trip over
            plain = without_metadata(path)
            if plain is None:
                raise
            try:
                decoded = _loaded(BytesIO(plain), coding)
            except Exception:
                raise problem from None
        with decoded.image:
            yield decoded


def upright(image: Image.Image, mode: str) -> Float[np.ndarray, "h w *c"]:
    """The pixels in a mode, turned by the orientation that the file states, if it can be read."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # any parser's
        turn = None
    turned = image if turn is None else image.transpose(turn)
    return np.asarray(turned.convert(mode) if turned.mode != mode else turned, dtype=np.float32)


def _loaded(file: Path | BytesIO, coding: str | None) -> Decoded:
    image = Image.open(file, formats=_FORMATS)
    try:
        arguments = image.tile[0].args if image.tile else ""
        found = arguments if isinstance(arguments, str) else str((*(arguments or ()), "")[0])
        if found == "CMYK;I" and "adobe" not in image.info:  # the inversion is Adobe's, and so is its marker
            coding = "CMYK"
        if coding is not None:
            image.tile = [tile._replace(args=_recoded(tile.args, coding)) for tile in image.tile]
        image.load()
        key = image.info.get("transparency")
        if found in ("1", "L;2", "L;4") and image.format == "PNG" and isinstance(key, int):
            image.info["transparency"] = key * 255 // (2 ** int(found[-1]) - 1)
    except BaseException:
        image.close()
        raise
    return Decoded(image, found)


def _recoded(arguments: Any, coding: str) -> Any:
    return (coding, *arguments[1:]) if isinstance(arguments, tuple) else coding


def _grey(image: Image.Image) -> tuple[Float[np.ndarray, "h w 3"], int]:
    """The values of deep grey, and which of them is white."""
    _check(image)
    white = 65535
    values = upright(image, image.mode)
    tags = getattr(image, "tag_v2", {})
    if tags:
        white = (1 << int(tags.get(_BITS, (16,))[0])) - 1
        values = white - values if tags.get(_WHITE_IS_ZERO) == 0 else values
    return np.stack([values] * 3, axis=-1), white


def _check(image: Image.Image) -> None:
    """ValueError for pixels whose white is not known."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        raise ValueError(f"its 32-bit pixels (mode {image.mode}) have no known white")
    if 2 in tags.get(_SIGNED, ()):
        raise ValueError("its signed pixels have no known white")


def _may_be_transparent(image: Image.Image) -> bool:
    return "transparency" in image.info or image.mode not in ("1", "L", "RGB", "CMYK", "YCbCr", "P")
