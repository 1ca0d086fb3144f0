"""Attacked pictures find the benign ones that they were made of, or a sentence says which does not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data.image_set import ImageSet, open_images
from underfire.data.names import PREDICTED
from underfire.data.pairs import made_of, open_attacked, paired


def folder(root: Path, *names: str, side: int = 4) -> Path:
    for level, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (level, 0, 0)).save(root / name)
    return root


def photos(root: Path) -> ImageSet:
    return open_images(root, PREDICTED)


def npz(path: Path, count: int, **further: object) -> Path:
    images = np.zeros((count, 4, 4, 3), dtype=np.uint8)
    np.savez(path, images=images + np.arange(count, dtype=np.uint8)[:, None, None, None], **further)
    return path


def test_files_are_matched_by_name_whatever_their_ending(tmp_path: Path) -> None:
    benign = photos(folder(tmp_path / "a", "cat/1.jpg", "cat/2.jpg", "dog/1.png", "dog/3.png"))
    theirs = folder(tmp_path / "b", "dog/1.png", "cat/2.png", "cat/1.jpg.png")
    found = paired(benign, open_attacked(theirs, benign))
    assert found.ids == ("cat/1.jpg", "cat/2.jpg", "dog/1.png")
    assert [round(255 * found.read(i)[0, 0, 0].item()) for i in range(3)] == [2, 1, 0]


def test_arrays_are_matched_by_place(tmp_path: Path) -> None:
    benign = photos(npz(tmp_path / "a.npz", 5))
    found = paired(benign, open_attacked(npz(tmp_path / "b.npz", 5), benign))
    assert found.ids == benign.ids
    found = paired(benign, open_attacked(npz(tmp_path / "c.npz", 2, index=[4, 1]), benign))
    assert found.ids == ("1", "4")
    assert [round(255 * found.read(i)[0, 0, 0].item()) for i in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (("cat/1.png", "cow/1.png"), "The attacked image cow/1.png has no benign one of its name"),
        (("cat/1.png", "cat/1.webp"), "The attacked images cat/1.png and cat/1.webp are both made of cat/1.jpg"),
        (("dog/1.webp",), "dog/1.webp may be made of dog/1.jpg or of dog/1.png"),
    ],
)
def test_what_does_not_match_is_named(tmp_path: Path, theirs: tuple[str, ...], sentence: str) -> None:
    benign = photos(folder(tmp_path / "a", "cat/1.jpg", "dog/1.jpg", "dog/1.png"))
    with pytest.raises(UnderfireError, match=sentence):
        paired(benign, open_attacked(folder(tmp_path / "b", *theirs), benign))


@pytest.mark.parametrize(
    ("further", "sentence"),
    [
        ({}, "holds 2 images, and there are 5 benign ones"),
        ({"index": [1, 1]}, "must be 2 different integers"),
        ({"index": [0, 5]}, "names 5, but benign images go from 0 to 4"),
    ],
)
def test_arrays_that_do_not_match(tmp_path: Path, further: dict[str, object], sentence: str) -> None:
    benign = photos(npz(tmp_path / "a.npz", 5))
    with pytest.raises(UnderfireError, match=sentence):
        open_attacked(npz(tmp_path / "b.npz", 2, **further), benign)


def test_arrays_have_no_names_for_files(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="have no names, and the benign ones are files"):
        open_attacked(npz(tmp_path / "b.npz", 1), photos(folder(tmp_path / "a", "1.png")))


def test_sizes_must_be_equal(tmp_path: Path) -> None:
    benign = photos(folder(tmp_path / "a", "1.png"))
    theirs = open_attacked(folder(tmp_path / "b", "1.png", side=6), benign)
    with pytest.raises(UnderfireError, match=r"1\.png has 4×4 pixels benign and 6×6 attacked"):
        made_of(benign, paired(benign, theirs))
