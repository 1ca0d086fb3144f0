"""Folders and arrays as labelled images.

    photos = open_images("photos", crop=224)            # reads no pixel yet

Three layouts are understood: one subfolder per class, inside train/, val/ and test/ if there are parts; one folder with
a table of labels (see `underfire.data.label_tables`; the set is made of the files that the table lists); and an
.npz with uint8 `images` (N, H, W, 3) and integer `labels` (N,). Of labels="predicted" none is read: the class that a
classifier reports of an image is then taken for the true one.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Labels, Samples
from underfire.data.arrays import Images8, read_arrays, read_pictures
from underfire.data.decode import ArraySource, FileSource, Picture, PixelSource
from underfire.data.folders import IMAGE_ENDINGS, images_below, split_folders, unusable
from underfire.data.label_tables import LabelEntry, read_label_table
from underfire.data.masks import decode_mask, masks_beside, masks_of
from underfire.data.names import PREDICTED
from underfire.data.splits import part

INTERPOLATIONS = ("bilinear", "bicubic")  # by which images are resized
UNKNOWN = -1  # the label of an image of which the classifier is to tell it


class UnreadableImage(UnderfireError):
    """One image that cannot be used: `path` is its id in the set, `reason` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"image {self.path} cannot be used: {self.reason}"


class Numbering(StrEnum):
    """What the labels of a set go by; the values are for run.json."""

    STATED = "class indices that come with the images"
    SORTED = "the order of the images' class names"
    MATCHED = "the classifier's class names"
    INDICES = "folder names that are class indices"
    PREDICTED = "what the classifier reports, as the images have none"


@dataclass(frozen=True)
class ImageSet:
    """N labelled images that are read one at a time.

    A label is UNKNOWN where the class that a classifier reports is taken for true.
    `classes` names each index, "7" where class 7 has no name; `skipped` holds (id, reason) of files that cannot be
    used or are passed over; `resize` is the short side and `crop` the side of the central square, in
    pixels, None to leave images as they are. Images of one group show the same thing; empty if nothing is known of it.
    """

    ids: tuple[str, ...]
    labels: Labels
    classes: tuple[str, ...]
    source: PixelSource
    skipped: tuple[tuple[str, str], ...] = ()
    crop: int | None = None
    resize: int | None = None
    interpolation: str = "bilinear"
    groups: tuple[str, ...] = ()
    numbering: Numbering = Numbering.STATED

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int]) -> "ImageSet":
        """The set of these images alone, in this order."""
        ids, groups = (tuple(names[i] for i in index) if names else () for names in (self.ids, self.groups))
        return replace(self, ids=ids, labels=self.labels[list(index)], source=self.source.take(index), groups=groups)

    def unlabelled(self) -> "ImageSet":
        """The set without its labels."""
        unknown = torch.full((len(self),), UNKNOWN)
        return replace(self, labels=unknown, numbering=Numbering.PREDICTED)

    def labels_of(self, index: Sequence[int], reported: Sequence[int]) -> Labels:
        """The classes of these images; where they are UNKNOWN, the ones that are reported of them."""
        labels = self.labels[list(index)]
        return torch.where(labels == UNKNOWN, torch.tensor(reported), labels)

    def groups_of(self, ids: Iterable[str]) -> tuple[str, ...]:
        """The group of each of these images; where nothing is known of groups, the image is its own."""
        group = dict(zip(self.ids, self.groups or self.ids, strict=True))
        return tuple(group[name] for name in ids)

    def read(self, i: int) -> Picture:
        """Image i, resized and then cropped; raises UnreadableImage if damaged or smaller than the crop."""
        try:
            picture = self.source.pixels(i)
        except Exception as problem:  # decoders raise whatever a damaged file makes them trip over
            raise UnreadableImage(self.ids[i], str(problem) or type(problem).__name__) from problem
        from torchvision.transforms.v2 import functional as F

        if self.resize is not None:
            picture = F.resize(picture, [self.resize], F.InterpolationMode(self.interpolation), antialias=True)
            picture = picture.clamp(0, 1)
        if self.crop is None:
            return picture
        height, width = picture.shape[1:]
        if min(height, width) < self.crop:
            reason = f"its {width}×{height} pixels are fewer than the crop of {self.crop}×{self.crop}"
            raise UnreadableImage(self.ids[i], reason)
        cropped: Tensor = F.center_crop(picture, [self.crop])
        return cropped

    def samples(self, index: Sequence[int] | None = None) -> Samples:
        """These images, by default all, in memory; UnderfireError if one cannot be read, or if they differ in size."""
        index = range(len(self)) if index is None else index
        pictures = [self.read(i) for i in index]
        for i, picture in zip(index, pictures, strict=True):
            if picture.shape != pictures[0].shape:
                raise sizes_differ((self.ids[index[0]], pictures[0].shape), (self.ids[i], picture.shape))
        return Samples(tuple(self.ids[i] for i in index), torch.stack(pictures), self.labels[list(index)])

    @property
    def digest(self) -> str:
        """A hash of ids, labels, file sizes (array contents for .npz), crop, resize and how."""
        size = [self.crop, self.resize] + [self.interpolation] * (self.interpolation != INTERPOLATIONS[0])
        hasher = hashlib.blake2b(json.dumps(size).encode(), digest_size=16)
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


