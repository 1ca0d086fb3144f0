"""Target maps: patches follow their distribution and are one shape on every grid; borrowed and painted maps."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from underfire.attacks.target_maps import (
    NO_DONOR,
    Patch,
    Patches,
    Pool,
    RandomClassMap,
    TargetMap,
    Wanted,
    covered,
    target_map_named,
)
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys

KEYS = image_keys(map(str, range(4000)))
DRAWN = Patch().draw(KEYS, seed=0)


def pool(labels: list[int], rows: int = 4, columns: int = 4) -> Pool:
    """Images "0", "1", …; the map of image i is constant i."""
    maps = torch.arange(len(labels))[:, None, None].expand(-1, rows, columns).double()
    return Pool(image_keys(map(str, range(len(labels)))), torch.tensor(labels), maps)


def painted(rule: TargetMap, count: int, rows: int, columns: int) -> Tensor:
    given = Wanted(KEYS[:count], torch.zeros(count, dtype=torch.int64), pool([0, 1], rows, columns))
    maps, donors = rule.maps(given, seed=0)
    assert set(donors.tolist()) == {NO_DONOR}
    return maps


def one(circle: float, centre: tuple[float, float], half: tuple[float, float], angle: float) -> Patches:
    numbers = (torch.tensor([value], dtype=torch.float64) for value in (circle, centre, half, angle))
    return Patches(*numbers)


def named(path: Path) -> TargetMap:
    rule = target_map_named(str(path))
    assert rule is not None
    return rule


# ------------------------------------------------------------------ patches


def test_half_of_the_patches_are_circles() -> None:
    assert stats.binomtest(int(DRAWN.circle.sum()), len(KEYS)).pvalue > 1e-4


def test_areas_are_uniform_between_5_and_26_percent() -> None:
    factor = torch.where(DRAWN.circle == 1, math.pi, 4.0)
    area = (factor * DRAWN.half.prod(1)).numpy()
    assert stats.kstest(area, stats.uniform(0.05, 0.21).cdf).pvalue > 1e-4


def test_the_painted_share_is_the_area() -> None:
    share = painted(Patch(), 100, 28, 28).mean((1, 2))
    area = torch.where(DRAWN.circle == 1, math.pi, 4.0) * DRAWN.half.prod(1)
    assert torch.allclose(share, area[:100], atol=2e-3)
    assert float(share.mean()) == pytest.approx(0.155, abs=4.5 * 0.21 / math.sqrt(12 * 100))


def test_angles_and_side_ratios_are_spread_evenly() -> None:
    assert stats.kstest(DRAWN.angle.numpy(), stats.uniform(0, math.pi).cdf).pvalue > 1e-4
    sides = DRAWN.half[DRAWN.circle == 0]
    ratio = (sides[:, 0] / sides[:, 1]).log().numpy()
    assert stats.kstest(ratio, stats.uniform(0, math.log(3)).cdf).pvalue > 1e-4


def test_centres_are_uniform_where_the_shape_fits() -> None:
    """Of circles the room is known: from the radius to one minus the radius."""
    circles = DRAWN.circle == 1
    radius = DRAWN.half[circles, 0]
    for side in (0, 1):
        place = (DRAWN.centre[circles, side] - radius) / (1 - 2 * radius)
        assert stats.kstest(place.numpy(), "uniform").pvalue > 1e-4


def test_the_whole_shape_lies_inside_and_touches_its_room() -> None:
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    across, beside = (corners * DRAWN.half[:, None]).unbind(2)
    c, s = DRAWN.angle.cos()[:, None], DRAWN.angle.sin()[:, None]
    down, along = across * c + beside * s, -across * s + beside * c
    rectangle = DRAWN.circle == 0
    for offset, centre in ((down, DRAWN.centre[:, 0]), (along, DRAWN.centre[:, 1])):
        place = (centre[:, None] + offset)[rectangle]
        assert float(place.min()) >= 0
        assert float(place.max()) <= 1
    assert float((DRAWN.centre - DRAWN.half)[~rectangle].min()) >= 0
    assert float((DRAWN.centre + DRAWN.half)[~rectangle].max()) <= 1


def test_a_patch_is_the_same_shape_on_every_grid() -> None:
    fine = painted(Patch(), 12, 56, 84)
    for rows, columns in ((7, 7), (8, 12), (14, 21), (56, 28)):
        coarse = painted(Patch(), 12, rows, columns)
        averaged = torch.nn.functional.adaptive_avg_pool2d(fine, (rows, columns))
        assert float((coarse - averaged).abs().max()) < 0.05
        assert float((coarse - averaged).abs().mean()) < 0.002


def test_a_patch_is_one_inside_and_zero_outside() -> None:
    maps = painted(Patch(), 20, 56, 56)
    assert ((maps == 0) | (maps == 1)).double().mean() > 0.9
    assert maps.amax((1, 2)).min() == 1
    assert maps.amin((1, 2)).max() == 0


def test_edges_are_the_share_of_the_cell_that_is_covered() -> None:
    square = covered(one(0.0, (0.5, 0.5), (0.25, 0.375), 0.0), 4, 4)[0]
    row = torch.tensor([0.5, 1.0, 1.0, 0.5], dtype=torch.float64)
    assert torch.equal(square, torch.stack([0 * row, row, row, 0 * row]))
    turned = covered(one(0.0, (0.5, 0.5), (0.25, 0.375), math.pi / 2), 4, 4)[0]
    assert torch.allclose(turned, square.T)
    disc = covered(one(1.0, (0.5, 0.5), (0.5, 0.5), 1.0), 2, 2)[0]
    assert torch.allclose(disc, torch.full((2, 2), math.pi / 4, dtype=torch.float64), atol=1e-2)
    eighth = covered(one(0.0, (0.5, 0.5), (0.3, 0.1), math.pi / 4), 64, 64)[0]
    assert (eighth[21, 42], eighth[21, 21]) == (1, 0), (
        "the first half side points down at angle 0, and turns to the left"
    )


def test_patches_depend_on_seed_and_image_alone() -> None:
    some = Patch().draw(KEYS[[7, 3]], seed=0)
    assert torch.equal(some.centre, DRAWN.centre[[7, 3]])
    given = Wanted(KEYS[[7, 3]], torch.tensor([4, 5]), pool([5, 6, 7], 9, 9))
    assert torch.equal(Patch().maps(given, seed=0)[0], painted(Patch(), 8, 9, 9)[[7, 3]])
    assert not torch.equal(Patch().draw(KEYS, seed=1).centre, DRAWN.centre)


# ------------------------------------------------------------------ borrowed maps


def test_a_borrowed_map_is_of_another_class_than_the_target_and_of_another_image() -> None:
    labels = [0, 1, 2] * 20
    lenders = pool(labels)
    target = (lenders.labels + 1) % 3
    maps, donors = RandomClassMap().maps(Wanted(lenders.keys, target, lenders), seed=0)
    assert not bool((lenders.labels[donors] == target).any())
    assert not bool((donors == torch.arange(60)).any())
    assert torch.equal(maps, lenders.maps[donors])


def test_donors_are_uniform_and_do_not_depend_on_the_order() -> None:
    lenders = pool([0, 0, 1, 2, 2, 1, 2])
    target = torch.ones(4000, dtype=torch.int64)
    _, donors = RandomClassMap().maps(Wanted(KEYS[10:], target[10:], lenders), seed=0)
    counts = torch.bincount(donors, minlength=7)
    assert counts[[2, 5]].tolist() == [0, 0]
    assert stats.chisquare(counts[[0, 1, 3, 4, 6]].numpy()).pvalue > 1e-4
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    mixed = Pool(lenders.keys[order], lenders.labels[order], lenders.maps[order])
    _, again = RandomClassMap().maps(Wanted(KEYS[10:], target[10:], mixed), seed=0)
    assert torch.equal(order[again], donors)


@pytest.mark.parametrize(("labels", "target"), [([0], 1), ([0, 1, 1], 1)])
def test_nobody_to_borrow_from(labels: list[int], target: int) -> None:
    lenders = pool(labels)
    with pytest.raises(UnderfireError, match=r"No other image can lend its map to .* class is 1.*--n"):
        RandomClassMap().maps(Wanted(lenders.keys[:1], torch.tensor([target]), lenders), seed=0)


# ------------------------------------------------------------------ pictures and names


def test_a_picture_is_read_as_luminance_and_averaged(tmp_path: Path) -> None:
    pixels = np.zeros((6, 4, 3), dtype=np.uint8)
    pixels[:3, :2], pixels[3:, 2:, 1] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "map.png")
    maps = painted(named(tmp_path / "map.png"), 3, 2, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.587]], dtype=torch.float64)
    assert torch.allclose(maps, expected.expand(3, 2, 2), atol=1e-6)
    assert float(painted(named(tmp_path / "map.png"), 1, 5, 3).mean()) == pytest.approx((1 + 0.587) / 4)


def test_a_picture_is_known_by_its_content(tmp_path: Path) -> None:
    grey = np.full((4, 4), 99, dtype=np.uint8)
    for name, values in (("a.png", grey), ("b.bmp", grey), ("c.png", grey + 1)):
        Image.fromarray(values).save(tmp_path / name)
    a, b, c = (named(tmp_path / name) for name in ("a.png", "b.bmp", "c.png"))
    assert a == b != c


def test_names() -> None:
    assert target_map_named("benign") is None
    assert target_map_named("patch") == Patch()
    assert target_map_named("random-class") == RandomClassMap()


def test_what_is_no_target_map(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    for name in (tmp_path, tmp_path / "none.png", "blob"):
        with pytest.raises(UnderfireError, match=r"There is no target map '.*'; give benign, patch, random-class, or"):
            target_map_named(str(name))
    with pytest.raises(UnderfireError, match=r"target map .*notes\.png cannot be read as a picture"):
        target_map_named(str(tmp_path / "notes.png"))
