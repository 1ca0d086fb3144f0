"""Localisation: threshold rules and boxes by hand, parameters chosen on one half, pointing, the floors."""

import math

import pytest
import torch
from torch import Tensor

from tiny_networks import classifier
from underfire.core.rng import halves, image_keys
from underfire.interpreters.baselines import Centre, RandomMap
from underfire.metrics.localisation import (
    RULES,
    Fitted,
    energy,
    fit_all,
    fitted,
    hits,
    is_wrong,
    mean,
    overlaps,
    salient,
    upscaled,
    value,
)
from underfire.metrics.maps import boxes

MODEL = classifier("resnet")  # which floors never ask
HAND = torch.tensor([[[0.0, 0.1, 0.1, 0.0], [0.0, 0.9, 0.5, 0.1], [0.0, 0.6, 1.0, 0.1], [0.3, 0.0, 0.0, 0.2]]])


def cells(*rows: str) -> Tensor:
    return torch.tensor([[[mark == "#" for mark in row] for row in rows]])


# ------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("rule", "parameter", "expected"),
    [
        ("value", 0.55, ("....", ".#..", ".##.", "....")),
        ("value", 0.95, ("....", "....", "..#.", "....")),
        ("value", 0.25, ("....", ".##.", ".##.", "#...")),
        ("energy", 0.25, ("....", "....", "..#.", "....")),  # 1 of 3.9 holds a quarter
        ("energy", 0.30, ("....", ".#..", "..#.", "....")),
        ("energy", 0.75, ("....", ".##.", ".##.", "....")),  # .9 + .5 + .6 + 1 = 3 of 3.9
        ("energy", 0.80, ("....", ".##.", ".##.", "#...")),
        ("mean", 2.0, ("....", ".##.", ".##.", "....")),  # of .24375
        ("mean", 3.5, ("....", ".#..", "..#.", "....")),
    ],
)
def test_rules_by_hand(rule: str, parameter: float, expected: tuple[str, ...]) -> None:
    assert torch.equal(salient(RULES[rule], parameter, HAND), cells(*expected))


def test_boxes_by_hand() -> None:
    found = boxes(salient(RULES["value"], 0.25, HAND))
    assert torch.equal(found, cells("....", "###.", "###.", "###."))
    assert torch.equal(boxes(salient(RULES["energy"], 0.75, HAND)), cells("....", ".##.", ".##.", "...."))


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.5, 0.77, 0.95])
def test_the_energy_set_holds_enough_and_one_level_less_does_not(fraction: float) -> None:
    maps = torch.rand(20, 6, 7, generator=torch.Generator().manual_seed(0)).square()
    threshold = energy(maps, fraction)[:, None, None]
    total = maps.double().sum((1, 2))
    assert bool(((maps * (maps >= threshold)).double().sum((1, 2)) >= fraction * total - 1e-6).all())
    assert bool(((maps * (maps > threshold)).double().sum((1, 2)) < fraction * total).all())


def test_equal_cells_enter_the_energy_set_together() -> None:
    maps = torch.zeros(1, 3, 3)
    maps[0, 0, 0] = maps[0, 2, 2] = 1
    assert torch.equal(salient(RULES["energy"], 0.3, maps), maps > 0)


