"""The three layouts of labelled images, how they are read, and the seeded selection."""

import csv
import pickle
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from underfire.core.errors import UnderfireError
from underfire.data.image_set import ImageSet, UnreadableImage, object_masks, open_images
from underfire.data.selection import locate, meet, predict, select


def save(path: Path, level: int = 0, width: int = 6, height: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (level, level, level)).save(path)


def write_table(path: Path, rows: Iterable[Iterable[object]], header: str = "file,class_index") -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Twenty images whose grey level and class are their number modulo 4; classes 0 to 3 are all there."""
    for i in range(20):
        save(tmp_path / f"{i}.png", level=i % 4)
    write_table(tmp_path / "labels.csv", [(f"{i}.png", i % 4) for i in range(20)])
    return tmp_path


def by_level(*known: int, classes: int = 4) -> Callable[[Tensor], Tensor]:
    """A classifier that reads the class off the grey level and is wrong on classes that it does not know."""

    def classify(images: Tensor) -> Tensor:
        level = (images[:, 0, 0, 0] * 255).round().long()
        right = torch.isin(level, torch.tensor(known))
        return torch.nn.functional.one_hot(torch.where(right, level, (level + 1) % 4), classes).float() * 9

    return classify


def test_folders_by_class(tmp_path: Path) -> None:
    for name in ("dog/2.png", "dog/1.JPEG", "cat/deep/3.png"):
        save(tmp_path / name)
    (tmp_path / "ant").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images = open_images(tmp_path)
    assert images.ids == ("cat/deep/3.png", "dog/1.JPEG", "dog/2.png")
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.labels.dtype == torch.int64
    assert images.read(0).shape == (3, 6, 6)


def test_table_beside_the_images_is_found(flat: Path) -> None:
    save(flat / "unlisted.png")
    images = open_images(str(flat))
    assert len(images) == 20
    assert "unlisted.png" not in images.ids
    assert images.labels.tolist() == [i % 4 for i in range(20)]
    assert images.classes == ("0", "1", "2", "3")


def test_table_elsewhere_with_names_other_columns_and_missing_files(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "images" / "sub" / "b.png")
    rows = [("x", "./a.png", 2, "cat, small"), ("y", "gone.png", 3, "dog"), ("z", "sub/b.png", " 0 ", "")]
    write_table(tmp_path / "t.csv", rows, header="split,file,class_index,class_name")
    images = open_images(tmp_path / "images", labels=tmp_path / "t.csv")
    assert images.ids == ("a.png", "sub/b.png")
    assert images.labels.tolist() == [2, 0]
    assert images.classes == ("0", "1", "cat, small", "dog")
    assert images.skipped == (("gone.png", "the file is missing"),)


def test_table_with_a_byte_order_mark(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,1\n", encoding="utf-8-sig")
    assert open_images(tmp_path).labels.tolist() == [1]


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_npz(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([2, 0, 2], dtype=dtype))
    images = open_images(tmp_path / "a.npz")
    assert images.ids == ("0", "1", "2")
    assert images.classes == ("0", "1", "2")
    assert images.labels.tolist() == [2, 0, 2]
    assert torch.equal(images.read(1), torch.from_numpy(pixels[1]).permute(2, 0, 1) / 255)


def test_resize_sets_the_short_side_and_crop_takes_the_centre(tmp_path: Path) -> None:
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 12, 0).repeat(3, 2)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    write_table(tmp_path / "labels.csv", [("a.png", 0)])
    whole, resized = open_images(tmp_path).read(0), open_images(tmp_path, resize=6).read(0)
    assert whole.shape == (3, 12, 24)
    assert resized.shape == (3, 6, 12)
    assert torch.equal(open_images(tmp_path, crop=8).read(0), whole[:, 2:10, 8:16])
    assert torch.equal(open_images(tmp_path, crop=4, resize=6).read(0), resized[:, 1:5, 4:8])
    expected = F.resize(whole, [6, 12], F.InterpolationMode.BILINEAR, antialias=True)
    assert torch.allclose(resized, expected, rtol=0, atol=1e-6)


def test_resized_images_stay_within_range(tmp_path: Path) -> None:
    save(tmp_path / "white" / "a.png", level=255, width=15, height=15)
    white = open_images(tmp_path).read(0)
    assert F.resize(white, [7], F.InterpolationMode.BILINEAR, antialias=True).max() > 1
    assert open_images(tmp_path, resize=7).read(0).max() == 1


def damaged_set(folder: Path) -> ImageSet:
    save(folder / "good.png", width=20, height=10)
    save(folder / "small.png", width=20, height=9)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:2000])
    (folder / "text.png").write_text("this is no image")
    (folder / "empty.png").touch()
    names = ["good.png", "small.png", "cut.jpg", "text.png", "empty.png"]
    write_table(folder / "labels.csv", [(name, 0) for name in names])
    return open_images(folder, crop=10)


@pytest.mark.parametrize(
    ("i", "name", "reason"),
    [
        (1, "small.png", r"its 20×9 pixels are fewer than the crop of 10×10"),
        (2, "cut.jpg", "truncated"),
        (3, "text.png", "cannot identify"),
        (4, "empty.png", "cannot identify"),
    ],
)
def test_unreadable_images(tmp_path: Path, i: int, name: str, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=f"image {name} cannot be used: .*{reason}") as caught:
        damaged_set(tmp_path).read(i)
    assert caught.value.path == name
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_decompression_bomb_is_an_unreadable_image(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        open_images(flat).read(0)


def test_digest_changes_with_whatever_the_run_depends_on(flat: Path) -> None:
    digest = open_images(flat).digest
    assert open_images(flat).digest == digest
    others = [open_images(flat, crop=4).digest, open_images(flat, resize=4).digest]
    save(flat / "3.png", width=60, height=60)
    others.append(open_images(flat).digest)
    write_table(flat / "labels.csv", [(f"{i}.png", 0) for i in range(20)])
    others.append(open_images(flat).digest)
    write_table(flat / "labels.csv", [(f"{i}.png", 0) for i in range(19)])
    others.append(open_images(flat).digest)
    assert len({digest, *others}) == 6


def test_digest_of_an_array_sees_its_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.zeros(2, dtype=int))
    pixels[1, 2, 3, 0] = 1
    np.savez(tmp_path / "b.npz", images=pixels, labels=np.zeros(2, dtype=int))
    assert open_images(tmp_path / "a.npz").digest != open_images(tmp_path / "b.npz").digest


def test_selection_finds_correctly_classified_images_only(flat: Path) -> None:
    images = open_images(flat)
    found = select(by_level(1, 3), images, n=6, seed=0)
    assert len(set(found.chosen.ids)) == 6
    assert set(found.chosen.labels.tolist()) <= {1, 3}
    assert found.examined == found.misclassified + 6
    read = found.chosen.samples()
    for name, image, label in zip(read.ids, read.images, read.labels, strict=True):
        assert torch.equal(image, images.read(images.ids.index(name)))
        assert label == images.labels[images.ids.index(name)]


@pytest.mark.parametrize("choose", [select, meet])
def test_what_is_chosen_does_not_stay_in_memory(
    flat: Path, choose: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twenty images two are classified at a time."""
    alive, most = weakref.WeakSet[Tensor](), 0
    read = ImageSet.read

    def watched(images: ImageSet, i: int) -> Tensor:
        nonlocal most
        picture = read(images, i)
        alive.add(picture)
        most = max(most, len(alive))
        return picture

    monkeypatch.setattr(ImageSet, "read", watched)
    choose(by_level(0, 1, 2, 3), open_images(flat), n=20, seed=0, batch=2)
    assert 2 <= most <= 2 * 2, "a batch, and what is left of the one before"