def sizes_differ(*named: tuple[str, torch.Size]) -> UnderfireError:
    """What is wrong with images of these names and shapes."""
    sizes = [f"{name} has {width}×{height} pixels" for name, (_, height, width) in named]
    return UnderfireError(f"{' and '.join(sizes)}: give all images one size with --crop")


def open_images(
    path: str | Path,
    labels: str | Path | None = None,
    crop: int | None = None,
    resize: int | None = None,
    split: str | None = None,
    interpolation: str | None = None,
) -> ImageSet:
    """The images at `path`, a folder or an .npz; `labels` is a CSV, by default its own labels.csv, or PREDICTED.

    `split` asks for one part: of those that table or folders tell, else train or test, which share no group or image.
    Raises UnderfireError if there is nothing at `path`, or nothing that says which image is of which class.
    """
    path = Path(path)
    if (how := interpolation or INTERPOLATIONS[0]) not in INTERPOLATIONS:
        raise UnderfireError(f"interpolation is {how!r}: give {' or '.join(INTERPOLATIONS)}")
    for name, pixels in (("crop", crop), ("resize", resize)):
        if pixels is not None and pixels < 1:
            raise UnderfireError(f"{name} is {pixels}: give a number of pixels, 1 or more")
    if not path.exists():
        raise UnderfireError(f"there is no {path}: give a folder of images or an .npz file")
    return replace(_open(path, labels, split), crop=crop, resize=resize, interpolation=how)


def object_masks(image_set: ImageSet, folder: Path) -> ImageSet:
    """The masks of the images in a folder, found by name and cut alike; UnderfireError if one is missing."""
    photos = image_set.source.folder if isinstance(image_set.source, FileSource) else None
    names = masks_of(image_set.ids, folder, photos)
    return replace(image_set, ids=names, source=FileSource(folder, names, decode_mask))


def _open(path: Path, labels: str | Path | None, split: str | None) -> ImageSet:
    if path.is_dir() and labels == PREDICTED:
        return _open_unlabelled(path, split)
    if path.is_dir():
        own = path / "labels.csv"
        if labels is not None or own.exists():
            return _open_table(path, Path(labels or own), split)
        return _open_nested(path, split)
    if path.suffix.lower() != ".npz":
        raise UnderfireError(f"{path} is neither a folder nor an .npz file: give one of the two")
    if labels == PREDICTED:
        return _part(_of_arrays(read_pictures(path)), split)
    if labels is not None:
        raise UnderfireError(f"{path} brings its own labels: leave out {labels}")
    return _part(_open_npz(path), split)


