"""Parts share no group, hold their share of every class, and go by names alone."""

import pytest
import torch

from underfire.core.errors import UnderfireError
from underfire.data.splits import apart, drawn, part

# 300 images of 120 lesions: class 0 has 80 lesions, class 1 has 35, class 2 has 4 and class 3 a single one
LESIONS = [f"lesion {i % 120}" for i in range(300)]
LABELS = [0 if i % 120 < 80 else 1 if i % 120 < 115 else 2 if i % 120 < 119 else 3 for i in range(300)]


def sides(groups: list[str], flags: list[bool], side: bool) -> set[str]:
    return {group for group, flag in zip(groups, flags, strict=True) if flag is side}


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides_and_every_class_gives_its_share(seed: int) -> None:
    flags = apart(LESIONS, LABELS, 0.2, seed, "a purpose").tolist()
    taken = sides(LESIONS, flags, True)
    assert not taken & sides(LESIONS, flags, False)
    number = [int(name.split()[1]) for name in taken]
    counts = [sum(low <= n < high for n in number) for low, high in ((0, 80), (80, 115), (115, 119), (119, 120))]
    assert counts == [16, 7, 1, 0]


def test_the_parts_go_by_names_seed_and_purpose_alone() -> None:
    first = sides(LESIONS, apart(LESIONS, LABELS, 0.2, 0, "one").tolist(), True)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0)).tolist()
    groups, labels = [LESIONS[i] for i in shuffled], [LABELS[i] for i in shuffled]
    assert sides(groups, apart(groups, labels, 0.2, 0, "one").tolist(), True) == first
    for seed, purpose in ((1, "one"), (0, "other")):
        assert sides(LESIONS, apart(LESIONS, LABELS, 0.2, seed, purpose).tolist(), True) != first


def test_a_group_of_several_classes_counts_once() -> None:
    flags = apart(["a", "a", "b", "c"], [1, 0, 0, 0], 0.5, 0, "a purpose")
    assert flags[0] == flags[1]
    assert sum(name in sides(["a", "a", "b", "c"], flags.tolist(), True) for name in "abc") == 2


def test_every_image_is_of_one_part() -> None:
    train, test = (part(name, [], LESIONS, LABELS) for name in ("train", "test"))
    assert sorted(train + test) == list(range(300))
    assert [name == "test" for name in drawn(LESIONS, LABELS)] == [i in test for i in range(300)]


def test_parts_that_are_told_are_taken() -> None:
    told = ["val", "train", "", "val"]
    assert part("val", told, list("abcd"), [0, 0, 0, 0]) == [0, 3]
    with pytest.raises(UnderfireError, match=r"there is no split 'test' of these images: give 'train' or 'val'$"):
        part("test", told, list("abcd"), [0, 0, 0, 0])


def test_parts_that_are_drawn_are_two() -> None:
    with pytest.raises(UnderfireError, match=r"no split 'val' of these images: give 'test' or 'train'$"):
        part("val", [], LESIONS, LABELS)
    with pytest.raises(UnderfireError, match=r"no split 'test' of these images: give 'train'$"):
        part("test", [""], ["a"], [0])
