"""An .npz file as images and class indices; what its headers state is bounded before anything is read.

images, labels = read_arrays(Path("test.npz"))      # uint8 (N, H, W, 3) and int64 (N,)
"""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.lib import format as npy

from underfire.core.errors import UnderfireError
from underfire.data.label_tables import MOST_CLASSES

MOST_BYTES = 8 << 30  # of both arrays in memory

Images8 = UInt8[np.ndarray, "n h w 3"]


def read_arrays(path: Path) -> tuple[Images8, Int64[np.ndarray, " n"]]:
    """The arrays `images` and `labels`; UnderfireError if they are not there, of another kind or too large."""
    found = _found(path, "images", "labels")
    if len(found) < 2:
        raise UnderfireError(f"{path} must hold two arrays, images and labels")
    images, labels = _pictures(path, found), found["labels"]
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        expected = f"integers ({len(images)},), one per image"
        raise UnderfireError(f"labels in {path} must be {expected}, not {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UnderfireError(f"labels in {path} must be class indices from 0 to {MOST_CLASSES - 1}")
    return images, labels.astype(np.int64)


def read_pictures(path: Path) -> Images8:
    """The array `images` alone; UnderfireError as of `read_arrays`."""
    return _pictures(path, _found(path, "images"))


def read_places(path: Path) -> list[int] | None:
    """The array `index` of whole numbers, all different, one per image; None where there is none."""
    found = _found(path, "images", "index")
    if "index" not in found:
        return None
    index, count = found["index"], len(found["images"])
    if index.dtype.kind not in "iu" or index.shape != (count,) or len(set(index.tolist())) < count:
        raise UnderfireError(f"index in {path} must be {count} different integers, one per image, not {index.shape}")
    places: list[int] = index.tolist()
    return places


def _pictures(path: Path, found: dict[str, np.ndarray]) -> Images8:
    if "images" not in found:
        raise UnderfireError(f"{path} must hold an array images")
    images = found["images"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise UnderfireError(f"images in {path} must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    return np.ascontiguousarray(images)


def _found(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Those of the arrays that are there."""
    try:
        return _read(path, names)
    except UnderfireError:
        raise
    except Exception as problem:  # a damaged archive fails in the zip, header or array code
        raise UnderfireError(f"{path} is not an intact .npz: write one with numpy.savez, no object arrays") from problem


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        there = [name for name in names if f"{name}.npy" in archive.namelist()]
        size = sum(_stated_bytes(path, archive, name) for name in there)
    if size > MOST_BYTES:
        raise UnderfireError(
            f"{path} states arrays of {size / 2**30:.0f} GiB, more than the {MOST_BYTES // 2**30} GiB that are read at "
            "once: divide it, or give a folder of images"
        )
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in there}


def _stated_bytes(path: Path, archive: zipfile.ZipFile, name: str) -> int:
    """What an array takes by its header, which must agree with what the archive says of its length."""
    with archive.open(f"{name}.npy") as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        begins = file.tell()
    stated, held = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size - begins
    if not dtype.hasobject and stated != held:
        raise UnderfireError(f"{name} in {path} are {shape} by their header, but {held} bytes follow: write it anew")
    return stated
