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


# ------------------------------------------------------------------ white and depth as the format states them


def write_tiff(path: Path, data: bytes, width: int, height: int, bits: tuple[int, ...], **tags: int) -> None:
    """An uncompressed little-endian TIFF; further tags by their number, t262=0 for white at zero."""
    given = {int(name[1:]): value for name, value in tags.items()}
    entries = {256: width, 257: height, 259: 1, 262: 1, 277: len(bits), 278: height, 279: len(data)} | given
    after = 8 + 2 + 12 * (len(entries) + 2) + 4
    ifd = {name: struct.pack("<HHII", name, 4, 1, value) for name, value in entries.items()}
    packed = struct.pack(f"<{len(bits)}H", *bits)
    ifd[258] = struct.pack("<HHI", 258, 3, len(bits)) + (
        struct.pack("<I", after) if len(packed) > 4 else packed.ljust(4, b"\0")
    )
    ifd[273] = struct.pack("<HHII", 273, 4, 1, after + len(packed))
    body = b"".join(ifd[name] for name in sorted(ifd))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(ifd)) + body + b"\0\0\0\0" + packed + data)


def with_chunk(png: bytes, name: bytes, data: bytes, checksum: int | None = None) -> bytes:
    """A PNG with one more chunk after its header, whose checksum may be wrong."""
    crc = zlib.crc32(name + data) if checksum is None else checksum
    return png[:33] + struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc) + png[33:]


