"""Target classes: each rule chooses what it says, from images that have such a class; given ones are checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from underfire.attacks.target_classes import check_targets, random_class, target_class_named
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.data.image_set import ImageSet, open_images

KEYS = image_keys(map(str, range(9000)))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_random_targets_are_uniform_over_the_other_classes(classes: int) -> None:
    """p > 1e-4 for one fixed draw."""
    labels = torch.arange(9000) % classes
    targets = random_class(labels, classes, KEYS, seed=0)
    assert not (targets == labels).any()
    assert targets.min() >= 0
    assert targets.max() < classes
    for label in range(classes):
        counts = torch.bincount(targets[labels == label], minlength=classes)
        counts = torch.cat([counts[:label], counts[label + 1 :]])
        assert classes == 2 or stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_random_targets_depend_on_seed_and_image_alone() -> None:
    labels = torch.zeros(9000, dtype=torch.int64)
    targets = random_class(labels, 10, KEYS, seed=0)
    assert torch.equal(random_class(labels[:5], 10, KEYS[5:10], seed=0), targets[5:10])
    same = (random_class(labels, 10, KEYS, seed=1) == targets).double().mean()
    assert same == pytest.approx(1 / 9, abs=4.5 * (8 / 81 / 9000) ** 0.5), "4.5 standard deviations"


CURRENT = torch.tensor([0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_targets_are_passed_on_as_int64(dtype: torch.dtype) -> None:
    checked = check_targets(torch.tensor([2, 0, 1], dtype=dtype), CURRENT, 3)
    assert checked.dtype == torch.int64
    assert checked.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (
            torch.tensor([2, 0]),
            r"one integer target class per image, or one for all: 3 images, targets of shape \(2,\)",
        ),
        (torch.tensor([[2, 0, 1]]), r"targets of shape \(1, 3\)"),
        (torch.tensor([2.0, 0.0, 1.0]), "one integer target class per image"),
        (torch.tensor([2, 0, 3]), "Target class 3 does not exist; the model has classes 0 to 2"),
        (torch.tensor([2, -1, 1]), "Target class -1 does not exist"),
        (torch.tensor([2, 1, 1]), "Image 1 is already of its target class 1"),
    ],
)
def test_targets_that_cannot_be_reached_for(
    target: torch.Tensor, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UnderfireError, match=complaint):
        check_targets(target, CURRENT, 3)


# ------------------------------------------------------------------ rules

IDS, LABELS = ("a", "b", "c"), torch.tensor([0, 2, 1])
LOGITS = torch.tensor([[5.0, 1.0, 1.0], [0.0, 1.0, 5.0], [3.0, 9.0, -2.0]])


@pytest.fixture
def image_set(tmp_path: Path) -> ImageSet:
    """Six images "0" to "5" of classes 0, 1, 2, 0, 1, 2; image i is filled with the grey i."""
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(3, 3).repeat(4, 2).repeat(4, 1)
    np.savez(tmp_path / "images.npz", images=pixels, labels=np.arange(6) % 3)
    return open_images(tmp_path / "images.npz")


def table(folder: Path, text: str) -> str:
    (folder / "wanted.csv").write_bytes(text.encode("latin-1"))
    return str(folder / "wanted.csv")


@pytest.mark.parametrize(
    ("name", "chosen"), [("least-likely", [1, 0, 2]), ("next", [1, 0, 2]), ("0", [0, 0, 0]), ("2", [2, 2, 2])]
)
def test_rules_choose_what_they_say(name: str, chosen: list[int]) -> None:
    assert target_class_named(name).choose(IDS, LABELS, LOGITS, seed=0).tolist() == chosen


def test_the_least_likely_class_is_never_the_own_one() -> None:
    """Not even where all logits are equal, or the label is not what the classifier says."""
    targets = target_class_named("least-likely").choose(IDS, LABELS, torch.zeros(3, 3), seed=0)
    assert targets.tolist() == [1, 0, 0]


def test_random_is_the_random_class_of_image_and_seed() -> None:
    rule, keys = target_class_named("random"), image_keys(IDS)
    assert torch.equal(rule.choose(IDS, LABELS, LOGITS, seed=3), random_class(LABELS, 3, keys, seed=3))


def test_images_that_have_no_target_leave_the_set(image_set: ImageSet, tmp_path: Path) -> None:
    listed = table(tmp_path, "file,target,class_index\n5,1,2\n1,0,1\n")
    for name, ids in (("random", "012345"), ("next", "012345"), ("1", "0235"), ("7", "012345"), (listed, "15")):
        candidates = target_class_named(name).candidates(image_set)
        assert candidates.ids == tuple(ids)
        assert candidates.labels.tolist() == [int(i) % 3 for i in ids]
        assert [round(float(candidates.read(i).mean() * 255)) for i in range(len(ids))] == [int(i) for i in ids]
        assert (candidates.digest == image_set.digest) == (len(ids) == 6)


def test_a_list_gives_each_image_its_own_class_whatever_the_order(tmp_path: Path) -> None:
    rule = target_class_named(table(tmp_path, "file,class_index\nb,1\nc,0\na,2\n"))
    assert rule.choose(IDS, LABELS, LOGITS, seed=0).tolist() == [2, 1, 0]
    again = target_class_named(table(tmp_path, "file,target\n./a,2\nb,1\n\nc, 0\n"))
    assert rule == again, "the same targets are the same rule"
    assert rule != target_class_named(table(tmp_path, "file,target\na,1\nb,1\nc,0\n"))
    with pytest.raises(UnderfireError, match="does not name a target class for 'd'"):
        rule.choose(("d",), LABELS[:1], LOGITS[:1], seed=0)


@pytest.mark.parametrize("name", ["likely", "", "-1", "1.5", "99999999999", "targets.txt"])
def test_names_of_no_rule(name: str) -> None:
    with pytest.raises(UnderfireError, match=r"There is no target class '.*'; give random, least-likely, next, a "):
        target_class_named(name)


def test_classes_that_do_not_exist_or_leave_no_image(image_set: ImageSet, tmp_path: Path) -> None:
    for name in ("3", table(tmp_path, "file,target\na,0\nb,1\nc,2\nunchosen,3\n")):
        with pytest.raises(UnderfireError, match="Target class 3 does not exist; the model has classes 0 to 2"):
            target_class_named(name).choose(IDS, LABELS, LOGITS, seed=0)
    with pytest.raises(UnderfireError, match="Every image is already of the target class 1; choose another"):
        target_class_named("1").candidates(image_set.take([1, 4]))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file,class\n0,1\n", "lacks the column target or class_index$"),
        ("name,target\n0,1\n", "lacks the column file$"),
        ("", "lacks the column target or class_index and the column file"),
        ("file,target\n", "names no files"),
        ("file,target\n0,cat\n", "line 2 of .* has target 'cat': it must be a whole number"),
        ("file,target\n0\n", "has target ''"),
        ("file,target\n0,-1\n", "has target '-1'"),
        ("file,target\n0," + "9" * 5000 + "\n", "it must be a whole number"),
        ("file,target\n0," + "9" * 200_000 + "\n", "cannot be read as a UTF-8 CSV file: field larger"),
        ("file,target\n0,1\n./0,2\n", "line 3 of .* a second time"),
        ("file,target\n0,1\n6,1\n", "names '6', which is not among the images"),
        ("file,target\n../../etc/passwd,1\n", "which is not among the images"),
        ("file,target\n\x1b[2J,1\n", r"names '\\x1b\[2J', which is not among the images"),
        ("file,target\n\0,1\n", "not among the images|cannot be read"),
        ("file,target\n4,1\n", "wants class 1 for '4', which is its true class"),
        ("file,target\n\xff,1\n", "cannot be read as a UTF-8 CSV file"),
    ],
)
def test_lists_that_are_refused(image_set: ImageSet, tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        target_class_named(table(tmp_path, text)).candidates(image_set)


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match=r"cannot be read as a UTF-8 CSV file: .*No such file"):
        target_class_named(str(tmp_path / "none.csv"))
