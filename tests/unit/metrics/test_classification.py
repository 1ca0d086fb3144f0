"""Confusion counts from their definition; balanced accuracy and an interval that covers what it should."""

from math import isnan

import numpy as np
import pytest
import torch

from underfire.core.errors import UnderfireError
from underfire.metrics.classification import accuracy, balanced_accuracy, confusion, recalls
from underfire.metrics.intervals import Estimate, wilson

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 3])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 2, 3])


def test_counts_are_pairs() -> None:
    counts = confusion(LABELS, PREDICTED, 4)
    assert counts.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_accuracy_and_recalls_are_shares_of_rows() -> None:
    counts = confusion(LABELS, PREDICTED, 4)
    assert accuracy(counts) == Estimate(5 / 7, *wilson(5, 7), 7)
    assert [(each.value, each.n) for each in recalls(counts) if each.n] == [(0.75, 4), (0.5, 2), (1.0, 1)]
    assert isnan(recalls(counts)[2].value)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_there() -> None:
    estimate = balanced_accuracy(confusion(LABELS, PREDICTED, 4))
    assert estimate.value == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert estimate.n == 7
    assert estimate.low < estimate.value < estimate.high


def test_of_one_class_it_is_that_class_s_share() -> None:
    one = torch.zeros(9, dtype=torch.int64)
    estimate = balanced_accuracy(confusion(one, one, 2))
    low, _ = wilson(9, 9)
    assert (estimate.value, estimate.low) == pytest.approx((1, low))
    assert low < 0.75


def test_without_images_nothing_is_known() -> None:
    none = confusion(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 3)
    for estimate in (accuracy(none), balanced_accuracy(none)):
        assert isnan(estimate.value)
        assert (estimate.low, estimate.high, estimate.n) == (0, 1, 0)


@pytest.mark.parametrize(
    "recall", [pytest.param((0.9, 0.8, 0.6, 0.7), marks=pytest.mark.extended), (0.99, 0.97, 0.95, 0.9)]
)
def test_the_interval_covers_the_truth(recall: tuple[float, ...]) -> None:
    """Of 400 samples with classes of 300, 60, 15 and 8 images."""
    sizes, draws = (300, 60, 15, 8), np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        right = draws.binomial(sizes, recall)
        counts = torch.diag(torch.from_numpy(right))
        counts[:, 0] += torch.tensor(sizes) - torch.from_numpy(right)
        counts[0] = torch.tensor([right[0], sizes[0] - right[0], 0, 0])
        estimate = balanced_accuracy(counts)
        covered += estimate.low <= np.mean(recall) <= estimate.high
    assert 0.92 < covered / 400 < 0.995


@pytest.mark.parametrize(("labels", "predicted"), [([0, 3], [0, 0]), ([0, 0], [0, 3]), ([-1], [0])])
def test_classes_that_do_not_exist_are_refused(labels: list[int], predicted: list[int]) -> None:
    with pytest.raises(UnderfireError, match="is not among the classes 0 to 2"):
        confusion(torch.tensor(labels), torch.tensor(predicted), 3)
