"""Images of which nobody says what they show: what a classifier reports of them is taken for true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from underfire.attacks.target_classes import OneClass
from underfire.core.errors import UnderfireError
from underfire.data.image_set import UNKNOWN, Numbering, open_images
from underfire.data.names import PREDICTED
from underfire.data.selection import meet, predict, select


def save(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (level, level, level)).save(path)


def classify(images: Tensor) -> Tensor:
    """The class is the grey level modulo 4."""
    level = (images[:, 0, 0, 0] * 255).round().long()
    return torch.nn.functional.one_hot(level % 4, 4).float() * 9


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images in a folder, some of them deeper."""
    for i in range(12):
        save(tmp_path / ("deep" if i % 3 else ".") / f"{i}.png", level=i)
    return tmp_path


def test_all_images_below_a_folder_are_taken_whatever_folders_and_tables_say(photos: Path) -> None:
    (photos / "labels.csv").write_text("file,class_index\n0.png,3\n")
    save(photos / "deep" / "1_mask.png")
    images = open_images(photos, PREDICTED)
    assert len(images) == 12
    assert images.labels.tolist() == [UNKNOWN] * 12
    assert images.numbering is Numbering.PREDICTED
    assert dict(images.skipped)["deep/1_mask.png"] == "it is the mask of an image beside it"
    assert "*.csv" in dict(images.skipped)


def test_they_are_chosen_like_images_that_are_labelled_by_their_predictions(photos: Path) -> None:
    images = open_images(photos, PREDICTED)
    labelled = replace(images, labels=predict(classify, images).predicted, numbering=Numbering.STATED)
    found, expected = select(classify, images, 5, seed=1), select(classify, labelled, 5, seed=1)
    assert found.chosen.ids == expected.chosen.ids
    assert found.chosen.labels.tolist() == expected.chosen.labels.tolist()
    assert (found.examined, found.misclassified) == (5, 0)
    assert bool(meet(classify, images, 7, seed=1).correct.all())
    assert predict(classify, images).labels.tolist() == predict(classify, images).predicted.tolist()


def test_an_npz_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.arange(3 * 6 * 6 * 3, dtype=np.uint8).reshape(3, 6, 6, 3))
    images = open_images(tmp_path / "a.npz", PREDICTED)
    assert images.ids == ("0", "1", "2")
    assert images.labels.tolist() == [UNKNOWN] * 3
    np.savez(tmp_path / "b.npz", pictures=np.zeros(3))
    with pytest.raises(UnderfireError, match="must hold an array images"):
        open_images(tmp_path / "b.npz", PREDICTED)


def test_parts_are_told_by_folders_or_drawn(photos: Path) -> None:
    drawn = [open_images(photos, PREDICTED, split=name).ids for name in ("train", "test")]
    assert sorted(drawn[0] + drawn[1]) == sorted(open_images(photos, PREDICTED).ids)
    for name in ("train", "val"):
        save(photos / "parts" / name / "x.png")
    assert open_images(photos / "parts", PREDICTED, split="val").ids == ("val/x.png",)


def test_what_needs_labels_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="target class 2 already is not known"):
        OneClass(2).candidates(open_images(photos, PREDICTED))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnderfireError, match="holds no images"):
        open_images(tmp_path / "empty", PREDICTED)