def test_selection_does_not_depend_on_batch_size_or_file_order(flat: Path) -> None:
    def summary(batch: int) -> tuple[object, ...]:
        found = select(by_level(0, 2), open_images(flat), n=5, seed=3, batch=batch)
        return found.chosen.ids, found.skipped, found.misclassified, found.examined

    (flat / "7.png").write_text("damaged")
    (flat / "8.png").write_text("damaged")
    reference = summary(batch=1)
    assert [summary(batch) for batch in (2, 3, 7, 100)] == [reference] * 4
    write_table(flat / "labels.csv", [(f"{i}.png", i % 4) for i in reversed(range(20))])
    assert summary(batch=4) == reference


def test_selection_keeps_its_order_when_other_images_are_added(flat: Path) -> None:
    before = select(by_level(0, 1, 2, 3), open_images(flat), n=20, seed=0).chosen.ids
    write_table(flat / "labels.csv", [(f"{i}.png", i % 4) for i in range(10)])
    after = select(by_level(0, 1, 2, 3), open_images(flat), n=20, seed=0).chosen.ids
    assert after == tuple(name for name in before if name in after)
    assert len(after) == 10


def test_selection_depends_on_the_seed(flat: Path) -> None:
    orders = {select(by_level(0, 1, 2, 3), open_images(flat), n=20, seed=s).chosen.ids for s in range(5)}
    assert len(orders) == 5


