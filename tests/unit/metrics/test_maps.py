"""Map metrics and judgements on maps small enough to count."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from underfire.metrics import maps
from underfire.metrics.maps import DISTANCES, boxes, compare_maps, iou, is_faint, judged, rank_correlation

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
        assert [float(v) for v in values.values()][:2] == [0, 0]
        assert all(math.isnan(v) or v == 1 for v in list(values.values())[2:])
        assert values["iou_top15"] == 1


def test_each_pair_of_maps_is_compared_by_itself() -> None:
    together = compare_maps(torch.stack([A, B, CONSTANT]), torch.stack([B, B, A]))
    for name, values in together.items():
        expected = [of(name, A, B), of(name, B, B), of(name, CONSTANT, A)]
        torch.testing.assert_close(values, torch.tensor(expected))


def test_a_constant_map_has_no_cell_above_its_mean() -> None:
    """It shares nothing with any map that has one, and there is nothing to compare with another constant map."""
    assert of("iou_mean", CONSTANT, A) == 0
    assert of("iou_mean", CONSTANT + 0.7, A) == 0
    assert math.isnan(of("iou_mean", CONSTANT, CONSTANT + 0.7))
    assert math.isnan(of("iou_half", CONSTANT, CONSTANT + 0.5)), "0.5 itself is not above 0.5"
    assert of("iou_half", CONSTANT, CONSTANT + 0.7) == 0


@pytest.mark.parametrize("side", [3, 7, 56])
def test_rounding_of_the_mean_lifts_no_cell_of_a_constant_map(side: int) -> None:
    for value in torch.linspace(0, 1, 101):
        assert not maps.above_mean(value.expand(1, side, side)).any()


def test_iou_counts_cells() -> None:
    a = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    b = torch.tensor([[[0, 1, 1], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    torch.testing.assert_close(iou(a.bool(), b.bool()), torch.tensor([1 / 4, 1 / 2, 0, math.nan]), equal_nan=True)


@pytest.mark.parametrize(("side", "cells"), [(2, 1), (4, 3), (7, 8), (10, 15), (16, 39), (20, 60), (56, 471)])
def test_top_15_percent_rounds_up(side: int, cells: int) -> None:
    values = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    chosen = maps.top_15_percent(values)
    assert chosen.sum((1, 2)).tolist() == [cells] * 3
    for m, c in zip(values, chosen, strict=True):
        assert m[c].min() >= m[~c].max()


def test_ties_in_the_top_15_percent_go_to_the_first_in_reading_order() -> None:
    """Three of sixteen cells: the one 1, then the first two of many halves; of a constant map the first three."""
    values = torch.full((2, 4, 4), 0.5)
    values[0, 0, 0], values[0, 3, 3] = 0.0, 1.0
    chosen = maps.top_15_percent(values)
    assert chosen[0].nonzero().tolist() == [[0, 1], [0, 2], [3, 3]]
    assert chosen[1].nonzero().tolist() == [[0, 0], [0, 1], [0, 2]]


def test_linf_is_the_largest_change_in_any_channel() -> None:
    x0 = torch.full((2, 3, 2, 2), 0.5)
    x = x0.clone()
    x[0, 2, 1, 0], x[1, 0, 0, 0] = 0.25, 0.625
    assert maps.linf(x, x0).tolist() == [0.25, 0.125]


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
    values = torch.rand(2, 3, 3)
    assert rank_correlation(values, torch.ones(2, 3, 3)).tolist() == [0, 0]
    assert rank_correlation(torch.ones(2, 3, 3), torch.ones(2, 3, 3)).tolist() == [0, 0]


# ------------------------------------------------------------------ judgements


def judgement(distance: float, overlap: float, noise: float = 0.0, faint: bool = False) -> str:
    (found,) = judged(*(torch.tensor([each]) for each in (distance, overlap, noise)), torch.tensor([faint]))
    return found


def test_a_map_is_plausible_above_one_half_and_not_at_it() -> None:
    assert judgement(0.2, 0.501) == "plausible"
    assert judgement(0.2, 0.5) == judgement(0.2, 0.0) == "changed"


def test_within_its_own_noise_no_map_has_changed() -> None:
    """However little the dust of two maps that are nearly the same overlaps."""
    assert judgement(0.026, 0.1, noise=0.043) == judgement(0.043, 0.9, noise=0.043) == "unchanged"
    assert judgement(0.044, 0.1, noise=0.043) == "changed"
    assert judgement(0.0, 1.0) == "unchanged"


def test_at_least_the_mean_noise_of_all_images_counts() -> None:
    noise = torch.tensor([0.0, 0.1, 0.2])
    assert judged(torch.full((3,), 0.15), torch.zeros(3), noise, torch.zeros(3, dtype=torch.bool)) == [
        "changed",
        "changed",
        "unchanged",
    ]
    assert judged(torch.full((3,), 0.09), torch.zeros(3), noise, torch.zeros(3, dtype=torch.bool)) == ["unchanged"] * 3


def test_where_there_is_nothing_to_see_nothing_is_judged() -> None:
    for distance, overlap in ((0.0, 1.0), (0.9, 0.0), (0.1, math.nan)):
        assert judgement(distance, overlap, faint=True) == "nothing to see"


@pytest.mark.parametrize("base", [0.0, 0.4, 0.7])
def test_a_map_is_faint_that_spans_less_than_a_quarter_of_the_scale(base: float) -> None:
    """Wherever on the scale it lies; one cell that stands out is enough to be seen."""
    values = torch.full((3, 8, 8), base)
    values[1, 3, 4] += 0.24
    values[2, 3, 4] += 0.26
    assert is_faint(values).tolist() == [True, True, False]


def test_a_map_of_no_numbers_overlaps_with_nothing() -> None:
    """In place of an IoU of 1 between two sets that are empty because nothing exceeds NaN."""
    broken = torch.full((1, 4, 4), math.nan)
    for pair in ((broken, broken), (broken, torch.rand(1, 4, 4)), (torch.rand(1, 4, 4), broken)):
        assert all(math.isnan(value) for value in compare_maps(*pair).values())
    assert is_faint(broken).all()
    assert judgement(math.nan, math.nan) == "changed"
