"""Target classes: random ones are other classes, uniform and an image's own; given ones are checked."""

import pytest
import torch
from scipy import stats

from underfire.rng import image_keys
from underfire.targets import check_targets, random_class
from underfire.types import UnderfireError

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
        (torch.tensor([2, 0]), r"one integer target class per image in a tensor: 3 images, targets of shape \(2,\)"),
        (torch.tensor(1), r"3 images, targets of shape \(\)"),
        (torch.tensor([[2, 0, 1]]), r"targets of shape \(1, 3\)"),
        (torch.tensor([2.0, 0.0, 1.0]), "one integer target class per image"),
        (torch.tensor([2, 0, 3]), "Target class 3 does not exist; the model has classes 0 to 2"),
        (torch.tensor([2, -1, 1]), "Target class -1 does not exist"),
        (torch.tensor([2, 1, 1]), "Image 1 already is of its target class 1"),
    ],
)
def test_targets_that_cannot_be_reached_for(
    target: torch.Tensor, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UnderfireError, match=complaint):
        check_targets(target, CURRENT, 3)