def _open_nested(folder: Path, split: str | None) -> ImageSet:
    found = images_below(folder)
    parts = split_folders(found.images)
    if not parts:
        return _part(_by_folder(folder, found.images, found.skipped, depth=1), split)
    names = ", ".join(sorted(parts))
    if split is None:
        raise UnderfireError(f"{folder} is split into {names}: say which part with --split")
    chosen = [top for top, name in parts.items() if split in (top, name)]
    if len(chosen) != 1:
        raise UnderfireError(f"{folder} is split into {names}, of which {len(chosen)} are '{split}': give one of them")
    in_parts = [name for name in found.images if name.partition("/")[0] in parts]
    everything = _by_folder(folder, in_parts, found.skipped, depth=2)
    wanted = [i for i, name in enumerate(everything.ids) if name.startswith(f"{chosen[0]}/")]
    if not wanted:
        raise UnderfireError(f"{folder / chosen[0]} has no subfolders with images: make one subfolder per class")
    return everything.take(wanted)


def _by_folder(folder: Path, files: Sequence[str], skipped: tuple[tuple[str, str], ...], depth: int) -> ImageSet:
    """Images by the folder that they are in, `depth` below the root; those above are passed over."""
    masks = masks_beside(files)
    skipped = (*skipped, *((name, "it is the mask of an image beside it") for name in sorted(masks)))
    files = [name for name in files if name not in masks]
    ids = tuple(name for name in files if name.count("/") >= depth)
    if not ids:
        raise UnderfireError(
            f"{folder} has no subfolders with images and no labels.csv: "
            "make one subfolder per class or name a table of labels with --labels"
        )
    if len(ids) < len(files):
        above = next(name for name in files if name.count("/") < depth)
        skipped = (*skipped, (above, f"{len(files) - len(ids)} images like this one lie in no class's folder"))
    of = [name.split("/")[depth - 1] for name in ids]
    numbers = all(name.isdecimal() for name in of)
    classes = sorted(set(of), key=lambda name: (int(name) if numbers else 0, name))
    place = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([place[name] for name in of])
    source = FileSource(folder, ids)
    return ImageSet(ids, labels, tuple(classes), source, skipped, numbering=Numbering.SORTED)


def _open_unlabelled(folder: Path, split: str | None) -> ImageSet:
    """All images below a folder, whatever the names of folders and tables say."""
    found = images_below(folder)
    masks = masks_beside(found.images)
    ids = tuple(name for name in found.images if name not in masks)
    if not ids:
        raise UnderfireError(f"{folder} holds no images: give a folder of {', '.join(sorted(IMAGE_ENDINGS))}")
    skipped = (*found.skipped, *((name, "it is the mask of an image beside it") for name in sorted(masks)))
    parts = split_folders(ids)
    told = [parts.get(name.partition("/")[0], "") for name in ids]
    return _part(_unlabelled(ids, FileSource(folder, ids), skipped), split, told)


def _unlabelled(ids: tuple[str, ...], source: PixelSource, skipped: tuple[tuple[str, str], ...] = ()) -> ImageSet:
    return ImageSet(ids, torch.zeros(len(ids), dtype=torch.int64), (), source, skipped).unlabelled()


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
    numbering = Numbering.SORTED if listed.by_name else Numbering.STATED
    everything = ImageSet(ids, labels, listed.classes, FileSource(folder, ids), groups=groups, numbering=numbering)
    wanted = _part(everything, split, [entry.part for entry in entries.values()])
    reasons = [unusable(folder / name) for name in wanted.ids]
    there = [i for i, reason in enumerate(reasons) if reason is None]
    skipped = tuple((wanted.ids[i], reason) for i, reason in enumerate(reasons) if reason is not None)
    if not there:
        first = f"; the first is {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UnderfireError(f"{folder} holds none of the files that {table} lists: check the column file{first}")
    return replace(wanted.take(there), skipped=skipped)


def _part(image_set: ImageSet, split: str | None, told: Sequence[str] = ()) -> ImageSet:
    """The images of a part, or all where none is asked for or there are none at all."""
    if split is None or not len(image_set):
        return image_set
    groups = image_set.groups or image_set.ids
    return image_set.take(part(split, told, groups, image_set.labels.tolist()))


def _of_arrays(images: Images8) -> ImageSet:
    return _unlabelled(tuple(map(str, range(len(images)))), ArraySource(images))


def _open_npz(path: Path) -> ImageSet:
    images, labels = read_arrays(path)
    ids = tuple(map(str, range(len(images))))
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return ImageSet(ids, torch.from_numpy(labels), classes, ArraySource(images))
