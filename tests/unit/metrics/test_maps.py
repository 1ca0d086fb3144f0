"""Map metrics on maps small enough to count, and averages whose intervals cover what they should."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from underfire.metrics.intervals import Estimate, mean_interval, share, wilson
from underfire.metrics.maps import (
    DISTANCES,
    PLAUSIBLE,
    above_mean,
    boxes,
    compare_maps,
    iou,
    linf,
    rank_correlation,
    top_15_percent,
)
from underfire.runs.outcomes import FLOW, summarise

A = torch.tensor([[0.0, 0.2], [0.6, 1.0]])
B = torch.tensor([[0.0, 0.6], [0.6, 0.0]])
CONSTANT = torch.zeros(2, 2)


def of(metric: str, a: Tensor, b: Tensor) -> float:
    return float(compare_maps(a[None], b[None])[metric][0])


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("map_l1", (0.4 + 1.0) / 4),
        ("map_l2", math.sqrt((0.16 + 1.0) / 4)),
        ("iou_mean", 1 / 3),  # means .45 and .3: {10, 11} and {01, 10}
        ("iou_half", 1 / 3),  # {10, 11} and {01, 10}
        ("iou_top15", 0.0),  # one cell of four: {11} and {01}
    ],
)
def test_worked_example(metric: str, value: float) -> None:
    assert of(metric, A, B) == pytest.approx(value)
    assert of(metric, B, A) == pytest.approx(value)


def test_a_map_is_its_own_neighbour() -> None:
    for a in (A, B, CONSTANT, CONSTANT + 1):
        values = compare_maps(a[None], a[None])
        assert tuple(values) == DISTANCES
        assert [float(v) for v in values.values()] == [0, 0, 1, 1, 1]


def test_each_pair_of_maps_is_compared_by_itself() -> None:
    together = compare_maps(torch.stack([A, B, CONSTANT]), torch.stack([B, B, A]))
    for name, values in together.items():
        expected = [of(name, A, B), of(name, B, B), of(name, CONSTANT, A)]
        torch.testing.assert_close(values, torch.tensor(expected))


def test_a_constant_map_has_no_cell_above_its_mean() -> None:
    """It shares nothing with any map that has one, and everything with another constant map."""
    assert of("iou_mean", CONSTANT, A) == 0
    assert of("iou_mean", CONSTANT + 0.7, A) == 0
    assert of("iou_mean", CONSTANT, CONSTANT + 0.7) == 1
    assert of("iou_half", CONSTANT, CONSTANT + 0.5) == 1, "0.5 itself is not above 0.5"
    assert of("iou_half", CONSTANT, CONSTANT + 0.7) == 0


@pytest.mark.parametrize("side", [3, 7, 56])
def test_rounding_of_the_mean_lifts_no_cell_of_a_constant_map(side: int) -> None:
    for value in torch.linspace(0, 1, 101):
        assert not above_mean(value.expand(1, side, side)).any()


def test_iou_counts_cells() -> None:
    a = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    b = torch.tensor([[[0, 1, 1], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    torch.testing.assert_close(iou(a.bool(), b.bool()), torch.tensor([1 / 4, 1 / 2, 0, 1]))


@pytest.mark.parametrize(("side", "cells"), [(2, 1), (4, 3), (7, 8), (10, 15), (16, 39), (20, 60), (56, 471)])
def test_top_15_percent_rounds_up(side: int, cells: int) -> None:
    maps = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    chosen = top_15_percent(maps)
    assert chosen.sum((1, 2)).tolist() == [cells] * 3
    for m, c in zip(maps, chosen, strict=True):
        assert m[c].min() >= m[~c].max()


def test_ties_in_the_top_15_percent_go_to_the_first_in_reading_order() -> None:
    """Three of sixteen cells: the one 1, then the first two of many halves; of a constant map the first three."""
    maps = torch.full((2, 4, 4), 0.5)
    maps[0, 0, 0], maps[0, 3, 3] = 0.0, 1.0
    chosen = top_15_percent(maps)
    assert chosen[0].nonzero().tolist() == [[0, 1], [0, 2], [3, 3]]
    assert chosen[1].nonzero().tolist() == [[0, 0], [0, 1], [0, 2]]


def test_linf_is_the_largest_change_in_any_channel() -> None:
    x0 = torch.full((2, 3, 2, 2), 0.5)
    x = x0.clone()
    x[0, 2, 1, 0], x[1, 0, 0, 0] = 0.25, 0.625
    assert linf(x, x0).tolist() == [0.25, 0.125]


def test_interval_of_the_mean() -> None:
    data = np.random.default_rng(1).normal(3, 2, 400)
    estimate = mean_interval(data)
    assert (estimate.value, estimate.n) == (pytest.approx(data.mean()), 400)
    half_width = 1.96 * data.std() / 20
    assert estimate.value - estimate.low == pytest.approx(half_width, rel=0.1), (
        "2000 resamples scatter by a few percent"
    )
    assert estimate.high - estimate.value == pytest.approx(half_width, rel=0.1)


def test_intervals_cover_the_truth_95_times_in_100() -> None:
    """400 samples of 60: coverage scatters by 1.1 %; percentile intervals are known to fall short by about 1 %."""
    samples = np.random.default_rng(2).normal(0, 1, (400, 60))
    covered = [e.low <= 0 <= e.high for e in (mean_interval(sample, resamples=400) for sample in samples)]
    assert 0.90 < np.mean(covered) < 0.98


def test_intervals_repeat_and_leave_the_global_generator_alone() -> None:
    before = str(np.random.get_state())
    data = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert mean_interval(data) == mean_interval(np.array(data))
    assert str(np.random.get_state()) == before


def test_intervals_of_few_values() -> None:
    assert mean_interval([0.25]) == Estimate(0.25, 0.25, 0.25, 1)
    assert mean_interval([True, True, True]) == Estimate(1.0, 1.0, 1.0, 3)
    nothing = mean_interval([])
    assert nothing.n == 0
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all()


def outcomes() -> pa.Table:
    """Two images under PGD and ADV2 measured by CAM, one under PGD by GRAD; PGD fails on the second image."""
    return pa.table(
        {
            "interpreter": ["cam", "cam", "cam", "cam", "grad"],
            "attack": ["pgd", "adv2", "pgd", "adv2", "pgd"],
            "success": [True, True, False, True, False],
            "confidence": [0.9, 0.8, 0.3, 1.0, 0.1],
            "linf": [0.01, 0.02, 0.03, 0.04, 0.05],
            "success_8bit": [False, True, False, True, False],
            "repeat_l1": [0.01, 0.01, 0.02, 0.02, 0.0],
            "benign_l1": [0.3, 0.2, 0.1, 0.2, 0.4],
            "map_l1": [0.4, 0.1, 0.2, 0.3, 0.5],
            "map_l2": [0.5, 0.2, 0.3, 0.4, 0.6],
            "iou_mean": [0.5, 0.9, 0.7, 0.8, 0.1],
            "iou_half": [0.1, 0.2, 0.3, 0.4, 0.5],
            "iou_top15": [0.5, 0.4, 0.3, 0.2, 0.1],
        }
    )


def test_summary_groups_by_interpreter_and_attack_in_order_of_appearance() -> None:
    assert [(s.interpreter, s.attack, s.asr.n) for s in summarise(outcomes())] == [
        ("cam", "pgd", 2),
        ("cam", "adv2", 2),
        ("grad", "pgd", 1),
    ]


def test_summary_averages_all_images_and_successes_apart() -> None:
    pgd, adv2, failed = summarise(outcomes())
    assert (pgd.asr.value, adv2.asr.value, failed.asr.value) == (0.5, 1.0, 0.0)
    assert (pgd.mc.value, pgd.mc.n) == (0.9, 1), "confidence counts successes only"
    assert adv2.mc.value == pytest.approx(0.9)
    assert (failed.mc.n, failed.successes["map_l1"].n, failed.all_images["map_l1"].value) == (0, 0, 0.5)
    assert (
        set(pgd.all_images)
        == set(pgd.successes)
        == {*DISTANCES, "benign_l1", "repeat_l1", "linf", "plausible", "success_8bit"}
    )
    for name in (*DISTANCES, "benign_l1", "repeat_l1", "linf", "success_8bit"):
        column = outcomes()[name].to_pylist()
        assert pgd.all_images[name].value == pytest.approx((column[0] + column[2]) / 2)
        assert pgd.successes[name].value == column[0]


def test_flows_are_averaged_where_images_were_bent() -> None:
    """A run of another solver has the columns without values; an older run has none."""
    lengths = pa.array([0.5, None, 0.1, None, None], pa.float64())
    bent, *others = summarise(outcomes().append_column("flow_mean", lengths).append_column("flow_smoothness", lengths))
    assert bent.all_images["flow_mean"].value == pytest.approx(0.3)
    assert bent.successes["flow_smoothness"].value == 0.5
    assert not any(name in each.all_images for each in others for name in FLOW)


def test_a_map_is_plausible_above_one_half_and_not_at_it() -> None:
    assert PLAUSIBLE == 0.5
    pgd, adv2, _ = summarise(outcomes())
    assert (pgd.all_images["plausible"].value, adv2.all_images["plausible"].value) == (0.5, 1.0)


def test_boxes_are_the_smallest_around_the_true_cells() -> None:
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    masks[0, 1, 3] = masks[0, 2, 1] = True
    masks[1, 3, 4] = True
    around = torch.zeros_like(masks)
    around[0, 1:3, 1:4] = around[1, 3, 4] = True
    assert torch.equal(boxes(masks), around)


@pytest.mark.parametrize("levels", [3, 10_000])
def test_rank_correlation_is_spearmans(levels: int) -> None:
    numbers = torch.Generator().manual_seed(0)
    a, b = (torch.randint(levels, (6, 5, 7), generator=numbers) / levels for _ in range(2))
    b[3], b[4] = a[3].square(), 1 - a[4]
    expected = [spearmanr(u.flatten(), v.flatten()).statistic for u, v in zip(a, b, strict=True)]
    found = rank_correlation(a, b)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found[3:5].tolist() == pytest.approx([1, -1])


def test_a_constant_map_ranks_nothing() -> None:
    maps = torch.rand(2, 3, 3)
    assert rank_correlation(maps, torch.ones(2, 3, 3)).tolist() == [0, 0]
    assert rank_correlation(torch.ones(2, 3, 3), torch.ones(2, 3, 3)).tolist() == [0, 0]


def test_wilson_stays_within_bounds() -> None:
    low, high = wilson(16, 16)
    assert (low, high) == pytest.approx((0.8064, 1.0), abs=1e-3)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)


def test_a_share_comes_with_its_interval() -> None:
    found = share([True, False, False, False])
    assert (found.value, found.n) == (0.25, 4)
    assert (found.low, found.high) == wilson(1, 4)
    assert share([False] * 30).low == 0
    assert share([True] * 30).high == 1


def test_nothing_has_no_share() -> None:
    found = share([])
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n) == (0, 1, 0)
