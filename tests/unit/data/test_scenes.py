"""Scenes: a function of (seed, index), shapes of known area, masks that agree with the picture."""

import math

import pytest
import torch
import torch.nn.functional as F

from underfire.core.errors import UnderfireError
from underfire.data.scenes import _SHAPES, CLASSES, LARGEST, SIZE, SMALLEST, Scenes, scenes


@pytest.fixture(scope="module")
def many() -> Scenes:
    return scenes(500, seed=3)


def test_records_have_the_stated_shapes_and_range(many: Scenes) -> None:
    images = many.samples.images
    assert images.shape == (500, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert many.masks.shape == (500, SIZE, SIZE)
    assert many.samples.ids[12] == "scene-3-000012"


def test_classes_are_balanced(many: Scenes) -> None:
    assert torch.bincount(many.samples.labels).tolist() == [500 // len(CLASSES)] * len(CLASSES)


@pytest.mark.parametrize("index", [0, 77, 128, 499])
def test_a_scene_is_the_same_alone_and_in_company(many: Scenes, index: int) -> None:
    alone = scenes(1, seed=3, first=index)
    assert alone.samples.ids == (many.samples.ids[index],)
    assert torch.equal(alone.samples.images[0], many.samples.images[index])
    assert torch.equal(alone.samples.labels[0], many.samples.labels[index])
    assert torch.equal(alone.masks[0], many.masks[index])


def test_seeds_and_indices_give_different_scenes() -> None:
    pictures = torch.cat([scenes(10, seed=seed).samples.images for seed in (0, 1)]).flatten(1)
    distance = (pictures[:, None] - pictures[None]).abs().mean(2)
    assert (distance[~torch.eye(20, dtype=torch.bool)] > 0.02).all()


def test_global_generator_is_untouched() -> None:
    before = torch.get_rng_state()
    scenes(2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_shapes_fill_a_plausible_part_of_the_picture_and_stay_inside(many: Scenes) -> None:
    share_of_circle = many.masks.sum((1, 2)) / (math.pi / 4)
    assert share_of_circle.min() > 0.2 * SMALLEST**2
    assert share_of_circle.max() < 0.95 * LARGEST**2
    border = torch.ones(SIZE, SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not (many.masks & border).any()


def test_pixels_inside_a_mask_differ_from_those_around_it(many: Scenes) -> None:
    masks = many.masks.float()[:, None]
    around = F.max_pool2d(masks, 7, stride=1, padding=3) - masks
    inside, outside = ((many.samples.images * region).sum((2, 3)) / region.sum((2, 3)) for region in (masks, around))
    assert ((inside - outside).norm(dim=1) > 0.1).all()


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", math.pi * 0.95**2),
        ("ring", math.pi * (0.99**2 - 0.49**2)),
        ("square", 2.0),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("star", 5 * math.sin(math.pi / 5) * math.cos(math.tau / 5) / math.cos(math.pi / 5)),
        ("cross", 8 * 0.94 * 0.3 - 4 * 0.3**2),
        ("heart", 1.04**2 + math.pi * 0.52**2),
        ("arrow", 0.8 + 0.92 * 0.48),
    ],
)
def test_shape_has_the_area_of_its_geometry(name: str, area: float) -> None:
    axis = torch.linspace(-1.2, 1.2, 1201, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = _SHAPES[name](x[None], y[None]) < 0
    assert inside.double().mean().item() * 1201**2 * 0.002**2 == pytest.approx(area, rel=0.005)


@pytest.mark.parametrize("name", CLASSES)
def test_shape_lies_in_the_unit_circle_with_unit_slope_at_its_edge(name: str) -> None:
    axis = torch.linspace(-1.5, 1.5, 601, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    distance = _SHAPES[name](x[None], y[None])[0]
    assert (distance[torch.hypot(x, y) > 1.06] > 0).all()
    slope = torch.hypot(*torch.gradient(distance, spacing=3 / 600))[distance.abs() < 0.02]
    assert slope.median().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("count", "first"), [(0, 0), (3, -1)])
def test_impossible_ranges_are_refused(count: int, first: int) -> None:
    with pytest.raises(UnderfireError, match="count ≥ 1"):
        scenes(count, seed=0, first=first)
