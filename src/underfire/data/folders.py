"""What lies below a folder: image files, and whatever else is there with the reason why it is not used.

    found = images_below(Path("photos"))
    parts = split_folders(found.images)          # {"train": "train", "validation": "val"}, empty where there are none

Links are followed, each folder once. Hidden files and folders, and what archives and file browsers leave behind, are
no part of a set. Nothing that lies in a folder ends the walk.
"""

import os
import stat
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".tif", ".tiff", ".webp", ".gif")
)
MOST_BYTES = 1 << 30  # of one image file
SPLITS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validation"), "val"),
        **dict.fromkeys(("test", "testing"), "test"),
    }
)
_LEFTOVERS = frozenset(("__macosx", "@eadir", "thumbs.db", "desktop.ini"))


@dataclass(frozen=True)
class FoundImages:
    """Names of image files below a folder, in order; skipped holds (name, reason), one entry for each other ending."""

    images: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def images_below(folder: Path) -> FoundImages:
    """All image files below a folder, told by their endings."""
    images, skipped = list[str](), list[tuple[str, str]]()
    others, seen, pending = Counter[str](), dict[tuple[int, int], str](), deque([""])
    while pending:
        place = pending.pop()
        try:
            here = os.stat(folder / place)
            with os.scandir(folder / place) as listing:
                names = sorted(entry.name for entry in listing)
        except OSError as problem:
            skipped.append((f"{printable(place)}/", f"the folder cannot be read: {problem.strerror}"))
            continue
        first = seen.setdefault((here.st_dev, here.st_ino), place)
        if first != place:
            skipped.append((f"{place}/", f"a link to the folder {first or '.'}, which is read already"))
            continue
        for name in names:
            path = f"{place}/{name}" if place else name
            if name.startswith(".") or name.casefold() in _LEFTOVERS:
                continue
            if not _is_utf8(name):
                skipped.append((printable(path), "its name is not UTF-8; rename it"))
            elif (folder / path).is_dir():
                pending.appendleft(path) if (folder / path).is_symlink() else pending.append(path)
            elif is_image(name) or (folder / path).is_symlink():
                reason = unusable(folder / path)
                skipped.append((path, reason)) if reason else images.append(path)
            else:
                others[PurePosixPath(name).suffix] += 1
    for ending, count in sorted(others.items()):
        skipped.append((f"*{ending}", f"passed over by their ending, which is none of an image: {count}"))
    return FoundImages(tuple(sorted(images, key=lambda name: name.split("/"))), tuple(skipped))


def is_image(name: str) -> bool:
    """Whether the ending is one of an image file."""
    return PurePosixPath(name).suffix.lower() in IMAGE_ENDINGS


def unusable(path: Path) -> str | None:
    """Why a file cannot be an image, as far as its directory entry tells; None if nothing speaks against it."""
    try:
        info = path.stat()
    except FileNotFoundError:
        return "a link to a file that is missing" if path.is_symlink() else "the file is missing"
    except (OSError, ValueError) as problem:
        return f"the file cannot be opened: {getattr(problem, 'strerror', problem)}"
    if not stat.S_ISREG(info.st_mode):
        return "it is not a regular file"
    if info.st_size > MOST_BYTES:
        return f"its {info.st_size / 2**30:.1f} GiB are more than the {MOST_BYTES // 2**30} GiB that an image may have"
    return None if is_image(path.name) else "its ending is none of an image"


def split_folders(images: Sequence[str]) -> dict[str, str]:
    """The part (train, val or test) of each top folder where these are the parts of a set; empty if they are classes.

    They are parts if there are two of them, if there is no other folder, or if they hold folders themselves.
    """
    parts = dict[str, str]()
    tops = {top: "/" in rest for top, _, rest in (name.partition("/") for name in images) if rest}
    for name in images:
        top, _, rest = name.partition("/")
        if "/" in rest:
            tops[top] = True
    for top in tops:
        if top.lower() in SPLITS:
            parts[top] = SPLITS[top.lower()]
    alone = len(parts) == len(tops)
    return parts if alone or len(set(parts.values())) > 1 or any(tops[top] for top in parts) else {}


def printable(name: str) -> str:
    """A file name in UTF-8, bytes of other codings written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