def test_thresholds_are_the_formulas() -> None:
    maps = 0.2 + torch.rand(5, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    torch.testing.assert_close(value(maps, 0.3), low + 0.3 * (high - low))
    torch.testing.assert_close(mean(maps, 1.5), 1.5 * maps.mean((1, 2)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_a_constant_map_has_no_box_and_is_an_error(rule: str, level: float) -> None:
    maps, objects = torch.full((2, 4, 4), level), torch.ones(2, 4, 4, dtype=torch.bool)
    assert not salient(RULES[rule], 0.25, maps).any()
    ious = overlaps(maps, objects)[rule]
    assert bool(is_wrong(ious, torch.zeros(2, 1, dtype=torch.bool)).all())
    assert hits(maps, objects).tolist() == [0, 0]


def test_boxes_are_measured_in_pixels() -> None:
    maps = upscaled(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), 8, 8)
    assert maps.shape == (1, 8, 8)
    assert torch.equal(
        salient(RULES["value"], 0.95, maps)[0], torch.nn.functional.pad(torch.ones(2, 2), (6, 0, 6, 0)) > 0
    )


def test_a_box_of_half_the_union_is_right_and_a_smaller_one_wrong() -> None:
    objects = cells("####", "....", "....", "....")
    half = torch.zeros(1, 4, 4)
    half[0, 0, :2] = 1
    assert not is_wrong(overlaps(half, objects)["value"][:, 10], torch.tensor([False])).any()
    half[0, 0, 1] = 0
    assert is_wrong(overlaps(half, objects)["value"][:, 10], torch.tensor([False])).all()


def test_a_wrong_class_is_an_error_whatever_the_box() -> None:
    assert is_wrong(torch.tensor([1.0, 0.4]), torch.tensor([True, False])).all()


# ------------------------------------------------------------------ choice


def random_task(n: int = 24) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(3)
    maps, objects = torch.rand(n, 8, 8, generator=numbers) ** 3, torch.zeros(n, 8, 8, dtype=torch.bool)
    objects[:, 2:7, 1:6] = True
    maps[:, 3:6, 2:6] += 0.4
    return maps, objects, torch.rand(n, generator=numbers) < 0.2, *halves(tuple(map(str, range(n))), 0)


def test_the_other_half_changes_no_parameter() -> None:
    maps, objects, wrong, fitting, judged = random_task()

    def choices() -> list[tuple[str, float, Fitted]]:
        return [(each.rule, each.parameter, each.choice) for each in fit_all(overlaps(maps, objects), wrong, fitting)]

    before = choices()
    maps[judged], wrong[judged] = maps[judged].flip(1).square(), True
    objects[judged] = objects[judged].roll(2, 2)
    assert choices() == before
    maps[fitting] = maps[fitting].flip(1).square()
    assert choices() != before


def test_the_choice_is_the_lowest_error_then_the_largest_overlap_then_the_smallest_parameter() -> None:
    right, everyone = torch.tensor([False, False]), torch.arange(2)
    assert fitted(torch.tensor([[0.4, 0.9, 0.6], [0.4, 0.4, 0.6]]), right, everyone).index == 2
    assert fitted(torch.tensor([[0.6, 0.7, 0.7], [0.6, 0.7, 0.7]]), right, everyone).index == 1
    chosen = fitted(torch.tensor([[0.9, 0.6], [0.9, 0.6]]), torch.tensor([True, False]), everyone)
    assert (chosen.index, chosen.error) == (0, 0.5)
    assert chosen.overlap == pytest.approx(0.9)


def test_each_rule_gives_the_overlap_at_its_parameter() -> None:
    maps, objects, wrong, fitting, _ = random_task()
    for each in fit_all(overlaps(maps, objects), wrong, fitting):
        rule = RULES[each.rule]
        assert rule.grid[each.choice.index] == each.parameter
        assert torch.equal(each.ious, overlaps(maps, objects)[each.rule][:, each.choice.index])


# ------------------------------------------------------------------ pointing


def test_pointing_counts_the_share_of_tied_maxima_on_the_object() -> None:
    maps = torch.zeros(3, 2, 2)
    maps[0, 0, 0] = 1
    maps[1, 0] = 1
    maps[2] = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    area = cells("#.", "..").expand(3, -1, -1)
    torch.testing.assert_close(hits(maps, area), torch.tensor([1.0, 0.5, 1 / 3]))


# ------------------------------------------------------------------ floors


def test_the_centre_map_cuts_into_centred_boxes() -> None:
    x, nothing = torch.zeros(2, 3, 10, 20), torch.zeros(2, dtype=torch.int64)
    maps = Centre().explain(MODEL, x, nothing, nothing)
    assert maps.shape == (2, 10, 20)
    for rule in RULES.values():
        found = salient(rule, rule.grid[8], maps)
        assert torch.equal(found, boxes(found))
        assert torch.equal(found, found.flip(1).flip(2))
    half = salient(RULES["value"], 0.5, maps)
    assert half[0].any(1).sum() == pytest.approx(5, abs=1)
    assert half[0].any(0).sum() == pytest.approx(10, abs=1)
    assert hits(maps, boxes(maps == maps.amax())).tolist() == [1, 1]


def test_chance_is_a_function_of_seed_and_image() -> None:
    keys = image_keys(["a", "b", "c"])
    x = torch.zeros(3, 3, 16, 16)
    maps = RandomMap().explain(MODEL, x, keys, keys)
    assert maps.shape == (3, 8, 8)
    assert torch.equal(RandomMap().explain(MODEL, x[:1], keys[1:2], keys[1:2])[0], maps[1])
    assert not torch.equal(RandomMap(seed=1).explain(MODEL, x, keys, keys), maps)
    many_keys = image_keys(map(str, range(500)))
    many = RandomMap().explain(MODEL, torch.zeros(500, 3, 1, 1), many_keys, many_keys)
    assert many.mean() == pytest.approx(0.5, abs=0.01)
    assert many.std() == pytest.approx(math.sqrt(1 / 12), abs=0.01)
