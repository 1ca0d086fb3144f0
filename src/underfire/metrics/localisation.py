"""Where a map sees the object: the box around its salient area, and whether its peak is on the object.

    shown = upscaled(maps, 64, 64)                         # cells scaled up to pixels
    found = boxes(shown >= value(shown, 0.5)[:, None, None])
    scored = fit_all(overlaps(shown, objects), misclassified, half)    # overlaps image by image, then one choice

Weakly supervised localisation (Cao et al. 2015; Dabkowski and Gal 2017): the salient area is all that reaches a
threshold t of a rule with parameter a, and its box is the tightest upright one.

    value    t = min m + a (max m - min m)
    energy   t = the largest with  sum of m(i, j) >= t  at least a times the sum of m
    mean     t = a times the mean of m

A constant map has no box. The pointing game (Zhang et al. 2016) asks whether the maximum lies on the object.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underfire.core.image_ops import is_constant, resize
from underfire.core.types import Flags, Maps, Row
from underfire.metrics.maps import Masks, boxes, iou

OVERLAP = 0.5  # IoU below which a box is wrong


@dataclass(frozen=True)
class Rule:
    """The least value of a salient cell, for each map, and the parameters to choose from."""

    threshold: Callable[[Maps, float], Row]
    grid: tuple[float, ...]


def value(maps: Maps, fraction: float) -> Row:
    """A fraction of the way from the map's minimum to its maximum."""
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    return torch.lerp(low, high, fraction)


def energy(maps: Maps, fraction: float) -> Row:
    """What the fewest largest cells reach that hold a fraction of the map's sum; equal cells belong together."""
    cells = maps.flatten(1).sort(dim=1, descending=True).values
    held = cells.double().cumsum(1)
    last = (held < fraction * held[:, -1:]).sum(1).clamp_max(cells.shape[1] - 1)
    return cells.gather(1, last[:, None])[:, 0]


def mean(maps: Maps, factor: float) -> Row:
    """A multiple of the map's mean."""
    return factor * maps.double().mean((1, 2)).to(maps.dtype)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "value": Rule(value, tuple(i / 20 for i in range(1, 20))),
        "energy": Rule(energy, tuple(i / 20 for i in range(1, 20))),
        "mean": Rule(mean, tuple(i / 4 for i in range(1, 41))),
    }
)


def upscaled(maps: Maps, rows: int, columns: int) -> Float[Tensor, "n {rows} {columns}"]:
    """Maps in image pixels: bilinear between the centres of cells, edges repeated."""
    return resize(maps[:, None], rows, columns)[:, 0]


def salient(rule: Rule, parameter: float, maps: Maps) -> Masks:
    """The cells that reach the rule's threshold; none of a constant map."""
    reached = maps >= rule.threshold(maps, parameter)[:, None, None]
    return reached & ~is_constant(maps)[:, None, None]


def overlaps(maps: Maps, objects: Masks) -> dict[str, Float[Tensor, "n parameters"]]:
    """IoU of the object's box with the box around the salient area, for each parameter of each rule's grid."""
    true = boxes(objects)
    return {
        name: torch.stack([iou(boxes(salient(rule, each, maps)), true) for each in rule.grid], dim=1)
        for name, rule in RULES.items()
    }


def hits(maps: Maps, area: Masks) -> Row:
    """Pointing game: which share of the map's maximal cells lies in the area; 0 for a constant map."""
    maximal = maps == maps.amax((1, 2), keepdim=True)
    share = (maximal & area).sum((1, 2)) / maximal.sum((1, 2))
    return torch.where(is_constant(maps), 0.0, share)


@dataclass(frozen=True)
class Fitted:
    """The parameter of a rule's grid with the lowest error on the validation half."""

    index: int
    error: float
    overlap: float  # mean IoU


def fitted(ious: Float[Tensor, "n parameters"], misclassified: Flags, half: Int[Tensor, " half"]) -> Fitted:
    """The choice on these images only; of equal errors the larger mean IoU, then the smaller parameter, counts."""
    errors = is_wrong(ious[half], misclassified[half, None]).double().mean(0).tolist()
    means = ious[half].double().mean(0).tolist()
    best = min(range(len(errors)), key=lambda i: (errors[i], -means[i], i))
    return Fitted(best, errors[best], means[best])


def is_wrong(ious: Float[Tensor, "..."], misclassified: Bool[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Wrong box or wrong class."""
    return (ious < OVERLAP) | misclassified


@dataclass(frozen=True)
class Scored:
    """A rule with its chosen parameter and the IoU of each image's box."""

    rule: str
    parameter: float
    choice: Fitted
    ious: Row


def fit_all(
    ious: Mapping[str, Float[Tensor, "n parameters"]], misclassified: Flags, half: Int[Tensor, " half"]
) -> Iterator[Scored]:
    """Each rule with its parameter chosen on these images and what it then gives on all."""
    for name, rule in RULES.items():
        choice = fitted(ious[name], misclassified, half)
        yield Scored(name, rule.grid[choice.index], choice, ious[name][:, choice.index])
