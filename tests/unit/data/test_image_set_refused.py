"""Paths, tables and arrays that hold no usable set of labelled images are refused in one clear sentence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data import arrays
from underfire.data.image_set import open_images

PIXELS, INDICES = np.zeros((2, 4, 4, 3), dtype=np.uint8), np.zeros(2, dtype=int)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image, a.png, and nothing that says of which class it is."""
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    return tmp_path


def test_paths_that_hold_no_images(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UnderfireError, match=r"there is no .*nowhere"):
        open_images(folder / "nowhere")
    with pytest.raises(UnderfireError, match=r"neither a folder nor an \.npz"):
        open_images(folder / "a.png")
    for unlabelled in (folder / "empty", folder):
        with pytest.raises(UnderfireError, match=r"no subfolders with images and no labels\.csv: make one"):
            open_images(unlabelled)


@pytest.mark.parametrize("size", [{"crop": 0}, {"resize": -1}])
def test_sizes_must_be_positive(folder: Path, size: dict[str, int]) -> None:
    with pytest.raises(UnderfireError, match=r"is (0|-1): give a number of pixels"):
        open_images(folder, **size)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,0\n", "lacks the column class_index and the column file"),
        ("file,label\na.png,0\n", "lacks the column class_index$"),
        ("", "lacks the column"),
        ("file,class_index\na.png,cat\n", "line 2 of .* has class_index 'cat': it must be a whole number"),
        ("file,class_index\na.png,1.0\n", "has class_index '1.0'"),
        ("file,class_index\na.png,-1\n", "has class_index '-1'"),
        ("file,class_index\na.png,1000000\n", "a whole number from 0 to 999999"),
        ("file,class_index\na.png\n", "has class_index ''"),
        ("file,class_index\na.png,0\n./a.png,0\n", "line 3 of .* a second time"),
        ("file,class_index\n../a.png,0\n", "files must lie inside"),
        ("file,class_index\n/etc/a.png,0\n", "files must lie inside"),
        ("file,class_index\nb.png,0\n", "holds none of the files"),
        ("file,class_index\n", "holds none of the files"),
        ("file,class_index\n\xff.png,0\n", "cannot be read as a UTF-8 CSV file"),
    ],
)
def test_tables_that_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "labels.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UnderfireError, match=message):
        open_images(folder)


def test_table_that_is_missing(folder: Path) -> None:
    with pytest.raises(UnderfireError, match=r"cannot be read as a UTF-8 CSV file: .*No such file"):
        open_images(folder, labels=folder / "none.csv")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"images": PIXELS}, "must hold two arrays, images and labels"),
        ({"images": PIXELS / 255, "labels": INDICES}, r"must be uint8 \(N, H, W, 3\), not float64"),
        ({"images": PIXELS[..., :1], "labels": INDICES}, r"not uint8 \(2, 4, 4, 1\)"),
        ({"images": PIXELS[0], "labels": INDICES}, r"not uint8 \(4, 4, 3\)"),
        ({"images": PIXELS[:0], "labels": INDICES[:0]}, r"not uint8 \(0, 4, 4, 3\)"),
        ({"images": PIXELS, "labels": INDICES.astype(float)}, r"must be integers \(2,\)"),
        ({"images": PIXELS, "labels": INDICES[:1]}, r"must be integers \(2,\), one per image"),
        ({"images": PIXELS, "labels": INDICES - 1}, "class indices from 0 to 999999"),
        ({"images": PIXELS, "labels": INDICES + 10**6}, "class indices from 0 to 999999"),
        ({"images": PIXELS, "labels": np.array([0, None])}, "not an intact .npz: .*no object arrays"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, held: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(UnderfireError, match=message):
        open_images(tmp_path / "a.npz")


def test_npz_that_is_damaged_or_comes_with_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UnderfireError, match=r"is not an intact \.npz: write one with numpy\.savez"):
        open_images(tmp_path / "a.npz")
    with pytest.raises(UnderfireError, match=r"brings its own labels: leave out t\.csv"):
        open_images(tmp_path / "a.npz", labels="t.csv")


# ------------------------------------------------------------------ numbers that a file states


def write_npz(path: Path, images: bytes, labels: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", labels)


def npy(shape: tuple[int, ...], data: bytes, descr: str = "|u1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((10**12, 4, 4, 3), r"images in .* are \(1000000000000, 4, 4, 3\) by their header, but 96 bytes follow"),
        ((10**30, 4, 4, 3), "by their header"),
        ((2, 4, 4, 4), "by their header, but 96 bytes follow: write it anew"),
        ((2, 4, 4, 2), "by their header"),
    ],
)
def test_headers_that_lie(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    write_npz(tmp_path / "a.npz", npy(shape, PIXELS.tobytes()), npy((2,), INDICES.tobytes(), "<i8"))
    with pytest.raises(UnderfireError, match=message):
        open_images(tmp_path / "a.npz")


def test_zip_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MOST_BYTES", 1 << 20)
    write_npz(tmp_path / "a.npz", npy((9, 400, 400, 3), bytes(9 * 480_000)), npy((9,), bytes(72), "<i8"))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    with pytest.raises(
        UnderfireError, match="states arrays of 0 GiB, more than the 0 GiB that are read at once: divide"
    ):
        open_images(tmp_path / "a.npz")


def test_arrays_in_other_orders_and_kinds_of_integers(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "A.NPZ", images=np.asfortranarray(pixels), labels=np.array([1, 0], dtype=">i4"))
    (tmp_path / "A.NPZ.npz").rename(tmp_path / "A.NPZ")
    images = open_images(tmp_path / "A.NPZ")
    assert images.labels.tolist() == [1, 0]
    assert (images.source.images == pixels).all()
