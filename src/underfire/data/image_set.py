"""Folders and arrays as labelled images.

    photos = open_images("photos", crop=224)            # reads no pixel yet

Three layouts are understood: one subfolder per class; one folder with a table of labels (see
`underfire.data.label_tables`; files that the table does not list are no part of the set); and an .npz with uint8
`images` (N, H, W, 3) and integer `labels` (N,).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from underfire.core.types import Labels, UnderfireError
from underfire.data.decode import ArraySource, FileSource, Picture
from underfire.data.label_tables import MOST_CLASSES, LabelEntry, read_label_table
from underfire.data.splits import part


class UnreadableImage(UnderfireError):
    """One image that cannot be used: `path` is its id in the set, `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"image {self.path} cannot be used: {self.reason}"


@dataclass(frozen=True)
class ImageSet:
    """N labelled images that are read one at a time.

    `classes` names each index, "7" where class 7 has no name; `skipped` holds (id, reason) of images that a
    table lists but that are missing; `resize` is the short side and `crop` the side of the central square, in
    pixels, None to leave images as they are. Images of one group show the same thing; empty if nothing is known of it.
    """

    ids: tuple[str, ...]
    labels: Labels
    classes: tuple[str, ...]
    source: FileSource | ArraySource
    skipped: tuple[tuple[str, str], ...] = ()
    crop: int | None = None
    resize: int | None = None
    groups: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int]) -> "ImageSet":
        """The set of these images alone, in this order."""
        ids, groups = (tuple(names[i] for i in index) if names else () for names in (self.ids, self.groups))
        return replace(self, ids=ids, labels=self.labels[list(index)], source=self.source.take(index), groups=groups)

    def read(self, i: int) -> Picture:
        """Image i, resized and then cropped; raises UnreadableImage if damaged or smaller than the crop."""
        try:
            picture = self.source.pixels(i)
        except Exception as problem:  # decoders raise whatever a damaged file makes them trip over
            raise UnreadableImage(self.ids[i], str(problem) or type(problem).__name__) from problem
        from torchvision.transforms.v2 import functional as F

        if self.resize is not None:
            picture = F.resize(picture, [self.resize], F.InterpolationMode.BILINEAR, antialias=True)
            picture = picture.clamp(0, 1)
        if self.crop is None:
            return picture
        height, width = picture.shape[1:]
        if min(height, width) < self.crop:
            reason = f"its {width}×{height} pixels are fewer than the crop of {self.crop}×{self.crop}"
            raise UnreadableImage(self.ids[i], reason)
        cropped: Tensor = F.center_crop(picture, [self.crop])
        return cropped

    @property
    def digest(self) -> str:
        """A hash of ids, labels, file sizes (array contents for .npz), crop and resize."""
        hasher = hashlib.blake2b(json.dumps([self.crop, self.resize]).encode(), digest_size=16)
        for i, (name, label) in enumerate(zip(self.ids, self.labels.tolist(), strict=True)):
            fingerprint = self.source.fingerprint(i)
            hasher.update(json.dumps([name, label, len(fingerprint)]).encode() + fingerprint)
        return hasher.hexdigest()

    def content_hashes(self, ids: Iterable[str]) -> dict[str, str]:
        """A hash of what is stored of each of these images, by id; UnreadableImage if it cannot be read."""
        places, hashes = {name: i for i, name in enumerate(self.ids)}, {}
        for name in ids:
            try:
                content = self.source.content(places[name])
            except KeyError as problem:
                raise UnreadableImage(name, "it is gone") from problem
            except OSError as problem:
                raise UnreadableImage(name, problem.strerror or str(problem)) from problem
            hashes[name] = hashlib.blake2b(content, digest_size=16).hexdigest()
        return hashes


def open_images(
    path: str | Path,
    labels: str | Path | None = None,
    crop: int | None = None,
    resize: int | None = None,
    split: str | None = None,
) -> ImageSet:
    """The images at `path`, a folder or an .npz; `labels` is a CSV, by default the folder's own labels.csv.

    `split` asks for one part: of those that the table tells, else train or test, which share no group (or no image).
    Raises UnderfireError if there is nothing at `path`, or nothing that says which image is of which class.
    """
    path = Path(path)
    for name, pixels in (("crop", crop), ("resize", resize)):
        if pixels is not None and pixels < 1:
            raise UnderfireError(f"{name} is {pixels}: give a number of pixels, 1 or more")
    if not path.exists():
        raise UnderfireError(f"there is no {path}: give a folder of images or an .npz file")
    return replace(_open(path, labels, split), crop=crop, resize=resize)


def object_masks(image_set: ImageSet, folder: Path) -> ImageSet:
    """The masks of the same names in a folder, cut like the images; UnderfireError if one is missing."""
    names = tuple(Path(name).with_suffix(".png").as_posix() for name in image_set.ids)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise UnderfireError(f"{folder} lacks {len(missing)} of {len(names)} masks, the first is {missing[0]}.")
    return replace(image_set, ids=names, source=FileSource(folder, names))


def _open(path: Path, labels: str | Path | None, split: str | None) -> ImageSet:
    if path.is_dir():
        if labels is not None:
            return _open_table(path, Path(labels), split)
        own = path / "labels.csv"
        return _open_table(path, own, split) if own.exists() else _part(_open_nested(path), split)
    if path.suffix != ".npz":
        raise UnderfireError(f"{path} is neither a folder nor an .npz file: give one of the two")
    if labels is not None:
        raise UnderfireError(f"{path} brings its own labels: leave out {labels}")
    return _part(_open_npz(path), split)


def _open_nested(folder: Path) -> ImageSet:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    classes = sorted(item.name for item in folder.iterdir() if item.is_dir() and item.name[0] != ".")
    ids, labels = [], []
    for label, name in enumerate(classes):
        files = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in IMG_EXTENSIONS)
        ids += [file.relative_to(folder).as_posix() for file in files]
        labels += [label] * len(files)
    if not ids:
        raise UnderfireError(
            f"{folder} has no subfolders with images and no labels.csv: "
            "make one subfolder per class or name a table of labels with --labels"
        )
    return ImageSet(tuple(ids), torch.tensor(labels), tuple(classes), FileSource(folder, tuple(ids)))


def _open_table(folder: Path, table: Path, split: str | None) -> ImageSet:
    listed = read_label_table(table, folder)
    entries: dict[str, LabelEntry] = {}
    for entry in listed.entries:
        file, names = Path(entry.file), f"line {entry.line} of {table} names {entry.file!r}"
        if file.anchor or ".." in file.parts:
            raise UnderfireError(f"{names}: files must lie inside {folder}")
        if file.as_posix() in entries:
            raise UnderfireError(f"{names} a second time: keep one line per file")
        entries[file.as_posix()] = entry
    ids, labels = tuple(entries), torch.tensor([entry.label for entry in entries.values()], dtype=torch.int64)
    groups = tuple(entry.lesion or file for file, entry in entries.items())
    everything = ImageSet(ids, labels, listed.classes, FileSource(folder, ids), groups=groups)
    wanted = _part(everything, split, [entry.part for entry in entries.values()])
    there = [i for i, name in enumerate(wanted.ids) if (folder / name).is_file()]
    if not there:
        raise UnderfireError(f"{folder} holds none of the files that {table} lists: check the column file")
    missing = sorted(set(range(len(wanted))) - set(there))
    return replace(wanted.take(there), skipped=tuple((wanted.ids[i], "the file is missing") for i in missing))


def _part(image_set: ImageSet, split: str | None, told: Sequence[str] = ()) -> ImageSet:
    """The images of a part, or all where none is asked for or there are none at all."""
    if split is None or not len(image_set):
        return image_set
    groups = image_set.groups or image_set.ids
    return image_set.take(part(split, told, groups, image_set.labels.tolist()))


def _open_npz(path: Path) -> ImageSet:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("images", "labels") if name in arrays}
    except Exception as problem:  # a damaged archive fails in the zip, header or array code
        raise UnderfireError(f"{path} is no intact .npz: write one with numpy.savez, no object arrays") from problem
    if len(found) < 2:
        raise UnderfireError(f"{path} must hold two arrays, images and labels")
    images, labels = found["images"], found["labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise UnderfireError(f"images in {path} must be uint8 (N, H, W, 3), not {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        expected = f"integers ({len(images)},), one per image"
        raise UnderfireError(f"labels in {path} must be {expected}, not {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UnderfireError(f"labels in {path} must be class indices from 0 to {MOST_CLASSES - 1}")
    ids, indices = tuple(map(str, range(len(images)))), torch.from_numpy(labels.astype(np.int64))
    classes = tuple(map(str, range(int(indices.max()) + 1)))
    return ImageSet(ids, indices, classes, ArraySource(images))
