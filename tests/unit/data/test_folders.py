"""Folders as people have them: whatever is odd in one is listed with its reason, and no part of it is a class."""

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data import folders
from underfire.data.folders import images_below, split_folders
from underfire.data.image_set import open_images


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of one image each."""
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "dog" / "b.png")
    return tmp_path


@pytest.mark.parametrize("name", [".cache", "__MACOSX", "@eaDir", ".ipynb_checkpoints"])
def test_what_programs_leave_behind_is_no_class(photos: Path, name: str) -> None:
    save(photos / name / "a.png")
    save(photos / "cat" / name / "a.png")
    save(photos / "cat" / "._a.png")
    (photos / "empty").mkdir()
    images = open_images(photos)
    assert images.ids == ("cat/a.png", "dog/b.png")
    assert images.classes == ("cat", "dog")
    assert images.skipped == ()


def test_what_is_passed_over_is_counted(photos: Path) -> None:
    for name in ("cat/1.heic", "dog/2.heic", "cat/notes.txt", "README"):
        (photos / name).touch()
    save(photos / "lost.png")
    save(photos / "found.png")
    assert open_images(photos).skipped == (
        ("*", "passed over by their ending, which is none of an image: 1"),
        ("*.heic", "passed over by their ending, which is none of an image: 2"),
        ("*.txt", "passed over by their ending, which is none of an image: 1"),
        ("found.png", "2 images like this one lie in no class's folder"),
    )


@pytest.mark.parametrize("ending", ["gif", "jfif", "PGM", "Jpeg", "pbm"])
def test_endings_of_images(tmp_path: Path, ending: str) -> None:
    (tmp_path / "class").mkdir()
    image = Image.new("1" if ending == "pbm" else "L", (4, 4))
    with (tmp_path / "class" / f"a.{ending}").open("wb") as file:
        image.save(file, format={"gif": "GIF", "PGM": "PPM", "pbm": "PPM"}.get(ending, "JPEG"))
    assert open_images(tmp_path).read(0).shape == (3, 4, 4)


def test_links_are_followed_and_odd_ones_listed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "c.png")
    (photos / "emu").symlink_to(elsewhere)
    (photos / "dog" / "gone.png").symlink_to(photos / "nothing")
    (photos / "dog" / "self.png").symlink_to(photos / "dog" / "self.png")
    (photos / "cat" / "up").symlink_to(photos)
    (photos / "twin").symlink_to(photos / "dog")
    images = open_images(photos)
    assert images.ids == ("cat/a.png", "dog/b.png", "emu/c.png")
    skipped = dict(images.skipped)
    assert skipped["dog/gone.png"] == "a link to a file that is missing"
    assert skipped["dog/self.png"].startswith("the file cannot be opened: Too many levels")
    assert skipped["cat/up/"] == "a link to the folder ., which is read already"
    assert skipped["twin/"] == "a link to the folder dog, which is read already"


def test_equal_names_and_linked_files_are_images_of_their_own(photos: Path) -> None:
    save(photos / "dog" / "a.png")
    save(photos / "dog" / "a.jpg")
    (photos / "cat" / "again.png").symlink_to(photos / "cat" / "a.png")
    images = open_images(photos)
    assert images.ids == ("cat/a.png", "cat/again.png", "dog/a.jpg", "dog/a.png", "dog/b.png")


def test_special_files_are_listed_and_not_opened(photos: Path) -> None:
    os.mkfifo(photos / "cat" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(photos / "cat" / "socket.jpg"))
    (photos / "cat" / "folder.png").mkdir()
    images = open_images(photos)
    assert len(images) == 2
    assert dict(images.skipped) == dict.fromkeys(("cat/pipe.png", "cat/socket.jpg"), "it is not a regular file")
    (photos / "labels.csv").write_text("file,class_index\ncat/a.png,0\ncat/pipe.png,0\n")
    assert open_images(photos).skipped == (("cat/pipe.png", "it is not a regular file"),)


def test_names_that_are_not_utf8(photos: Path) -> None:
    save(photos / "cat" / "c.png")
    os.rename(os.fsencode(photos / "cat" / "c.png"), os.fsencode(photos / "cat") + b"/caf\xe9.png")
    images = open_images(photos)
    assert images.ids == ("cat/a.png", "dog/b.png")
    assert images.skipped == (("cat/caf\\xe9.png", "its name is not UTF-8; rename it"),)


def test_huge_files_are_not_read(photos: Path) -> None:
    with (photos / "cat" / "huge.png").open("wb") as file:
        file.truncate(3 << 30)
    assert open_images(photos).skipped == (
        ("cat/huge.png", "its 3.0 GiB are more than the 1 GiB that an image may have"),
    )


def test_a_folder_that_cannot_be_read_is_listed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def scan(path: Path) -> object:
        if path.name == "cat":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", scan)
    images = open_images(photos)
    assert images.ids == ("dog/b.png",)
    assert images.skipped == (("cat/", "the folder cannot be read: Permission denied"),)


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    for name in ("benign (1).png", "benign (1)_mask.png", "benign (1)_mask_1.png", "gas_mask.png"):
        save(tmp_path / "benign" / name)
    images = open_images(tmp_path)
    assert images.ids == ("benign/benign (1).png", "benign/gas_mask.png")
    assert {reason for _, reason in images.skipped} == {"it is the mask of an image beside it"}


def test_deep_folders_end(tmp_path: Path) -> None:
    save(tmp_path / Path(*"d" * 400) / "a.png")
    assert len(images_below(tmp_path).images) == 1


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train/cat/a.png", "val/cat/b.png"), {"train": "train", "val": "val"}),
        (("Training/a/1.png", "Testing/b/2.png"), {"Training": "train", "Testing": "test"}),
        (("train/a/1.png", "valid/a/1.png", "notes/1.png"), {"train": "train", "valid": "val"}),
        (("train/a/1.png",), {"train": "train"}),
        (("train/a/1.png", "other/b.png"), {"train": "train"}),
        (("bus/1.png", "car/1.png", "train/1.png"), {}),
        (("cat/train/1.png", "dog/val/1.png"), {}),
    ],
)
def test_folders_that_are_parts(names: tuple[str, ...], parts: dict[str, str]) -> None:
    assert split_folders(names) == parts


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """A class that one of the parts lacks."""
    for name in ("train/ant/1.png", "train/bee/2.png", "validation/bee/3.png", "validation/cow/4.png"):
        save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", ["val", "validation"])
def test_a_part_is_chosen_and_its_classes_are_those_of_all(parted: Path, name: str) -> None:
    images = open_images(parted, split=name)
    assert images.ids == ("validation/bee/3.png", "validation/cow/4.png")
    assert images.classes == ("ant", "bee", "cow")
    assert images.labels.tolist() == [1, 2]


def test_parts_are_never_classes(parted: Path) -> None:
    with pytest.raises(UnderfireError, match="is split into train, validation: say which part with --split"):
        open_images(parted)
    with pytest.raises(UnderfireError, match="is split into train, validation, of which 0 are 'test'"):
        open_images(parted, split="test")
    save(parted / "test" / "a.png")
    with pytest.raises(UnderfireError, match=r"test has no subfolders with images: make one subfolder per class"):
        open_images(parted, split="test")
