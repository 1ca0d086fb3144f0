"""How far apart maps are that no attack has touched: what distances of attacked maps are to be held against.

    unrelated   the benign map of another image, of another class where there is one
    mean map    the mean of the benign maps of all other images
    natural     maps of the same image under harmless changes (`runs.specs.Vary`), the worst but for 5 %

Where unrelated maps are often called plausible, that word says nothing (`INDISTINCT`).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underfire.core.rng import uniform
from underfire.core.types import Keys, Labels, Maps, Row
from underfire.metrics.maps import above_mean, iou, map_l1

INDISTINCT = 0.2  # share of plausible unrelated pairs from which on one map in five would pass for any other
QUANTILE = 0.95
MapsAt = Callable[[Int[Tensor, " m"]], Maps]


def partners(keys: Keys, labels: Labels, seed: int) -> Int[Tensor, " n"]:
    """Another image for each, of another class where there is one; itself where it is the only image."""
    drawn = uniform(seed, "unrelated", keys, torch.zeros_like(keys), 1)[:, 0].tolist()
    return torch.tensor([_partner(place, draw, labels) for place, draw in enumerate(drawn)])


def _partner(place: int, draw: float, labels: Labels) -> int:
    unlike = (labels != labels[place]).nonzero()[:, 0]
    others = unlike if len(unlike) else torch.tensor([i for i in range(len(labels)) if i != place])
    return int(others[int(draw * len(others))]) if len(others) else place


def between_images(maps_at: MapsAt, partner: Int[Tensor, " n"], at_once: int = 64) -> dict[str, Row]:
    """Distance and overlap of each map with its partner's and with the mean of all others; NaN where it is alone.

    `maps_at` reads the maps at some places, so that no more than a few are in memory.
    """
    chunks = torch.split(torch.arange(len(partner)), at_once)
    total = torch.stack([maps_at(chunk).sum(0, dtype=torch.float64) for chunk in chunks]).sum(0)
    parts = [_between(maps_at, total, partner, chunk) for chunk in chunks]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _between(
    maps_at: MapsAt, total: Float[Tensor, "i j"], partner: Int[Tensor, " n"], chunk: Int[Tensor, " m"]
) -> dict[str, Float[Tensor, " m"]]:
    """The same of some of the images."""
    others, own = len(partner) - 1, maps_at(chunk)
    mean = (total - own) / others if others else torch.full_like(own, torch.nan)
    alone = (partner[chunk] == chunk)[:, None, None]
    unrelated = torch.where(alone, torch.nan, maps_at(partner[chunk]))
    return {**_compared("unrelated", own, unrelated), **_compared("mean_map", own, mean.to(own.dtype))}


def natural(distances: Float[Tensor, "n changes"], overlaps: Float[Tensor, "n changes"]) -> dict[str, Row]:
    """The distance that 95 % of an image's harmless changes stay within, and the overlap that they reach."""
    return {
        "natural_l1": distances.double().quantile(QUANTILE, dim=1),
        "natural_iou": overlaps.double().nanquantile(1 - QUANTILE, dim=1),
    }


def _compared(name: str, maps: Maps, reference: Maps) -> dict[str, Row]:
    distance = map_l1(maps, reference)
    overlap = iou(above_mean(maps), above_mean(reference))
    return {f"{name}_l1": distance, f"{name}_iou": torch.where(distance.isnan(), torch.nan, overlap)}
