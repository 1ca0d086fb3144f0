"""Tensors, DataLoaders and datasets of torchvision or Hugging Face as images in [0, 1].

    images = all_images(loader)                         # N3HW, where a tensor is taken
    photos = image_set_of(dataset)                      # an ImageSet that reads an image when it is asked for it

An item, or a batch, is (image, label), a mapping that holds both, or the image alone; images are PIL's, tensors in
[0, 1] or of 8 bits, arrays of 8 bits. What a DataLoader gives is all read at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import check_images
from underfire.core.types import Labels
from underfire.data.decode import Picture, TensorSource
from underfire.data.image_set import ImageSet
from underfire.data.names import PREDICTED

IMAGE = ("image", "img", "images", "pixel_values")  # what datasets call them
LABEL = ("label", "labels", "fine_label", "target", "targets")


@dataclass(frozen=True)
class DatasetSource:
    """Images of a dataset by their places; only the content of those that are asked for is looked at."""

    dataset: Any
    places: tuple[int, ...]

    def take(self, index: Sequence[int]) -> "DatasetSource":
        return DatasetSource(self.dataset, tuple(self.places[i] for i in index))

    def pixels(self, i: int) -> Picture:
        return _picture(_parts(self.dataset[self.places[i]])[0])

    def fingerprint(self, i: int) -> bytes:
        return b""

    def content(self, i: int) -> bytes:
        """The pixels."""
        pixels: bytes = self.pixels(i).numpy().tobytes()
        return pixels


def is_dataset(images: object) -> bool:
    """Whether it is a DataLoader or a dataset of torch, torchvision or Hugging Face."""
    return isinstance(images, DataLoader | Dataset) or hasattr(images, "column_names")


def all_images(images: Any) -> Any:
    """The images of a DataLoader or dataset in one tensor; anything else as it is."""
    if not is_dataset(images):
        return images
    found = [picture for picture, _ in _items(images)]
    sizes = list(dict.fromkeys(tuple(each.shape) for each in found))
    if len(sizes) != 1:
        many = " and ".join(f"{width}×{height}" for _, height, width in sizes[:2])
        raise UnderfireError(f"The images of the {_kind(images)} have {many or 'no'} pixels; give all one size.")
    return torch.stack(found)


def image_set_of(images: Any, labels: Any = None) -> ImageSet:
    """Images with labels: those of the dataset unless others are given; "predicted" where the model is to tell.

    UnderfireError if there are no labels, or not one for each image.
    """
    unlabelled = isinstance(labels, str) and labels == PREDICTED
    if is_dataset(images) and not isinstance(images, DataLoader) and hasattr(images, "__len__"):
        source: Any = DatasetSource(images, tuple(range(len(images))))
        count, found = len(images), None if unlabelled or labels is not None else _labels_of(images)
    elif is_dataset(images):
        pairs = list(_items(images))
        source = TensorSource(check_images(torch.stack([picture for picture, _ in pairs])))
        count, found = len(pairs), [label for _, label in pairs]
    else:
        source = TensorSource(check_images(images).detach().float().cpu())
        count, found = len(images), None
    given = torch.zeros(count, dtype=torch.int64) if unlabelled else _check(found if labels is None else labels, count)
    names = _class_names(images, given)
    image_set = ImageSet(tuple(map(str, range(count))), given, names, source)
    return replace(image_set.unlabelled(), classes=()) if unlabelled else image_set


def _items(images: Any) -> Iterator[tuple[Picture, Any]]:
    """Every picture with its label, None where it has none, of batches or single items."""
    for item in images if isinstance(images, DataLoader) or not hasattr(images, "__len__") else _each(images):
        image, label = _parts(item)
        if isinstance(images, DataLoader):
            if not isinstance(image, Tensor) or image.ndim != 4:
                raise UnderfireError(
                    "Batches of a DataLoader must hold images in a tensor N3HW, with or without labels."
                )
            labels = [None] * len(image) if label is None else list(label)
            yield from zip(map(_picture, image), labels, strict=True)
        else:
            yield _picture(image), label


def _each(dataset: Any) -> Iterator[Any]:
    return (dataset[i] for i in range(len(dataset)))


def _parts(item: Any) -> tuple[Any, Any]:
    """The image and the label of an item."""
    if isinstance(item, Mapping):
        image, label = (next((item[name] for name in names if name in item), None) for names in (IMAGE, LABEL))
        if image is None:
            raise UnderfireError(f"An item has {', '.join(map(str, item))} and no image; call it image.")
        return image, label
    if isinstance(item, tuple | list):
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def _picture(image: Any) -> Picture:
    """One image as floats in [0, 1], grey in three channels; UnderfireError if it is none."""
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3:
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        kind = tuple(image.shape) if isinstance(image, Tensor | np.ndarray) else type(image).__name__
        raise UnderfireError(f"An image must be PIL's, a tensor 3HW or an array HW3 of 8 bits, not {kind}.")
    values = image.float() / 255 if image.dtype == torch.uint8 else image.detach().float()
    return check_images(values.expand(3, -1, -1)[None].cpu())[0]


def _labels_of(dataset: Any) -> Any:
    """All labels of a dataset, without its images where it keeps them apart."""
    for name in ("targets", "labels"):
        if isinstance(found := getattr(dataset, name, None), Sequence | Tensor | np.ndarray):
            return found
    columns = getattr(dataset, "column_names", ())
    if names := [name for name in LABEL if name in columns]:
        return dataset[names[0]]
    return [_parts(item)[1] for item in _each(dataset)]


def _check(labels: Any, count: int) -> Labels:
    """As many class indices as images."""
    try:
        given = labels if isinstance(labels, Tensor) else torch.tensor([int(each) for each in labels])
    except (TypeError, ValueError):
        raise UnderfireError(
            "The images have no labels; give labels=, a class index for each, or labels='predicted' to take what the "
            "model reports for true."
        ) from None
    if given.shape != (count,) or given.is_floating_point() or bool((given < 0).any()):
        raise UnderfireError(
            f"Give one class index of 0 or more per image: {count} images, labels {tuple(given.shape)}."
        )
    return given.detach().long().cpu()


def _class_names(images: Any, labels: Labels) -> tuple[str, ...]:
    """What the dataset calls its classes, else their numbers."""
    count, named = int(labels.max()) + 1, getattr(images, "classes", None)
    features = getattr(images, "features", None)
    if isinstance(features, Mapping):
        named = next((getattr(features[name], "names", None) for name in LABEL if name in features), None)
    names = tuple(map(str, named)) if isinstance(named, Sequence) else ()
    return names if len(names) >= count else tuple(map(str, range(count)))


def _kind(images: Any) -> str:
    return "DataLoader" if isinstance(images, DataLoader) else "dataset"