def test_selection_returns_what_there_is_and_what_it_skipped(flat: Path) -> None:
    (flat / "4.png").write_text("damaged")
    (flat / "8.png").unlink()
    found = select(by_level(0), open_images(flat), n=10, seed=0)
    assert sorted(found.chosen.ids) == ["0.png", "12.png", "16.png"]
    assert (found.examined, found.misclassified) == (18, 15)
    assert [name for name, _ in found.skipped] == ["8.png", "4.png"]


def test_selection_builds_no_graph(flat: Path) -> None:
    def classify(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return by_level(0)(images)

    select(classify, open_images(flat), n=2, seed=0)


def test_labels_beyond_the_classifier(flat: Path) -> None:
    with pytest.raises(UnderfireError, match="go up to 3, but the classifier knows classes 0 to 2"):
        select(lambda x: torch.zeros(len(x), 3), open_images(flat), n=2, seed=0)


def test_no_image_can_be_used(flat: Path) -> None:
    with pytest.raises(UnderfireError, match=r"none of the 20 images can be used.*\.png: its 6×6 pixels"):
        select(by_level(0), open_images(flat, crop=7), n=2, seed=0)


def test_no_image_is_classified_correctly(flat: Path) -> None:
    with pytest.raises(UnderfireError, match=r"none of 20 images right: .*--normalize.*--labels.*--crop"):
        select(by_level(), open_images(flat), n=2, seed=0)


@pytest.mark.parametrize("batch", [1, 20])
def test_sizes_that_differ_need_a_crop(tmp_path: Path, batch: int) -> None:
    for i in range(6):
        save(tmp_path / "class" / f"{i}.png", width=6 if i else 8)
    images = open_images(tmp_path)
    size = r"class/\d\.png has [68]×6 pixels"
    with pytest.raises(UnderfireError, match=f"{size} and {size}: give all images one size with --crop"):
        select(by_level(0), images, n=6, seed=0, batch=batch)
    first = select(by_level(0), open_images(tmp_path, crop=6), n=6, seed=0).chosen.ids[0]
    assert select(by_level(0), images, n=1, seed=0, batch=batch).chosen.ids == (first,)


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_images_are_met_right_or_wrong_in_the_order_of_the_choice(flat: Path, batch: int) -> None:
    """Level i % 4 is class i % 4, and the classifier knows 0 and 2: half of what comes is misclassified."""
    (flat / "7.png").write_text("damaged")
    images = open_images(flat)
    order = meet(by_level(0, 1, 2, 3), images, n=20, seed=3).chosen.ids
    met, found = (find(by_level(0, 2), images, n=5, seed=3, batch=batch) for find in (meet, select))
    assert met.chosen.ids == order[: len(met.chosen.ids)]
    right = [name for name, correct in zip(met.chosen.ids, met.correct.tolist(), strict=True) if correct]
    assert tuple(right) == found.chosen.ids
    assert met.chosen.ids[-1] == right[-1]
    assert int((~met.correct).sum()) == found.misclassified > 0
    assert met.skipped == found.skipped
    for name, image in zip(met.chosen.ids, met.chosen.samples().images, strict=True):
        assert torch.equal(image, images.read(images.ids.index(name)))


def test_groups_are_told_by_id_and_an_image_is_its_own(flat: Path) -> None:
    images = open_images(flat)
    assert images.groups_of(("3.png", "1.png")) == ("3.png", "1.png")
    grouped = replace(images, groups=tuple(f"lesion {i // 2}" for i in range(20)))
    named = [images.ids[i] for i in (5, 0, 4)]
    assert grouped.groups_of(named) == ("lesion 2", "lesion 0", "lesion 2")
    assert grouped.take([4, 0]).groups_of(named[:0:-1]) == ("lesion 2", "lesion 0")


@pytest.mark.parametrize("numbers", [{"n": 0}, {"n": 1, "batch": 0}])
def test_counts_must_be_positive(flat: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(UnderfireError, match="both must be 1 or more"):
        select(by_level(0), open_images(flat), seed=0, **numbers)


def test_imagenet_photos(testbed: Path) -> None:
    images = open_images(testbed / "imagenet", crop=224)
    assert len(images) == len(images.classes) == 1000
    assert images.skipped == ()
    assert images.classes[1] == "goldfish, Carassius auratus"
    for i in (0, 1, 500, 999):
        with Image.open(testbed / "imagenet" / images.ids[i]) as photo:
            expected = torch.tensor(np.asarray(photo)[16:240, 16:240]).permute(2, 0, 1) / 255
        assert torch.equal(images.read(i), expected)


def test_cifar_photos(testbed: Path) -> None:
    images = open_images(testbed / "cifar10" / "cifar10-test.npz")
    assert len(images) == 2000
    assert len(images.classes) == 10
    assert images.read(1999).shape == (3, 32, 32)


def test_skin_photos(testbed: Path) -> None:
    """200×150 photos shrunk to 192×144: the inside must equal the 150×150 centre shrunk to 144×144."""
    table = testbed / "ham10000" / "labels.csv"
    images = open_images(testbed / "ham10000" / "images", labels=table, resize=144, crop=144)
    assert len(images) == 5000
    with Image.open(testbed / "ham10000" / "images" / images.ids[0]) as photo:
        square = torch.tensor(np.asarray(photo)[:, 25:175]).permute(2, 0, 1) / 255
    expected = F.resize(square, [144, 144], F.InterpolationMode.BILINEAR, antialias=True)
    inside = (slice(None), slice(None), slice(2, -2))
    assert torch.allclose(images.read(0)[inside], expected[inside], rtol=0, atol=1e-5)


# ------------------------------------------------------------------ parts


def test_a_table_s_own_split_is_taken_and_files_of_other_parts_are_no_concern(flat: Path) -> None:
    rows = [(f"{i}.png", i % 4, "test" if i < 8 else "train") for i in range(20)]
    write_table(flat / "labels.csv", [*rows, ("gone.png", 5, "train")], header="file,class_index,split")
    train, test = (open_images(flat, split=name) for name in ("train", "test"))
    assert test.ids == tuple(f"{i}.png" for i in range(8))
    assert test.skipped == ()
    assert train.skipped == (("gone.png", "the file is missing"),)
    assert train.classes == test.classes == ("0", "1", "2", "3", "4", "5")
    assert len(open_images(flat)) == len(train) + len(test) == 20
    with pytest.raises(UnderfireError, match="there is no split 'val' of these images: give 'test' or 'train'"):
        open_images(flat, split="val")


def test_photos_of_one_lesion_are_on_one_side(flat: Path) -> None:
    write_table(flat / "labels.csv", [(f"{i}.png", 0, f"L{i % 10}") for i in range(20)], "file,class_index,lesion_id")
    train, test = (open_images(flat, split=name) for name in ("train", "test"))
    assert len(test) == 4
    assert set(test.groups).isdisjoint(train.groups)
    assert sorted(train.ids + test.ids) == sorted(open_images(flat).ids)


def test_a_missing_file_moves_no_other_image_to_the_other_side(flat: Path) -> None:
    before = {name: set(open_images(flat, split=name).ids) for name in ("train", "test")}
    (flat / "3.png").unlink()
    for name, ids in before.items():
        assert set(open_images(flat, split=name).ids) == ids - {"3.png"}


@pytest.mark.parametrize("layout", ["folders", "npz"])
def test_other_layouts_are_split_image_by_image(tmp_path: Path, layout: str) -> None:
    images = tmp_path / "set"
    if layout == "npz":
        images = tmp_path / "set.npz"
        np.savez(images, images=np.zeros((30, 4, 4, 3), np.uint8), labels=np.arange(30) % 3)
    else:
        for i in range(30):
            save(images / f"class-{i % 3}" / f"{i}.png")
    train, test = (open_images(images, split=name) for name in ("train", "test"))
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    assert sorted(train.ids + test.ids) == sorted(open_images(images).ids)


def test_the_digest_tells_parts_apart(flat: Path) -> None:
    digests = {open_images(flat, split=name).digest for name in ("train", "test", None)}
    assert len(digests) == 3


def test_the_parts_of_the_skin_photos(testbed: Path) -> None:
    table, photos = testbed / "ham10000" / "labels.csv", testbed / "ham10000" / "images"
    train, test = (open_images(photos, table, split=name) for name in ("train", "test"))
    assert (len(train), len(test)) == (4000, 1000)
    assert train.classes == test.classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert np.bincount(test.labels).tolist() == [33, 51, 110, 11, 111, 670, 14]
    assert set(train.groups).isdisjoint(test.groups)


# ------------------------------------------------------------------ predictions


def test_every_readable_image_is_predicted_in_the_order_of_the_set(flat: Path) -> None:
    (flat / "4.png").write_text("damaged")
    (flat / "8.png").unlink()
    reference = predict(by_level(0, 2), open_images(flat), batch=1)
    assert [name for name, _ in reference.skipped] == ["8.png", "4.png"]
    assert reference.ids == tuple(f"{i}.png" for i in range(20) if i not in (4, 8))
    assert reference.labels.tolist() == [int(name[:-4]) % 4 for name in reference.ids]
    assert reference.predicted.tolist() == [{0: 0, 1: 2, 2: 2, 3: 0}[label] for label in reference.labels.tolist()]
    for batch in (3, 100):
        again = predict(by_level(0, 2), open_images(flat), batch)
        assert (again.ids, again.predicted.tolist()) == (reference.ids, reference.predicted.tolist())


def test_what_cannot_be_predicted_is_refused(flat: Path) -> None:
    with pytest.raises(UnderfireError, match="go up to 3, but the classifier knows classes 0 to 2"):
        predict(lambda x: torch.zeros(len(x), 3), open_images(flat))
    with pytest.raises(UnderfireError, match="none of the 20 images can be used"):
        predict(by_level(0), open_images(flat, crop=7))
    save(flat / "3.png", width=9)
    with pytest.raises(UnderfireError, match="give all images one size with --crop"):
        predict(by_level(0), open_images(flat))


# ------------------------------------------------------------------ objects


def with_masks(folder: Path) -> Path:
    """Masks of the flat images, white in the left half."""
    masks = folder / "masks"
    masks.mkdir()
    for i in range(20):
        image = Image.new("1", (6, 6))
        image.paste(1, (0, 0, 3, 6))
        image.save(masks / f"{i}.png")
    return masks


def test_images_are_found_with_their_objects_in_the_order_of_select(flat: Path) -> None:
    photos = open_images(flat)
    found = locate(photos, object_masks(photos, with_masks(flat)), n=7, seed=3)
    assert found.chosen.ids == select(by_level(0, 1, 2, 3), photos, n=7, seed=3).chosen.ids
    assert found.objects.shape == (7, 6, 6)
    assert bool(found.objects[:, :, :3].all())
    assert not found.objects[:, :, 3:].any()


def test_images_whose_mask_is_damaged_or_empty_are_skipped(flat: Path) -> None:
    masks, photos = with_masks(flat), open_images(flat)
    (masks / "3.png").write_bytes(b"no picture")
    Image.new("1", (6, 6)).save(masks / "4.png")
    found = locate(photos, object_masks(photos, masks), n=20, seed=0)
    assert len(found.chosen.ids) == 18
    reasons = dict(found.skipped)
    assert reasons["4.png"] == "its mask shows no object"
    assert reasons["3.png"].startswith("its mask 3.png: ")


def test_masks_of_another_size_are_refused(flat: Path) -> None:
    masks, photos = with_masks(flat), open_images(flat)
    for i in range(20):
        Image.new("1", (7, 6), 1).save(masks / f"{i}.png")
    with pytest.raises(UnderfireError, match=r"The object mask of \d+.png is not the same size as the image"):
        locate(photos, object_masks(photos, masks), n=2, seed=0)


def test_missing_masks_are_counted(flat: Path) -> None:
    masks, photos = with_masks(flat), open_images(flat)
    (masks / "7.png").unlink()
    with pytest.raises(UnderfireError, match=r"lacks 1 of 20 masks, the first is 7\.png"):
        object_masks(photos, masks)


def test_images_are_resized_as_asked_for(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "photos.npz", images=np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), labels=np.zeros(1, int)
    )
    sets = [open_images(tmp_path / "photos.npz", resize=5, interpolation=how) for how in (None, "bilinear", "bicubic")]
    default, linear, cubic = (each.read(0) for each in sets)
    assert torch.equal(default, linear)
    assert not torch.equal(linear, cubic)
    assert sets[0].digest == sets[1].digest != sets[2].digest
    with pytest.raises(UnderfireError, match="interpolation is 'nearest': give bilinear or bicubic"):
        open_images(tmp_path / "photos.npz", interpolation="nearest")
