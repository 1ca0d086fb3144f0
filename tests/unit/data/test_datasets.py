"""Loaders and datasets as people have them are images with labels, read when they are asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import FakeData
from torchvision.transforms.v2.functional import pil_to_tensor

from underfire.core.errors import UnderfireError
from underfire.data.datasets import all_images, image_set_of
from underfire.data.image_set import UNKNOWN, Numbering

X = torch.arange(4 * 3 * 2 * 2).view(4, 3, 2, 2) / 255
Y = torch.tensor([2, 0, 1, 2])


class Column:
    """A dataset of Hugging Face, as far as it is asked: columns, features, items that are mappings."""

    column_names = ("image", "label")
    features = {"label": type("ClassLabel", (), {"names": ["ant", "bee", "cow"]})(), "image": None}  # noqa: RUF012

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: int | str) -> Any:
        if key == "label":
            return Y.tolist()
        assert isinstance(key, int)
        return {"image": Image.fromarray((255 * X[key]).round().byte().permute(1, 2, 0).numpy()), "label": int(Y[key])}


class Named(Dataset[tuple[Tensor, int]]):
    """A dataset of torchvision: labels and names beside the items, which are read one at a time."""

    classes = ("ant", "bee", "cow")
    targets = Y.tolist()

    def __init__(self) -> None:
        self.read = list[int]()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        self.read.append(i)
        return X[i], int(Y[i])


@pytest.mark.parametrize(
    "images",
    [
        DataLoader(TensorDataset(X, Y), batch_size=3),
        DataLoader(TensorDataset((255 * X).round().byte(), Y), batch_size=3),
        TensorDataset(X, Y),
        Subset(TensorDataset(X.repeat(2, 1, 1, 1), Y.repeat(2)), range(4, 8)),
        Column(),
        Named(),
    ],
    ids=lambda images: type(images).__name__,
)
def test_images_and_labels_are_found(images: Any) -> None:
    found = image_set_of(images)
    assert found.ids == ("0", "1", "2", "3")
    assert found.labels.tolist() == Y.tolist()
    assert found.classes == (("ant", "bee", "cow") if isinstance(images, Column | Named) else ("0", "1", "2"))
    torch.testing.assert_close(torch.stack([found.read(i) for i in range(4)]), X)
    torch.testing.assert_close(found.take([2, 0]).read(0), X[2])
    torch.testing.assert_close(all_images(images), X)
    assert image_set_of(images, labels=[0, 0, 0, 1]).labels.tolist() == [0, 0, 0, 1]
    assert image_set_of(images, "predicted").labels.tolist() == [UNKNOWN] * 4


def test_only_the_images_that_are_needed_are_read() -> None:
    named = Named()
    found = image_set_of(named)
    assert found.digest == image_set_of(named).digest
    found.read(2)
    assert named.read == [2]


def test_pictures_of_torchvision_and_grey_ones() -> None:
    fake = FakeData(3, (3, 5, 4), 7)
    assert torch.equal(image_set_of(fake).read(1), pil_to_tensor(fake[1][0]) / 255)
    grey = DataLoader(TensorDataset(X[:, :1]), batch_size=2)
    assert torch.equal(all_images(grey), X[:, :1].expand(-1, 3, -1, -1))
    found = image_set_of(X, "predicted")
    assert (found.numbering, found.classes) == (Numbering.PREDICTED, ())


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (X, None, "The images have no labels; give labels="),
        (X, [0, 1], r"4 images, labels \(2,\)"),
        (X, torch.zeros(4), "one class index of 0 or more"),
        (DataLoader(TensorDataset(X - 1, Y)), None, "must lie in"),
        (DataLoader(TensorDataset(X), batch_size=2), None, "have no labels"),
        (DataLoader(TensorDataset(X[0], Y[:3])), None, "must hold images in a tensor N3HW"),
    ],
)
def test_what_is_no_labelled_image(images: Any, labels: Any, sentence: str) -> None:
    with pytest.raises(UnderfireError, match=sentence):
        image_set_of(images, labels)


def test_sizes_that_differ_make_no_tensor() -> None:
    sizes = [np.zeros((2, 2, 3), dtype=np.uint8), np.zeros((2, 4, 3), dtype=np.uint8)]
    many: Any = Subset(sizes, [0, 1])  # type: ignore[arg-type]
    with pytest.raises(UnderfireError, match="have 2×2 and 4×2 pixels"):
        all_images(many)
