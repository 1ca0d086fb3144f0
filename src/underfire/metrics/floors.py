"""How far apart maps are that no attack has touched: what distances of attacked maps are to be held against.

    unrelated   the benign map of another image, of another class where there is one
    mean map    the mean of the benign maps of all other images
    natural     maps of the same image under harmless changes (`runs.specs.Vary`), the worst but for 5 %

Where unrelated maps are often called plausible, that word says nothing (`INDISTINCT`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underfire.core.rng import uniform
from underfire.core.types import Keys, Labels, Maps, Row
from underfire.metrics.maps import above_mean, iou, map_l1

INDISTINCT = 0.2  # share of plausible unrelated pairs from which on one map in five would pass for any other
QUANTILE = 0.95


def partners(keys: Keys, labels: Labels, seed: int) -> Int[Tensor, " n"]:
    """Another image for each, of another class where there is one; itself where it is the only image."""
    drawn = uniform(seed, "unrelated", keys, torch.zeros_like(keys), 1)[:, 0]
    others = ~torch.eye(len(keys), dtype=torch.bool)
    unlike = others & (labels[:, None] != labels)
    fitting = torch.where(unlike.any(1, keepdim=True), unlike, others)
    chosen = [
        int(row.nonzero()[int(draw * row.sum()), 0]) if row.any() else place
        for place, (row, draw) in enumerate(zip(fitting, drawn, strict=True))
    ]
    return torch.tensor(chosen)


def between_images(maps: Maps, partner: Int[Tensor, " n"]) -> dict[str, Row]:
    """Distance and overlap of each map with its partner's and with the mean of all others; NaN where it is alone."""
    others = len(maps) - 1
    mean = (maps.double().sum(0) - maps) / others if others else torch.full_like(maps, torch.nan)
    unrelated = torch.where(partner[:, None, None] != torch.arange(len(maps))[:, None, None], maps[partner], torch.nan)
    return {**_compared("unrelated", maps, unrelated), **_compared("mean_map", maps, mean.to(maps.dtype))}


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
