"""The images of a training, held in memory in 8 bits: read, split, looked at in batches, moved at random.

training_set = read_training_set(open_images("photos", crop=224))
fitted, judged = split(training_set.ids, held_out=0.1, seed=0)
batch = augmented(training_set.batch(fitted[:32], device), step=0, seed=0)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys, uniform
from underfire.core.text import counted
from underfire.core.types import Images, Keys, Labels
from underfire.data.image_set import ImageSet, UnreadableImage
from underfire.data.scenes import scenes

MOST_HELD_OUT = 400  # images
SHIFT = 0.1  # largest shift of a training image, in image sides
DEMO_SEED, DEMO_SCENES = 9004, 4000  # the scenes on which the demo's masker is trained

Objects = Bool[Tensor, "n h w"]  # the pixels of each image's object


@dataclass(frozen=True)
class Batch:
    """Images with the keys of their random numbers; step is None where they are looked at as they are."""

    images: Images
    keys: Keys
    objects: Objects | None = None
    step: int | None = None


@dataclass(frozen=True)
class TrainingSet:
    """N images of one size, and where known the pixels of their objects; `skipped` holds (id, reason)."""

    ids: tuple[str, ...]
    pixels: UInt8[Tensor, "n 3 h w"]
    objects: Objects | None
    digest: str
    skipped: tuple[tuple[str, str], ...] = ()

    def batch(self, index: Labels, device: torch.device) -> Batch:
        """Images as they are."""
        keys = image_keys(self.ids[i] for i in index.tolist()).to(device)
        objects = None if self.objects is None else self.objects[index].to(device)
        return Batch(self.pixels[index].to(device).float() / 255, keys, objects)

    def batches(self, index: Labels, size: int, device: torch.device) -> Iterator[Batch]:
        """Images as they are, `size` at a time."""
        return (self.batch(chosen, device) for chosen in torch.split(index, size))


def read_training_set(
    image_set: ImageSet, objects: ImageSet | None = None, on_image: Callable[[int], None] = lambda count: None
) -> TrainingSet:
    """All readable images of a set; `objects` holds a picture for each, white where the object is.

    UnderfireError if sizes differ or fewer than two images can be used.
    """
    pixels = list[Tensor]()
    masks, ids, skipped = list[Tensor](), list[str](), list(image_set.skipped)
    for i, name in enumerate(image_set.ids):
        try:
            picture = image_set.read(i)
            mask = picture[0] > 2 if objects is None else objects.read(i).mean(0) > 0.5
        except UnreadableImage as problem:
            skipped.append((problem.path, problem.reason))
            continue
        _check_sizes(name, picture, mask, pixels)
        pixels.append((picture * 255).round().byte())
        masks.append(mask)
        ids.append(name)
        on_image(i + 1)
    if len(ids) < 2:
        raise UnderfireError(
            f"{len(ids)} of {counted(len(image_set), 'image')} can be used; a training needs two or more."
        )
    digest = image_set.digest if objects is None else f"{image_set.digest} {objects.digest}"
    known = None if objects is None else torch.stack(masks)
    return TrainingSet(tuple(ids), torch.stack(pixels), known, digest, tuple(skipped))


def demo_training_set(count: int = DEMO_SCENES) -> TrainingSet:
    """Fresh scenes with their masks: neither those of the demo nor those on which its classifier was trained."""
    painted = scenes(count, DEMO_SEED)
    pixels = (painted.samples.images * 255).round().byte()
    return TrainingSet(painted.samples.ids, pixels, painted.masks, f"{count} scenes of seed {DEMO_SEED}")


def split(ids: tuple[str, ...], held_out: float, seed: int) -> tuple[Int[Tensor, " fitted"], Int[Tensor, " judged"]]:
    """Indices to train on and indices held out, each image's side drawn from the seed and its id."""
    keys = image_keys(ids)
    order = uniform(seed, "held out", keys, torch.zeros_like(keys), 1)[:, 0].argsort()
    count = max(1, min(MOST_HELD_OUT, round(held_out * len(ids))))
    return order[count:], order[:count]


def augmented(batch: Batch, step: int, seed: int) -> Batch:
    """Mirrored or not, and shifted by up to a tenth of the side with mirrored edges, drawn per image and step."""
    x, keys, steps = batch.images, batch.keys, torch.full_like(batch.keys, step)
    mirrored = uniform(seed, "mirror", keys, steps, 1) < 0.5
    shift = (2 * uniform(seed, "shift", keys, steps, 2) - 1) * SHIFT
    rows, columns = (_moved(side, s * side) for s, side in zip(shift.T, x.shape[2:], strict=True))
    columns = torch.where(mirrored, columns.flip(1), columns)
    image, channel = torch.arange(len(x), device=x.device), torch.arange(3, device=x.device)
    moved = x[image[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]
    return Batch(moved, keys, step=step)


def _moved(side: int, shift: Tensor) -> Int[Tensor, "n side"]:
    """For each image which of its lines stand where, mirrored beyond the first and the last."""
    place = torch.arange(side, device=shift.device) + shift.round().long()[:, None]
    return (side - 1) - ((side - 1) - place.abs()).abs()


def _check_sizes(name: str, picture: Tensor, mask: Tensor, before: list[Tensor]) -> None:
    if before and picture.shape != before[0].shape:
        raise UnderfireError(f"{name} is not the same size as the images before it: give all one size with --crop.")
    if mask.shape != picture.shape[1:]:
        raise UnderfireError(f"The object mask of {name} is not the same size as the image.")
