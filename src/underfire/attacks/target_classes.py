"""What the attacker asks for: the class to be reported instead of the true one.

    rule = target_class_named("least-likely")          # or random, next, a class index, a CSV file
    photos = rule.candidates(photos)                   # those images that can be attacked towards it
    target = rule.choose(ids, labels, logits, seed=0)

A rule is a frozen record of parameters. Rules draw from (seed, image) alone.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.types import Keys, Labels, Logits
from underfire.data.image_set import UNKNOWN, ImageSet
from underfire.data.label_tables import MOST_CLASSES, read_class_table

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@runtime_checkable
class TargetClass(Protocol):
    """A rule that gives every image its target class."""

    def candidates(self, image_set: ImageSet) -> ImageSet:
        """The images that have a target class other than their own; UnderfireError if there is none."""
        ...

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        """A class for each image with these ids, true classes and benign logits."""
        ...


@dataclass(frozen=True)
class RandomClass:
    """A uniformly random other class."""

    def candidates(self, image_set: ImageSet) -> ImageSet:
        return image_set

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        return random_class(labels, logits.shape[1], rng.image_keys(ids).to(labels.device), seed)


@dataclass(frozen=True)
class LeastLikelyClass:
    """The other class with the smallest benign logit; of equal ones the first."""

    def candidates(self, image_set: ImageSet) -> ImageSet:
        return image_set

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        return logits.scatter(1, labels[:, None], torch.inf).argmin(1)


@dataclass(frozen=True)
class NextClass:
    """(label + 1) mod K."""

    def candidates(self, image_set: ImageSet) -> ImageSet:
        return image_set

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        return (labels + 1) % logits.shape[1]


@dataclass(frozen=True)
class OneClass:
    """The same class for all; images of that class have no target."""

    index: int

    def candidates(self, image_set: ImageSet) -> ImageSet:
        if bool((image_set.labels == UNKNOWN).any()):
            raise UnderfireError(
                f"Which images are of the target class {self.index} already is not known where their labels are "
                "predicted; give --labels, or another --target-class such as next."
            )
        others = (image_set.labels != self.index).nonzero()[:, 0].tolist()
        if not others:
            raise UnderfireError(f"Every image is already of the target class {self.index}; choose another one.")
        return image_set.take(others)

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        _check_classes([self.index], logits.shape[1])
        return torch.full_like(labels, self.index)


@dataclass(frozen=True)
class ListedClass:
    """A class for each listed image; images that are not listed have no target.

    The digest of the list is its identity; `origin` is where it came from, for messages.
    """

    digest: str
    targets: Mapping[str, int] = field(compare=False, repr=False)
    origin: str = field(compare=False)

    def candidates(self, image_set: ImageSet) -> ImageSet:
        own = dict(zip(image_set.ids, image_set.labels.tolist(), strict=True))
        for name, target in self.targets.items():
            if name not in own:
                raise UnderfireError(f"{self.origin} names {name!r}, which is not among the images.")
            if target == own[name]:
                raise UnderfireError(
                    f"{self.origin} wants class {target} for {name!r}, which is its true class; name another one."
                )
        return image_set.take([i for i, name in enumerate(image_set.ids) if name in self.targets])

    def choose(self, ids: tuple[str, ...], labels: Labels, logits: Logits, seed: int) -> Labels:
        if absent := [name for name in ids if name not in self.targets]:
            raise UnderfireError(f"{self.origin} does not name a target class for {absent[0]!r}.")
        _check_classes(self.targets.values(), logits.shape[1])
        return torch.tensor([self.targets[name] for name in ids], dtype=labels.dtype, device=labels.device)


def target_class_named(text: str) -> TargetClass:
    """The rule of that name, a class index or a CSV file, as on the command line; UnderfireError if it is none."""
    if text in _NAMED:
        return _NAMED[text]
    if text.isdecimal() and len(text) < len(str(MOST_CLASSES)):
        return OneClass(int(text))
    if Path(text).suffix.lower() == ".csv":
        return _read_targets(Path(text))
    raise UnderfireError(
        f"There is no target class '{text}'; give {', '.join(_NAMED)}, a class index, or a .csv file with the "
        "columns file and target."
    )


def listed_classes(given: Any, ids: Sequence[str]) -> ListedClass:
    """Target classes in a tensor, an array or a list, one for each image, or one for all; UnderfireError otherwise."""
    classes = _as_classes(given, torch.zeros(len(ids), dtype=torch.int64)).tolist()
    return _listed(dict(zip(ids, classes, strict=True)), "target=")


def random_class(labels: Labels, classes: int, keys: Keys, seed: int) -> Labels:
    """A uniformly random class other than the label, a function of (seed, image) alone."""
    offset = rng.integers(seed, "target class", keys, torch.zeros_like(keys), 1, classes - 1)[:, 0]
    return (labels + 1 + offset) % classes


def check_targets(target: Any, current: Labels, classes: int) -> Labels:
    """The targets, a class for each image or one for all, as int64 beside `current`.

    UnderfireError unless each is a class and differs from the current one.
    """
    chosen = _as_classes(target, current)
    _check_classes(chosen.tolist(), classes)
    if bool((chosen == current).any()):
        index = int((chosen == current).nonzero()[0, 0])
        raise UnderfireError(
            f"Image {index} is already of its target class {int(chosen[index])}: target= takes the classes that the "
            "attack is to reach, not the true labels, which it does not need, as it departs from what the model "
            "reports. Choose another class for this image, or leave target= out for random ones."
        )
    return chosen


def _as_classes(given: Any, current: Labels) -> Labels:
    """Whole numbers in a tensor, an array, a list or alone, copied, one for each image."""
    try:
        target = given if isinstance(given, Tensor) else torch.tensor(given)
    except (TypeError, ValueError, RuntimeError):
        target = torch.tensor(math.nan)
    if target.dtype not in INTEGERS or target.shape not in ((), current.shape):
        described = f"of shape {tuple(target.shape)}" if target.dtype in INTEGERS else f"as {type(given).__name__}"
        raise UnderfireError(
            f"Give one integer target class per image, or one for all: {len(current)} images, targets {described}."
        )
    classes: Labels = target.to(current, copy=True).expand(current.shape).clone()
    return classes


def _check_classes(targets: Iterable[int], classes: int) -> None:
    for target in targets:
        if not 0 <= target < classes:
            raise UnderfireError(f"Target class {target} does not exist; the model has classes 0 to {classes - 1}.")


def _read_targets(table: Path) -> ListedClass:
    targets: dict[str, int] = {}
    for line, file, target, _ in read_class_table(table, "target", "class_index"):
        name = PurePosixPath(file).as_posix()
        if name in targets:
            raise UnderfireError(f"line {line} of {table} names {file!r} a second time: keep one line per file")
        targets[name] = target
    if not targets:
        raise UnderfireError(f"{table} names no files: write one line for each image to be attacked")
    return _listed(targets, str(table))


def _listed(targets: Mapping[str, int], origin: str) -> ListedClass:
    digest = hashlib.blake2b(json.dumps(sorted(targets.items())).encode(), digest_size=16).hexdigest()
    return ListedClass(digest, MappingProxyType(targets), origin)


_NAMED: Mapping[str, TargetClass] = MappingProxyType(
    {"random": RandomClass(), "least-likely": LeastLikelyClass(), "next": NextClass()}
)
