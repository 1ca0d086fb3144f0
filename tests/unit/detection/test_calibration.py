"""Detectors: that thresholds hit their rate, how scores are combined, and ROC curves."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.detection.calibration import (
    AS_IT_IS,
    STANDARDISED,
    Detector,
    Standardisation,
    check_enough,
    joint,
    left_out,
    roc,
)


def normal(n: int, seed: int, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ scores of several parts


def test_joint_is_the_maximum_of_each_image() -> None:
    assert joint([torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.2])]).tolist() == pytest.approx([0.5, 0.9])


def test_scores_on_their_own_scale_are_combined_by_hand() -> None:
    """Benign 1, 2, 3 (mean 2, deviation 1) and 10, 30, 50 (30 and 20): 3 is one deviation off, 90 is three."""
    scales = [Standardisation.fit(torch.tensor(benign)) for benign in ([1.0, 2.0, 3.0], [10.0, 30.0, 50.0])]
    assert scales == [Standardisation(2.0, 1.0), Standardisation(30.0, 20.0)]
    suspected = (torch.tensor([3.0, 2.0, 0.0]), torch.tensor([30.0, 90.0, -10.0]))
    combined = joint([scale(scores) for scale, scores in zip(scales, suspected, strict=True)])
    assert combined.tolist() == [1, 3, -2]


def test_a_scale_as_it_stands_changes_no_score() -> None:
    scores = normal(5, 0)
    assert torch.equal(Standardisation()(scores), scores)


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([], "There are no scores of benign images"),
        ([0.25] * 3, r"All 3 benign images have the same score of 0\.25"),
        ([0.25], r"All 1 benign images have the same score"),
        ([0.25, float("nan")], "1 of 2 benign scores are NaN"),
    ],
)
def test_a_part_without_a_scale_is_refused(scores: list[float], reason: str) -> None:
    with pytest.raises(UnderfireError, match=reason):
        Standardisation.fit(torch.tensor(scores))


def test_a_score_is_left_out_of_its_own_scale() -> None:
    """Of 1, 2, 3 and 7 the first meets 2, 3, 7 (mean 4, deviation the root of 7), the last 1, 2, 3 (2 and 1)."""
    own = STANDARDISED.left_out(torch.tensor([1.0, 2.0, 3.0, 7.0]))
    assert own[[0, 3]].tolist() == pytest.approx([-3 / 7**0.5, 5.0])
    scores = normal(5, 0)
    assert torch.equal(AS_IT_IS.left_out(scores), scores)


def one_by_one(benign: Tensor) -> Tensor:
    """Leaving out by its definition: a scale fitted to the others for each score."""
    others = [torch.cat([benign[:i], benign[i + 1 :]]) for i in range(len(benign))]
    return torch.cat([Standardisation.fit(rest)(own) for own, rest in zip(benign[:, None], others, strict=True)])


@pytest.mark.parametrize("n", [3, 4, 20, 201])
@pytest.mark.parametrize(
    "spread",
    [
        lambda z: z,
        lambda z: 1e6 + z,  # far from zero
        lambda z: torch.cat([z[:-1], 1e9 + z[-1:]]),  # one far from the others
        lambda z: torch.cat([-1e9 - z[:1], z[1:-1], 1e9 + z[-1:]]),
        lambda z: z.round(),  # ties
    ],
    ids=["normal", "offset", "outlier", "outliers", "ties"],
)
def test_scores_left_out_together_are_those_left_out_one_by_one(spread: Callable[[Tensor], Tensor], n: int) -> None:
    scores = spread(3 * normal(n, 1))
    torch.testing.assert_close(left_out(scores), one_by_one(scores), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0], [1.0, 1.0, 7.0], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0]])
def test_a_score_without_others_that_differ_is_refused(scores: list[float]) -> None:
    for leaving_out in (left_out, one_by_one):
        with pytest.raises(UnderfireError, match=r"have the same score|There are no scores"):
            leaving_out(torch.tensor(scores))


def test_scores_combined_on_their_own_scales_hit_the_rate_too() -> None:
    """12 parts of N(0, 1) squared, 150 fits to 99 images: with the images in their own scales it would be 8 %."""
    numbers = torch.Generator().manual_seed(0)
    new = torch.randn(12, 4000, generator=numbers, dtype=torch.float64).square()
    rates = []
    for _ in range(150):
        benign = torch.randn(12, 99, generator=numbers, dtype=torch.float64).square()
        detector = Detector.fit(joint([left_out(each) for each in benign]), 0.05)
        scaled = [Standardisation.fit(part)(fresh) for part, fresh in zip(benign, new, strict=True)]
        rates.append(float(detector.flag(joint(scaled)).double().mean()))
    assert np.mean(rates) == pytest.approx(0.05, abs=0.005)


# ------------------------------------------------------------------ calibration


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.2])
def test_the_false_positive_rate_is_hit_on_average(fpr: float) -> None:
    """N(0, 1) scores, 400 fits: the mean rate on new scores is what was asked for, up to 1/(n + 1)."""
    n, fits = 199, 400
    new = normal(50_000, seed=0)
    rates = [float(Detector.fit(normal(n, seed), fpr).flag(new).double().mean()) for seed in range(1, fits + 1)]
    assert np.mean(rates) == pytest.approx(fpr, abs=4 * np.std(rates) / np.sqrt(fits))


def test_many_scores_give_the_normal_quantile() -> None:
    assert Detector.fit(normal(100_000, 1), 0.05).threshold == pytest.approx(1.6449, abs=0.02)


@pytest.mark.parametrize(
    ("n", "fpr", "above"), [(19, 0.05, 0), (99, 0.05, 4), (100, 0.05, 4), (9, 0.1, 0), (10, 0.3, 2)]
)
def test_the_threshold_is_one_of_the_scores(n: int, fpr: float, above: int) -> None:
    scores = torch.arange(n, dtype=torch.float64)
    detector = Detector.fit(scores[torch.randperm(n, generator=torch.Generator().manual_seed(0))], fpr)
    assert detector.threshold == n - 1 - above
    assert int(detector.flag(scores).sum()) == above


def test_ties_never_raise_the_rate() -> None:
    scores = torch.tensor([0.0] * 10 + [1.0] * 90)
    detector = Detector.fit(scores, 0.05)
    assert detector.threshold == 1
    assert not detector.flag(scores).any()


def test_order_and_type_change_no_threshold() -> None:
    scores = normal(50, 1).float()
    assert Detector.fit(scores) == Detector.fit(scores.flip(0)) == Detector.fit(scores.double())


def test_nothing_to_fit_to_is_refused() -> None:
    with pytest.raises(UnderfireError, match=r"takes at least 19 benign images to calibrate on, and there are 0"):
        Detector.fit(torch.zeros(0))


@pytest.mark.parametrize(("fpr", "least"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.3, 3), (0.5, 1)])
def test_too_few_scores_are_refused(fpr: float, least: int) -> None:
    check_enough(least, fpr)
    with pytest.raises(
        UnderfireError, match=f"at least {least} benign images to calibrate on, and there are {least - 1}"
    ):
        check_enough(least - 1, fpr)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_rates_outside_0_to_1_are_refused(fpr: float) -> None:
    with pytest.raises(UnderfireError, match="must lie between 0 and 1"):
        Detector.fit(normal(50, 0), fpr)


def test_one_value_is_refused() -> None:
    with pytest.raises(UnderfireError, match=r"All 50 benign images have the same score of 0\.25"):
        Detector.fit(torch.full((50,), 0.25))


def test_nan_is_refused_in_fitting_and_in_flagging() -> None:
    scores = normal(50, 0)
    detector = Detector.fit(scores)
    scores[3:5] = torch.nan
    with pytest.raises(UnderfireError, match="2 of 50 benign scores are NaN"):
        Detector.fit(scores)
    with pytest.raises(UnderfireError, match="2 of 50 suspected scores are NaN"):
        detector.flag(scores)


# ------------------------------------------------------------------ ROC curves


def test_the_area_counts_pairs() -> None:
    benign, attacked = normal(40, 0), normal(30, 1, mean=1)
    pairs = (attacked[:, None] > benign).double() + 0.5 * (attacked[:, None] == benign)
    assert roc(benign, attacked).auc == pytest.approx(float(pairs.mean()))


@pytest.mark.parametrize("rounded", [False, True])
def test_the_area_is_that_under_the_curve(rounded: bool) -> None:
    """Also where scores are tied."""
    benign, attacked = normal(60, 0), normal(50, 1, mean=0.7)
    if rounded:
        benign, attacked = benign.round(), attacked.round()
    curve = roc(benign, attacked)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(curve.auc)
    assert (curve.fpr[0], curve.tpr[0], curve.fpr[-1], curve.tpr[-1]) == (0, 0, 1, 1)
    assert all(a <= b for line in (curve.fpr.tolist(), curve.tpr.tolist()) for a, b in pairwise(line))


def test_perfect_and_useless_and_inverted_detectors() -> None:
    low, high = normal(20, 0), normal(20, 1) + 100
    assert (roc(low, high).auc, roc(low, low).auc, roc(high, low).auc) == (1, 0.5, 0)


@pytest.mark.parametrize(("benign", "attacked"), [(0, 3), (3, 0), (0, 0)])
def test_a_curve_of_one_class_is_refused(benign: int, attacked: int) -> None:
    with pytest.raises(UnderfireError, match=f"both benign and attacked images; there are {benign} and {attacked}"):
        roc(torch.zeros(benign), torch.zeros(attacked))


def test_a_curve_of_nan_is_refused() -> None:
    with pytest.raises(UnderfireError, match="1 of 3 attacked scores are NaN"):
        roc(normal(3, 0), torch.tensor([0.0, torch.nan, 1.0]))
