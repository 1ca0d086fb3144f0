"""Intervals: Wilson's against its formula, means against the truth that they promise to cover."""

import csv
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from underfire.metrics.intervals import (
    FEWEST,
    Estimate,
    images_to_decide,
    mean_interval,
    ratio_interval,
    share,
    wilson,
)

Draw = Callable[[np.random.Generator, int], npt.NDArray[Any]]

RECORDED = Path(__file__).with_name(
    "recorded_distances.csv"
)  # ΔL1 of 128 images of the demo, by interpreter and attack
SYNTHETIC: dict[str, tuple[float, Draw]] = {
    "normal": (0.0, lambda rng, n: rng.normal(0, 1, n)),
    "exponential": (1.0, lambda rng, n: rng.exponential(1, n)),
    "log-normal": (math.exp(0.125), lambda rng, n: rng.lognormal(0, 0.5, n)),
    "Beta(.5, 5)": (0.5 / 5.5, lambda rng, n: rng.beta(0.5, 5, n)),
    "Beta(2, 8)": (0.2, lambda rng, n: rng.beta(2, 8, n)),
}


def recorded() -> dict[str, npt.NDArray[Any]]:
    with RECORDED.open() as file:
        heads, *rows = csv.reader(file)
    return dict(zip(heads, np.array(rows, float).T, strict=True))


def coverage(truth: float, draw: Callable[[int], npt.NDArray[Any]], n: int, samples: int = 600) -> float:
    """How often the interval of n values holds the truth."""
    found = [mean_interval(draw(n)) for _ in range(samples)]
    return float(np.mean([each.low <= truth <= each.high for each in found]))


# ------------------------------------------------------------------ means


@pytest.mark.extended
@pytest.mark.parametrize("n", [16, 32, 100])
@pytest.mark.parametrize("kind", SYNTHETIC)
def test_means_of_skewed_distances_are_covered(kind: str, n: int) -> None:
    """600 samples: coverage scatters by 0.9 %."""
    rng, (truth, draw) = np.random.default_rng(n), SYNTHETIC[kind]
    assert coverage(truth, lambda n: draw(rng, n), n) >= 0.93


@pytest.mark.extended
@pytest.mark.parametrize("n", [16, 32, 100])
@pytest.mark.parametrize("kind", ["cam pgd", "grad pgd", "grad adv2", "rts pgd", "rts adv2"])
def test_means_of_recorded_distances_are_covered(kind: str, n: int) -> None:
    distances, rng = recorded()[kind], np.random.default_rng(n)
    assert coverage(distances.mean(), lambda n: rng.choice(distances, n), n) >= 0.93


@pytest.mark.extended
def test_a_mean_that_rests_on_a_few_outliers_takes_a_hundred_images() -> None:
    """ADV² leaves CAM .003 away on most images and .1 on a few, which most samples of 16 lack."""
    distances, rng = recorded()["cam adv2"], np.random.default_rng(0)
    few, many = (coverage(distances.mean(), lambda n: rng.choice(distances, n), n) for n in (16, 100))
    assert few < 0.9
    assert many >= 0.93


def test_interval_of_the_mean() -> None:
    data = np.random.default_rng(1).normal(3, 2, 400)
    estimate = mean_interval(data)
    assert (estimate.value, estimate.n) == (pytest.approx(data.mean()), 400)
    half_width = 1.96 * data.std() / 20
    assert estimate.value - estimate.low == pytest.approx(half_width, rel=0.1), (
        "2000 resamples scatter by a few percent"
    )
    assert estimate.high - estimate.value == pytest.approx(half_width, rel=0.1)


def test_skew_moves_the_interval_towards_the_long_tail() -> None:
    estimate = mean_interval(np.random.default_rng(1).exponential(1, 20))
    assert estimate.high - estimate.value > 1.2 * (estimate.value - estimate.low)


def test_one_that_stands_out_leaves_the_mean_open_towards_it() -> None:
    estimate = mean_interval([0.0] * 15 + [1.0])
    assert estimate.high > 2 * estimate.value


def test_intervals_repeat_and_leave_the_global_generator_alone() -> None:
    before = str(np.random.get_state())
    data = [0.0, 1.0, 1.0, 0.0, 1.0, 0.2, 0.3, 0.9]
    assert mean_interval(data) == mean_interval(np.array(data))
    assert str(np.random.get_state()) == before


@pytest.mark.parametrize("n", range(FEWEST))
def test_few_values_have_a_mean_and_no_interval(n: int) -> None:
    estimate = mean_interval(np.linspace(0, 1, n))
    assert estimate.n == n
    assert math.isnan(estimate.value) == (n == 0)
    assert not estimate.has_interval
    assert math.isnan(estimate.high)


def test_equal_values_are_their_own_interval() -> None:
    assert mean_interval([0.25] * 9) == Estimate(0.25, 0.25, 0.25, 9)


def test_values_that_are_not_there_are_left_out() -> None:
    data = np.random.default_rng(0).random(20)
    assert mean_interval([*data, math.nan, math.nan]) == mean_interval(data)


