"""Every colour mode, depth and orientation of an image file arrives as the RGB values one would expect."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from underfire.data.decode import ArraySource, FileSource, decode

PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by number of channels: grey, grey + alpha, RGB, RGBA


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def chw(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32))


def write_deep_png(path: Path, values: np.ndarray) -> None:
    """A PNG of 16 bits per channel, (H, W, C) uint16; Pillow writes no colour at this depth."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(lines), b"IEND": b""}
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in chunks.items():
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_rgb(tmp_path: Path, suffix: str) -> None:
    values = random_bytes(5, 7, 3)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    picture = decode(tmp_path / f"a.{suffix}")
    assert picture.is_contiguous()
    assert torch.equal(picture, chw(values) / 255)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_formats_give_what_pillow_reads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(random_bytes(16, 16, 3)).save(path)
    with Image.open(path) as image:
        assert torch.equal(decode(path), chw(np.asarray(image)) / 255)


def test_greyscale_and_bilevel(tmp_path: Path) -> None:
    values = random_bytes(5, 7)
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values > 127).save(tmp_path / "bilevel.png")
    assert torch.equal(decode(tmp_path / "grey.png"), chw(values[..., None].repeat(3, 2)) / 255)
    assert torch.equal(decode(tmp_path / "bilevel.png"), chw((values > 127)[..., None].repeat(3, 2)))


def test_cmyk(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    cyan.save(tmp_path / "cyan.tif")
    cyan.save(tmp_path / "cyan.jpg")
    assert torch.equal(decode(tmp_path / "cyan.tif")[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
    assert torch.allclose(decode(tmp_path / "cyan.jpg")[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]), atol=2 / 255)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "clear.png", transparency=1)
    red, blue, white = [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]
    assert decode(tmp_path / "opaque.png")[:, 0].T.tolist() == [red, blue]
    assert decode(tmp_path / "clear.png")[:, 0].T.tolist() == [red, white]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    values = random_bytes(5, 7, len(mode))
    Image.fromarray(values, mode).save(tmp_path / "a.png")
    colour, alpha = values[..., :-1] / 255, values[..., -1:] / 255
    expected = chw((colour * alpha + 1 - alpha) * np.ones(3))
    assert torch.allclose(decode(tmp_path / "a.png"), expected, atol=1e-6)
    assert not torch.allclose(decode(tmp_path / "a.png"), chw(colour * np.ones(3)), atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_greyscale(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 1, 255], [256, 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = chw(values[..., None].repeat(3, 2).astype(np.float32)) / 65535
    assert torch.equal(decode(tmp_path / f"a.{suffix}"), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_png_keeps_its_precision(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    write_deep_png(tmp_path / "a.png", values)
    unit = values / 65535
    alpha = unit[..., 3:] if channels == 4 else 1
    expected = chw((unit[..., :3] * alpha + 1 - alpha) * np.ones(3))
    assert torch.allclose(decode(tmp_path / "a.png"), expected, rtol=0, atol=1e-6)


def test_sixteen_bit_grey_with_alpha_is_read_in_eight_bits(tmp_path: Path) -> None:
    values = np.full((2, 2, 2), 65535, dtype=np.uint16)
    values[..., 0] = 1000
    write_deep_png(tmp_path / "a.png", values)
    assert torch.allclose(decode(tmp_path / "a.png"), torch.full((3, 2, 2), 1000 / 65535), rtol=0, atol=1 / 255)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int, turns: int) -> None:
    """`turns` are the quarter turns to the left after which the stored image stands upright."""
    values = np.zeros((16, 32, 3), dtype=np.uint8)
    values[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(tmp_path / name, exif=exif)
    assert torch.allclose(decode(tmp_path / name), chw(np.rot90(values, turns)) / 255, atol=0.02)


def test_thirty_two_bit_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"32-bit pixels \(mode F\)"):
        decode(tmp_path / "a.tif")


def test_only_image_formats_are_tried(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(OSError, match="cannot identify image file"):
        decode(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(random_bytes(10, 15, 3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombWarning):
        decode(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Image.DecompressionBombError):
        decode(tmp_path / "a.png")


def test_sources(tmp_path: Path) -> None:
    values = random_bytes(2, 5, 7, 3)
    for name, pixels in zip(("a.png", "b.png"), values, strict=True):
        Image.fromarray(pixels).save(tmp_path / name)
    files, array = FileSource(tmp_path, ("a.png", "b.png")), ArraySource(values)
    assert torch.equal(files.pixels(1), array.pixels(1))
    assert files.fingerprint(0) == str((tmp_path / "a.png").stat().st_size).encode()
    assert array.fingerprint(0) == values[0].tobytes()