@pytest.mark.parametrize("white_is_zero", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_inverted_grey_of_tiff(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    values = np.array([[0, 1, 2], [100, 254, 255]]) * (257 if bits == 16 else 1)
    data = values.astype("<u2" if bits == 16 else "u1").tobytes()
    write_tiff(tmp_path / "a.tif", data, 3, 2, (bits,), t262=0 if white_is_zero else 1)
    unit = torch.from_numpy(values / (2**bits - 1)).float()
    assert torch.allclose(decode(tmp_path / "a.tif"), (1 - unit if white_is_zero else unit).expand(3, 2, 3), atol=1e-6)


def test_twelve_bits(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x00]), 4, 1, (12,))
    assert torch.allclose(decode(tmp_path / "a.tif")[0, 0], torch.tensor([0, 1, 2048 / 4095, 0]), atol=1e-6)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_of_tiff_keeps_its_precision(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(2).integers(0, 65536, (5, 7, channels)).astype("<u2")
    further = {"t338": 2} if channels == 4 else {}
    write_tiff(tmp_path / "a.tif", values.tobytes(), 7, 5, (16,) * channels, t262=2, **further)
    unit = values / 65535
    alpha = unit[..., 3:] if channels == 4 else 1
    expected = chw(unit[..., :3] * alpha + 1 - alpha)
    assert torch.allclose(decode(tmp_path / "a.tif"), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("code", "bits"), [("<i1", 8), ("<i2", 16)])
def test_signed_pixels_are_refused(tmp_path: Path, code: str, bits: int) -> None:
    write_tiff(tmp_path / "a.tif", np.ones(4, code).tobytes(), 2, 2, (bits,), t339=2)
    with pytest.raises(ValueError, match="no known white"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("maxval", [1, 100, 255, 1000, 65535])
def test_grey_of_pgm_is_scaled_by_its_own_white(tmp_path: Path, maxval: int) -> None:
    values = np.array([0, maxval // 2, maxval])
    data = values.astype(">u2" if maxval > 255 else "u1").tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P5\n3 1\n%d\n" % maxval + data)
    expected = torch.from_numpy(values / maxval).float().expand(3, 1, 3)
    assert torch.allclose(decode(tmp_path / "a.pgm"), expected, atol=1 / 500 if maxval < 256 else 1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_a_deep_png(tmp_path: Path, channels: int) -> None:
    values = np.full((1, 3, channels), 300, dtype=np.uint16)
    values[0, 1] = 301
    write_deep_png(tmp_path / "a.png", values)
    key = struct.pack(f">{channels}H", *[301] * channels)
    (tmp_path / "a.png").write_bytes(with_chunk((tmp_path / "a.png").read_bytes(), b"tRNS", key))
    assert torch.allclose(decode(tmp_path / "a.png")[0, 0], torch.tensor([300 / 65535, 1, 300 / 65535]), atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_shallow_png(tmp_path: Path, bits: int) -> None:
    """Two pixels, of which the first is transparent and the second black."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0)
    line = bytes([0, 1, 0]) if bits == 8 else bytes([0, 1 << (8 - bits)])
    chunks = ((b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(line)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert decode(tmp_path / "a.png")[0, 0].tolist() == [1, 0]


def test_cmyk_is_inverted_where_adobe_says_so(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "adobe.jpg")
    data = (tmp_path / "adobe.jpg").read_bytes()
    start = data.index(b"\xff\xee")
    length = 2 + int.from_bytes(data[start + 2 : start + 4])
    (tmp_path / "plain.jpg").write_bytes(data[:start] + data[start + length :])
    cyan, inverted = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.0])
    assert torch.allclose(decode(tmp_path / "adobe.jpg")[:, 0, 0], cyan, atol=2 / 255)
    assert torch.allclose(decode(tmp_path / "plain.jpg")[:, 0, 0], inverted, atol=2 / 255)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if ending == "webp" else {}
    frames[0].save(tmp_path / f"a.{ending}", save_all=True, append_images=frames[1:], **lossless)
    assert decode(tmp_path / f"a.{ending}")[:, 0, 0].tolist() == [1, 0, 0]


# ------------------------------------------------------------------ metadata


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\7" * 40]
)
def test_exif_that_cannot_be_parsed(tmp_path: Path, ending: str, exif: bytes) -> None:
    image = Image.fromarray(random_bytes(16, 16, 3))
    image.save(tmp_path / f"plain.{ending}")
    image.save(tmp_path / f"a.{ending}", exif=exif)
    assert torch.equal(decode(tmp_path / f"a.{ending}"), decode(tmp_path / f"plain.{ending}"))


def test_an_orientation_among_tags_that_cannot_be_parsed(tmp_path: Path) -> None:
    orientation, broken = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0), struct.pack("<HHII", 0x8769, 4, 1, 1 << 31)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + broken + b"\0\0\0\0"
    values = random_bytes(8, 16, 3)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    assert torch.equal(decode(tmp_path / "a.png"), chw(np.rot90(values, -1)) / 255)


@pytest.mark.parametrize(
    ("name", "data", "checksum"),
    [
        (b"tEXt", b"Comment\0hello", 0),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * (1 << 24)), None),
        (b"iCCP", b"x\0\7", None),
        (b"gAMA", b"", None),
        (b"cHRM", b"\1", None),
        (b"pHYs", b"", 7),
    ],
)
def test_chunks_that_cannot_be_parsed(tmp_path: Path, name: bytes, data: bytes, checksum: int | None) -> None:
    values = random_bytes(8, 16, 3)
    Image.fromarray(values).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(with_chunk((tmp_path / "a.png").read_bytes(), name, data, checksum))
    assert torch.equal(decode(tmp_path / "a.png"), chw(values) / 255)


@pytest.mark.parametrize("marker", [0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE])
@pytest.mark.parametrize("content", [b"", b"MPF\0II*\0\xff\xff\xff\xff", b"Photoshop 3.0\0" + b"8BIM\xff" * 3, b"JFXX"])
def test_segments_that_cannot_be_parsed(tmp_path: Path, marker: int, content: bytes) -> None:
    Image.fromarray(random_bytes(16, 16, 3)).save(tmp_path / "plain.jpg")
    data = (tmp_path / "plain.jpg").read_bytes()
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    (tmp_path / "a.jpg").write_bytes(data[:2] + segment + data[2:])
    assert torch.equal(decode(tmp_path / "a.jpg"), decode(tmp_path / "plain.jpg"))
