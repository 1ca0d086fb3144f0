"""What distances of attacked maps are held against, on maps small enough to count."""

import math

import pytest
import torch

from underfire.core.rng import image_keys
from underfire.metrics.floors import between_images, natural, partners
from underfire.metrics.maps import compare_maps

KEYS = image_keys(f"photo-{i}.jpg" for i in range(60))
LABELS = torch.arange(60) % 3


def test_each_image_is_paired_with_one_of_another_class() -> None:
    chosen = partners(KEYS, LABELS, seed=0)
    assert (LABELS[chosen] != LABELS).all()
    assert len(set(chosen.tolist())) > 20, "not all with the same one"
    assert torch.equal(chosen, partners(KEYS, LABELS, seed=0))
    assert not torch.equal(chosen, partners(KEYS, LABELS, seed=1))


def test_of_one_class_alone_it_is_another_image() -> None:
    chosen = partners(KEYS, torch.zeros(60, dtype=torch.long), seed=0)
    assert (chosen != torch.arange(60)).all()


def test_a_map_is_compared_with_its_partner_and_with_the_mean_of_all_others() -> None:
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    partner = torch.tensor([1, 2, 3, 0])
    found = between_images(maps.__getitem__, partner)
    for i in range(4):
        others = torch.stack([maps[j] for j in range(4) if j != i]).mean(0)
        for name, reference in (("unrelated", maps[partner[i]]), ("mean_map", others)):
            expected = compare_maps(maps[i][None], reference[None])
            assert found[f"{name}_l1"][i] == pytest.approx(float(expected["map_l1"]), abs=1e-6)
            assert found[f"{name}_iou"][i] == pytest.approx(float(expected["iou_mean"]), abs=1e-6)


def test_a_map_that_is_alone_is_held_against_nothing() -> None:
    found = between_images(torch.rand(1, 3, 3).__getitem__, partners(KEYS[:1], LABELS[:1], seed=0))
    assert all(math.isnan(values[0]) for values in found.values())


def test_natural_variation_is_what_all_but_five_percent_of_the_changes_stay_within() -> None:
    distances = torch.linspace(0, 1, 21)[None]
    found = natural(distances, 1 - distances)
    assert float(found["natural_l1"]) == pytest.approx(0.95)
    assert float(found["natural_iou"]) == pytest.approx(0.05)


def test_nothing_depends_on_how_many_maps_are_looked_at_at_once() -> None:
    maps = torch.rand(60, 3, 3, generator=torch.Generator().manual_seed(0))
    partner = partners(KEYS, LABELS, seed=0)
    together, apart = (between_images(maps.__getitem__, partner, at_once) for at_once in (60, 7))
    assert all(torch.equal(together[name], apart[name]) for name in together)


def test_no_more_maps_are_read_at_once_than_asked_for() -> None:
    maps, read = torch.rand(60, 3, 3, generator=torch.Generator().manual_seed(0)), list[int]()

    def maps_at(places: torch.Tensor) -> torch.Tensor:
        read.append(len(places))
        return maps[places]

    between_images(maps_at, partners(KEYS, LABELS, seed=0), at_once=7)
    assert max(read) == 7
    assert sum(read) == 3 * 60, "for the mean, as its own, and as a partner"
