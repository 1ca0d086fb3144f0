"""Training sets: 8-bit copies of what was read, a split that goes by each image's id, moves by image and step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.data.demo import demo_images
from underfire.data.image_set import ImageSet, open_images
from underfire.training.dataset import Batch, augmented, demo_training_set, read_training_set, split

CPU = torch.device("cpu")


@pytest.fixture
def photos(tiny_photos: Path) -> ImageSet:
    return open_images(tiny_photos)


def numbered(n: int, side: int = 20) -> Batch:
    """Images whose pixels are all different and known: column + side x row, below 1."""
    plane = torch.arange(side * side, dtype=torch.float32).view(side, side) / 1000
    return Batch(plane.expand(n, 3, side, side), image_keys(map(str, range(n))))


def test_a_training_set_holds_every_image_in_8_bits(photos: ImageSet) -> None:
    training_set = read_training_set(photos)
    batch = training_set.batch(torch.tensor([3, 0]), CPU)
    assert training_set.ids == photos.ids
    assert training_set.objects is batch.objects is batch.step is None
    torch.testing.assert_close(batch.images, torch.stack([photos.read(3), photos.read(0)]), rtol=0, atol=0.5 / 255)
    assert torch.equal(batch.keys, image_keys((photos.ids[3], photos.ids[0])))
    assert [len(each.images) for each in training_set.batches(torch.arange(12), 5, CPU)] == [5, 5, 2]


def test_objects_come_with_their_images(photos: ImageSet) -> None:
    """An image's own brightness stands for its mask."""
    dim = replace(photos, ids=photos.ids[:3], labels=photos.labels[:3])
    training_set = read_training_set(dim, dim)
    assert training_set.objects is not None
    assert torch.equal(training_set.objects[1], photos.read(1).mean(0) > 0.5)
    assert training_set.digest != read_training_set(dim).digest


def test_damaged_images_are_passed_over_and_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,0\nb.png,0\nc.png,0\nd.png,0\n")
    training_set = read_training_set(open_images(tmp_path))
    assert training_set.ids == ("a.png", "c.png")
    assert [name for name, _ in training_set.skipped] == ["d.png", "b.png"]
    (tmp_path / "c.png").unlink()
    with pytest.raises(UnderfireError, match="1 of 2 images can be used; a training needs two or more"):
        read_training_set(open_images(tmp_path))


def test_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    for name, side in (("a", 16), ("b", 18)):
        Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,0\nb.png,0\n")
    with pytest.raises(UnderfireError, match=r"b\.png is not the same size as .*--crop"):
        read_training_set(open_images(tmp_path))
    assert read_training_set(open_images(tmp_path, crop=16)).pixels.shape == (2, 3, 16, 16)


def test_the_demo_s_scenes_are_fresh() -> None:
    training_set = demo_training_set(20)
    shown = {demo_images(20).read(i).mean().item() for i in range(20)}
    assert not shown & {image.mean().item() for image in training_set.batch(torch.arange(20), CPU).images}
    assert training_set.objects is not None
    assert 0.02 < training_set.objects.float().mean() < 0.4


def test_a_split_is_a_partition_that_goes_by_seed_and_id() -> None:
    ids = tuple(map(str, range(50)))
    fitted, judged = split(ids, 0.2, seed=0)
    assert sorted([*fitted.tolist(), *judged.tolist()]) == list(range(50))
    assert len(judged) == 10
    held_out = {ids[i] for i in judged.tolist()}
    reordered = ids[::-1]
    assert {reordered[i] for i in split(reordered, 0.2, seed=0)[1].tolist()} == held_out
    assert {ids[i] for i in split(ids, 0.2, seed=1)[1].tolist()} != held_out


@pytest.mark.parametrize(("n", "share", "judged"), [(2, 0.001, 1), (9000, 0.1, 400)])
def test_at_least_one_and_at_most_400_are_held_out(n: int, share: float, judged: int) -> None:
    assert len(split(tuple(map(str, range(n))), share, seed=0)[1]) == judged


def test_augmented_images_are_mirrored_and_shifted_by_up_to_a_tenth() -> None:
    moved = augmented(numbered(200), step=3, seed=0)
    middle = (1000 * moved.images[:, 0, 8:12, 8:12]).round().long()
    row, column = middle // 20, middle % 20
    down, right = row[:, 1, 0] - row[:, 0, 0], column[:, 0, 1] - column[:, 0, 0]
    assert set(down.tolist()) == {1}
    assert set(right.tolist()) == {1, -1}
    assert 60 < (right == 1).sum() < 140
    shifts = row[:, 0, 0] - 8
    assert set(shifts.tolist()) == {-2, -1, 0, 1, 2}
    assert moved.step == 3


def test_edges_are_mirrored() -> None:
    """Every line is one of the image's, and neighbours are neighbours but at the mirror."""
    rows = (1000 * augmented(numbered(50), 0, 0).images[:, 0, :, 10]).round().long() // 20
    assert rows.min() == 0
    assert rows.max() == 19
    assert rows.diff(dim=1).abs().unique().tolist() == [1]


def test_moves_are_an_image_s_own_at_each_step() -> None:
    batch = numbered(6)
    order = torch.tensor([3, 1, 5])
    some = Batch(batch.images[order], batch.keys[order])
    assert torch.equal(augmented(batch, 2, 0).images[order], augmented(some, 2, 0).images)
    for step, seed in ((1, 0), (2, 1)):
        assert not torch.equal(augmented(batch, 2, 0).images, augmented(batch, step, seed).images)
