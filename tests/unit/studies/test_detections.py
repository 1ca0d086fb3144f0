"""False-positive rates of known counts: of benign images as they come, of right ones and of wrong ones."""

import pyarrow as pa
import pytest

from tiny_report import detection_rows
from underfire.metrics.intervals import share, wilson
from underfire.studies.detections import COLUMNS, FEW, MATRIX_COLUMNS, calibrations, matrix


def held_out(right: tuple[int, int], wrong: tuple[int, int]) -> pa.Table:
    """Detections of ten images to fit to, of so many flagged and unflagged ones held out, and of two attacked ones."""

    def scores(flagged: int, others: int) -> list[float]:
        return [2.0] * flagged + [0.5] * others

    rows = detection_rows("fs", part="fit", scores=[0.1 * i for i in range(10)])
    rows += detection_rows("fs", part="check", scores=scores(*right), failed=scores(*wrong))
    rows += detection_rows("fs", "pgd", scores=[0.7, 3.0])
    return pa.Table.from_pylist(rows, COLUMNS)


def test_rates_are_of_all_of_the_right_and_of_the_wrong_ones() -> None:
    (found,) = calibrations(held_out(right=(2, 98), wrong=(4, 21)))
    rates = found.false_positives
    assert (rates.overall.n, rates.correct.n, rates.misclassified.n, found.fitted) == (125, 100, 25, 10)
    assert (rates.overall.value, rates.correct.value, rates.misclassified.value) == (6 / 125, 2 / 100, 4 / 25)
    for each, flagged in ((rates.overall, 6), (rates.correct, 2), (rates.misclassified, 4)):
        assert (each.low, each.high) == wilson(flagged, each.n)


def test_the_matrix_has_all_three_rates() -> None:
    (cell,) = matrix(held_out(right=(2, 98), wrong=(4, 21)))
    row = cell.row()
    assert set(row) == set(MATRIX_COLUMNS.names)
    assert [row[name] for name in ("held_out", "correct", "misclassified")] == [125, 100, 25]
    assert [row[name] for name in ("fpr", "fpr_correct", "fpr_misclassified")] == [0.048, 0.02, 0.16]
    assert (row["fpr_misclassified_low"], row["fpr_misclassified_high"]) == wilson(4, 25)


def test_images_are_ranked_against_those_that_are_classified_correctly() -> None:
    """Like those that set the threshold: 0.7 lies above 98 of 100, 3.0 above all, whatever the wrong ones score."""
    for wrong in ((0, 0), (30, 0)):
        (cell,) = matrix(held_out(right=(2, 98), wrong=wrong))
        assert cell.auc == pytest.approx((0.98 + 1) / 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (0, "None of the held-out images is misclassified, so nothing is known of such."),
        (1, "Misclassified images held out are few, 1: their rate is rough."),
        (FEW - 1, f"Misclassified images held out are few, {FEW - 1}: their rate is rough."),
        (FEW, ""),
    ],
)
def test_few_misclassified_images_are_said(wrong: int, said: str) -> None:
    (found,) = calibrations(held_out(right=(1, 9), wrong=(0, wrong)))
    assert found.false_positives.caution == said
    assert found.false_positives.misclassified.n == wrong


def test_a_rate_of_no_image_is_null() -> None:
    (cell,) = matrix(held_out(right=(1, 9), wrong=(0, 0)))
    row = cell.row()
    assert row["misclassified"] == 0
    assert row["fpr_misclassified"] is row["fpr_misclassified_low"] is row["fpr_misclassified_high"] is None
    assert (row["fpr"], row["fpr_correct"]) == (0.1, 0.1)
    assert cell.calibration.false_positives.overall == share([True] + [False] * 9)
