"""The seeded choice of the images that a classifier gets right, or whose object is known.

found = select(classify, photos, n=100, seed=0)     # found.chosen: 100 correctly classified ones
met = meet(classify, photos, n=100, seed=0)         # met.chosen: these and the misclassified ones that came between

What is chosen is a set of images again, not the images themselves: a batch of them is in memory at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Bool
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys, uniform
from underfire.core.text import counted
from underfire.core.types import Flags, Images, Labels, Logits
from underfire.data.decode import Picture
from underfire.data.image_set import ImageSet, UnreadableImage, sizes_differ
from underfire.models.outputs import check_logits


@dataclass(frozen=True)
class LocatedObjects:
    """What `locate` found: a set of at most n images, and the pixels of their objects; skipped holds (id, reason)."""

    chosen: ImageSet
    objects: Bool[Tensor, "n h w"]
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Selection:
    """What `select` found: a set of at most n images, and what it passed over on the way to the last of them.

    examined = correctly classified + misclassified; skipped holds (id, reason) of images that cannot be used.
    """

    chosen: ImageSet
    skipped: tuple[tuple[str, str], ...]
    misclassified: int
    examined: int


def select(classify: Callable[[Images], Logits], image_set: ImageSet, n: int, seed: int, batch: int = 16) -> Selection:
    """The first n correctly classified images in an order that is a function of seed and ids alone.

    Fewer than n if there are no more; the batch size changes nothing but speed. Raises UnderfireError if no
    image can be used, none is classified correctly, sizes differ or the classifier has too few classes.
    """
    skipped, chosen, examined = list(image_set.skipped), dict[int, int](), 0
    for i, reported, right in _until_right(classify, image_set, n, seed, batch, skipped):
        examined += 1
        if right:
            chosen[i] = reported
    return Selection(_taken(image_set, chosen), tuple(skipped), examined - len(chosen), examined)


@dataclass(frozen=True)
class Encounter:
    """What `meet` found: images in the order in which they were met, and the class that is reported for each; skipped
    holds (id, reason) of images that cannot be used."""

    chosen: ImageSet
    predicted: Labels
    skipped: tuple[tuple[str, str], ...]

    @property
    def correct(self) -> Flags:
        return self.predicted == self.chosen.labels


def meet(classify: Callable[[Images], Logits], image_set: ImageSet, n: int, seed: int, batch: int = 16) -> Encounter:
    """All images that `select` comes by on its way to the n-th, right or wrong; errors are the same."""
    skipped, met = list(image_set.skipped), dict[int, int]()
    for i, reported, _ in _until_right(classify, image_set, n, seed, batch, skipped):
        met[i] = reported
    return Encounter(_taken(image_set, met), torch.tensor(list(met.values())), tuple(skipped))


def _until_right(
    classify: Callable[[Images], Logits],
    image_set: ImageSet,
    n: int,
    seed: int,
    batch: int,
    skipped: list[tuple[str, str]],
) -> Iterator[tuple[int, int, bool]]:
    """(index, class reported, whether that is right) of what can be used, up to the n-th that is right; the rest
    goes to `skipped`."""
    if n < 1 or batch < 1:
        raise UnderfireError(f"n is {n} and batch is {batch}: both must be 1 or more")
    examined, found = 0, 0
    for i, picture, reported in _verdicts(classify, image_set, _order(image_set.ids, seed), batch):
        if isinstance(picture, UnreadableImage):
            skipped.append((picture.path, picture.reason))
            continue
        if isinstance(picture, UnderfireError):
            raise picture
        examined += 1
        right = reported == int(image_set.labels_of([i], [reported]))
        found += right
        yield i, reported, right
        if found == n:
            return
    if not examined:
        raise _unusable(image_set, skipped)
    if not found:
        raise UnderfireError(
            f"the classifier got none of {counted(examined, 'image')} right: check the normalisation (--normalize), "
            "the class indices (--labels) and the image size (--crop)"
        )


def _taken(image_set: ImageSet, reported: dict[int, int]) -> ImageSet:
    """The images at these places of the set, and the classes that are reported of them."""
    index = list(reported)
    return replace(image_set.take(index), labels=image_set.labels_of(index, list(reported.values())))


@dataclass(frozen=True)
class Predictions:
    """What a classifier reports for all images of a set that can be used; skipped holds (id, reason)."""

    ids: tuple[str, ...]
    labels: Labels
    predicted: Labels
    skipped: tuple[tuple[str, str], ...]


def predict(classify: Callable[[Images], Logits], image_set: ImageSet, batch: int = 16) -> Predictions:
    """The class that is reported for every image, in the order of the set, read `batch` at a time.

    Raises UnderfireError if no image can be used, sizes differ or the classifier has too few classes.
    """
    found, skipped = dict[int, int](), list(image_set.skipped)
    for i, picture, reported in _verdicts(classify, image_set, list(range(len(image_set))), batch):
        if isinstance(picture, UnreadableImage):
            skipped.append((picture.path, picture.reason))
        elif isinstance(picture, UnderfireError):
            raise picture
        else:
            found[i] = reported
    if not found:
        raise _unusable(image_set, skipped)
    ids, index, predicted = tuple(image_set.ids[i] for i in found), list(found), list(found.values())
    return Predictions(ids, image_set.labels_of(index, predicted), torch.tensor(predicted), tuple(skipped))


def locate(image_set: ImageSet, masks: ImageSet, n: int, seed: int) -> LocatedObjects:
    """The first n images whose object is known, whatever a classifier makes of them, in the order of `select`.

    `masks` holds a picture for each image, white where the object is. Raises UnderfireError if none can be used
    or if sizes differ.
    """
    skipped, objects = list(image_set.skipped), dict[int, Bool[Tensor, "h w"]]()
    for i, picture in _pictures(image_set, _order(image_set.ids, seed)):
        found = _object(image_set.ids[i], picture, masks, i) if isinstance(picture, Tensor) else picture
        if isinstance(found, UnreadableImage):
            skipped.append((found.path, found.reason))
            continue
        if isinstance(found, UnderfireError):
            raise found
        objects[i] = found
        if len(objects) == n:
            break
    if not objects:
        raise _unusable(image_set, skipped)
    return LocatedObjects(image_set.take(list(objects)), torch.stack(list(objects.values())), tuple(skipped))


def _object(name: str, picture: Picture, masks: ImageSet, i: int) -> "Bool[Tensor, 'h w'] | UnderfireError":
    try:
        mask = masks.read(i).mean(0) > 0.5
    except UnreadableImage as problem:
        return UnreadableImage(name, f"its mask {problem.path}: {problem.reason}")
    if mask.shape != picture.shape[1:]:
        return UnderfireError(
            f"The object mask of {name} is not the same size as the image; give both one size with --crop."
        )
    return mask if bool(mask.any()) else UnreadableImage(name, "its mask shows no object")


def _unusable(image_set: ImageSet, skipped: list[tuple[str, str]]) -> UnderfireError:
    name, reason = skipped[-1]
    return UnderfireError(f"none of the {counted(len(image_set), 'image')} can be used; the last was {name}: {reason}")


def _order(ids: tuple[str, ...], seed: int) -> list[int]:
    step = torch.zeros(len(ids), dtype=torch.int64)
    draws = uniform(seed, "select", image_keys(ids), step, 1)[:, 0].tolist()
    return sorted(range(len(ids)), key=lambda i: (draws[i], ids[i]))


def _verdicts(
    classify: Callable[[Images], Logits], image_set: ImageSet, order: list[int], batch: int
) -> Iterator[tuple[int, Picture | UnderfireError, int]]:
    """(index, the image or what is wrong with it, the class reported or -1 if it is none), in the order given."""
    pictures, highest = _pictures(image_set, order), int(image_set.labels.max())
    while chunk := list(islice(pictures, batch)):
        readable = [picture for _, picture in chunk if isinstance(picture, Tensor)]
        names = [image_set.ids[i] for i, picture in chunk if isinstance(picture, Tensor)]
        predicted = iter(_predict(classify, torch.stack(readable), names, highest) if readable else [])
        for i, picture in chunk:
            yield i, picture, next(predicted) if isinstance(picture, Tensor) else -1


def _predict(classify: Callable[[Images], Logits], images: Images, names: Sequence[str], highest: int) -> list[int]:
    with torch.no_grad():
        logits = check_logits(classify(images), names)
    if highest >= (known := logits.shape[1]):
        raise UnderfireError(
            f"the labels go up to {highest}, but the classifier knows classes 0 to {known - 1}: "
            "use the labels it was trained with"
        )
    predicted: list[int] = logits.argmax(1).tolist()
    return predicted


def _pictures(image_set: ImageSet, order: list[int]) -> Iterator[tuple[int, Picture | UnderfireError]]:
    first: tuple[str, torch.Size] | None = None
    for i in order:
        try:
            picture = image_set.read(i)
        except UnreadableImage as problem:
            yield i, problem
            continue
        this = image_set.ids[i], picture.shape
        first = first or this
        yield i, picture if picture.shape == first[1] else sizes_differ(first, this)
