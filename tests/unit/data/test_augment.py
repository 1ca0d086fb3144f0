"""Variants of training pictures: turned, mirrored, cut and coloured, each image by its own draws."""

import pytest
import torch

from tiny_networks import images
from underfire.core.rng import image_keys
from underfire.data import augment
from underfire.data.augment import varied

KEYS = image_keys(map(str, range(64)))


def test_variants_are_pictures_of_the_same_size_and_within_range() -> None:
    for height, width in ((16, 16), (12, 20)):
        x = images(64, side=20)[:, :, :height, :width]
        variants = varied(x, KEYS, 0, 0)
        assert variants.shape == x.shape
        assert 0 <= variants.min() <= variants.max() <= 1


def test_variants_are_an_image_s_own_at_each_step() -> None:
    x, order = images(64), torch.tensor([40, 3, 11])
    variants = varied(x, KEYS, 5, 1)
    assert torch.equal(varied(x[order], KEYS[order], 5, 1), variants[order])
    for step, seed in ((6, 1), (5, 2)):
        assert not torch.equal(varied(x, KEYS, step, seed), variants)


def test_all_eight_ways_to_lay_a_picture_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "SMALLEST_CUT", 1.0)
    monkeypatch.setattr(augment, "COLOUR", 0.0)
    picture = images(1)[0]
    turned = [torch.rot90(picture, quarters, (1, 2)) for quarters in range(4)]
    ways = [*turned, *(each.flip(2) for each in turned)]
    variants = varied(picture.expand(64, -1, -1, -1), KEYS, 0, 0)
    found = [[i for i, way in enumerate(ways) if torch.allclose(variant, way, atol=1e-6)] for variant in variants]
    assert all(len(each) == 1 for each in found)
    assert {each[0] for each in found} == set(range(8))


def test_cuts_show_a_part_and_colours_change_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = torch.linspace(0.2, 0.8, 50).expand(64, 3, 50, 50)
    monkeypatch.setattr(augment, "COLOUR", 0.0)
    cut = varied(ramp, KEYS, 0, 0).flatten(1)
    extent = (cut.amax(1) - cut.amin(1)) / 0.6
    assert extent.min() < 0.85
    assert extent.max() > 0.95
    assert (extent > 0.78).all()
    monkeypatch.setattr(augment, "COLOUR", 0.1)
    grey = varied(torch.full((64, 3, 8, 8), 0.5), KEYS, 0, 0).mean((1, 2, 3))
    assert 0.44 < grey.min() < 0.47
    assert 0.53 < grey.max() < 0.56