def test_repeated_measures_count_once() -> None:
    """Copies of one image's value tell nothing new, whatever their order."""
    data = np.random.default_rng(0).random(20)
    once = mean_interval(data)
    thrice = mean_interval(np.tile(data, 3), np.tile([f"{i:02}" for i in range(20)], 3))
    assert (thrice.n, thrice.value, thrice.low, thrice.high) == pytest.approx((20, once.value, once.low, once.high))
    taken_for_60 = mean_interval(np.tile(data, 3))
    assert thrice.high - thrice.low > 1.5 * (taken_for_60.high - taken_for_60.low)


# ------------------------------------------------------------------ ratios


@pytest.mark.extended
@pytest.mark.parametrize("n", [16, 32, 100])
@pytest.mark.parametrize("kinds", [("rts pgd", "rts adv2"), ("grad pgd", "grad adv2")], ids=str)
def test_ratios_of_recorded_distances_are_covered(kinds: tuple[str, str], n: int) -> None:
    above, below = (recorded()[kind] for kind in kinds)
    rng, truth = np.random.default_rng(n), above.mean() / below.mean()
    held = 0
    for _ in range(300):
        chosen = rng.integers(len(above), size=n)
        found = ratio_interval(above[chosen], below[chosen])
        held += found.low <= truth <= found.high
    assert held / 300 >= 0.92


def test_a_ratio_is_that_of_means_over_pairs() -> None:
    found = ratio_interval([0.2, 0.4, math.nan, 0.1], [0.1, 0.3, 0.1, math.nan])
    assert (found.value, found.n) == (pytest.approx(1.5), 2)
    assert not found.has_interval


def test_what_both_means_share_does_not_widen_their_ratio() -> None:
    """Images differ by far more than the two measures of one image: they belong together."""
    rng = np.random.default_rng(0)
    data = rng.lognormal(0, 1, 30)
    other = 2 * data * rng.uniform(0.9, 1.1, 30)
    paired, shuffled = ratio_interval(other, data), ratio_interval(rng.permutation(other), data)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)
    assert ratio_interval(3 * data, data).high == pytest.approx(3)


def test_a_ratio_turned_over_has_its_interval_turned_over() -> None:
    a, b = np.random.default_rng(1).beta(1, 5, (2, 24))
    one, other = ratio_interval(a, b), ratio_interval(b, a)
    assert (1 / one.value, 1 / one.high, 1 / one.low) == pytest.approx((other.value, other.low, other.high), rel=0.05)


@pytest.mark.parametrize("pairs", [([], []), ([0.1] * 9, [0.0] * 9), ([math.nan], [1.0])], ids=str)
def test_there_is_no_ratio_to_nothing(pairs: tuple[list[float], list[float]]) -> None:
    found = ratio_interval(*pairs)
    assert math.isnan(found.value)
    assert not found.has_interval


# ------------------------------------------------------------------ shares


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 4), (16, 16), (50, 100), (999, 1000)])
def test_wilson_is_its_formula(k: int, n: int) -> None:
    z = 1.959963984540054
    middle, spread = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    expected = ((middle - spread) / (n + z * z), (middle + spread) / (n + z * z))
    assert wilson(k, n) == pytest.approx(expected, abs=1e-9)
    assert all(0 <= each <= 1 for each in wilson(k, n))


def test_a_share_comes_with_its_interval() -> None:
    found = share([True, False, False, False])
    assert (found.value, found.n) == (0.25, 4)
    assert (found.low, found.high) == wilson(1, 4)
    assert share([False] * 30).low == 0
    assert share([True] * 30).high == 1


def test_all_of_four_is_no_certainty() -> None:
    assert share([True] * 4).low == pytest.approx(0.51, abs=0.001)


def test_parts_of_a_flag_are_rounded_together() -> None:
    found = share([1.0, 0.5, 0.5, 0.0])
    assert found == Estimate(0.5, *wilson(2, 4), 4)


def test_nothing_has_no_share() -> None:
    found = share([])
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0, 1, 0)


@pytest.mark.parametrize(("observed", "threshold"), [(1.0, 0.9), (0.75, 0.5), (0.0, 0.1), (0.6, 0.5)])
def test_so_many_images_decide_and_fewer_do_not(observed: float, threshold: float) -> None:
    """Wilson's interval of that share holds the threshold just below, and no longer from there on."""
    needed = int(images_to_decide(observed, threshold))
    assert needed > 1

    def holds(n: int) -> bool:
        low, high = wilson(round(observed * n), n)
        return low <= threshold <= high

    grain = {1.0: 1, 0.75: 4, 0.0: 1, 0.6: 5}[observed]  # numbers of images of which there is such a share
    before, after = (grain * f(needed / grain) for f in (lambda x: math.ceil(x) - 1, math.ceil))
    assert (holds(before), holds(after)) == (True, False)


def test_a_share_at_the_threshold_is_never_decided() -> None:
    assert images_to_decide(0.5, 0.5) == math.inf
    needed = [images_to_decide(0.5 + gap, 0.5) for gap in (0.1, 0.2, 0.3)]
    assert all(a > b for a, b in pairwise(needed))


def test_an_interval_stays_where_its_values_can_be() -> None:
    confidences = [0.99, 0.999, 0.9999, 1, 0.9995, 0.9, 0.997, 1, 0.96, 0.995, 0.95, 1]
    free, bounded = mean_interval(confidences), mean_interval(confidences, within=(0.0, 1.0))
    assert free.high > 1
    assert (bounded.low, bounded.high) == (free.low, 1)
