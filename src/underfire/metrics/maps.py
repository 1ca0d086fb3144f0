"""Per-image metrics of an attack.

    success = argmax f(x) = ct          confidence = p_ct(x)
    dL1 = mean |a - b|                  dL2 = sqrt(mean (a - b)^2)
    IoU = |A and B| / |A or B|          of binarised maps A, B; three binarisations, all always recorded

Every map is judged, once and here, against the map that it should look like (`judged`):

    nothing to see   that map spans less than FAINT of the scale, so that no change of it would be told
    unchanged        dL1 is within the interpreter's own noise
    plausible        IoU (own-mean threshold) exceeds PLAUSIBLE
    changed          all others: whoever knows that map is warned
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underfire.core.types import Flags, Images, Maps, Row

PLAUSIBLE = 0.5  # of the cells that either map marks, both mark more than half
FAINT = 0.25  # of the colour scale; flatter maps look blank, and a threshold at their mean cuts through dust
UNSEEN, UNCHANGED, LIKE, CHANGED = "nothing to see", "unchanged", "plausible", "changed"
DECEIVING = (UNCHANGED, LIKE)  # maps that warn nobody
DISTANCES = ("map_l1", "map_l2", "iou_mean", "iou_half", "iou_top15")

Masks = Bool[Tensor, "n i j"]


def map_l1(a: Float[Tensor, "n #i #j"], b: Float[Tensor, "n #i #j"]) -> Row:
    """Mean absolute difference of two maps."""
    return (a - b).abs().mean((1, 2))


def map_l2(a: Maps, b: Maps) -> Row:
    """Root mean squared difference of two maps."""
    return (a - b).square().mean((1, 2)).sqrt()


def rank_correlation(a: Maps, b: Maps) -> Row:
    """Spearman's correlation of two maps' cells, equal cells sharing their mean rank; 0 where a map is constant."""
    from scipy.stats import rankdata

    u, v = (torch.from_numpy(rankdata(maps.flatten(1).cpu().numpy(), axis=1)) for maps in (a, b))
    u, v = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    scale = (u.square().sum(1) * v.square().sum(1)).sqrt()
    return torch.where(scale > 0, (u * v).sum(1) / scale.clamp_min(1), 0.0)


def linf(x: Images, x0: Images) -> Row:
    """Largest change of any pixel value."""
    return (x - x0).abs().flatten(1).amax(1)


def l2(x: Images, x0: Images) -> Row:
    """Euclidean length of the change, over all values of the image."""
    return (x - x0).flatten(1).square().sum(1).sqrt()


def above_mean(maps: Maps) -> Masks:
    """Cells above the map's own mean, taken in double precision: none of a constant map."""
    return maps > maps.double().mean((1, 2), keepdim=True)


def above_half(maps: Maps) -> Masks:
    """Cells above 0.5."""
    return maps > 0.5


def top_15_percent(maps: Maps) -> Masks:
    """The ceil(0.15 * cells) largest cells; of equal ones the first in reading order."""
    flat = maps.flatten(1)
    count = -(-flat.shape[1] * 15 // 100)
    last = flat.topk(count, dim=1).values[:, -1:]
    above, equal = flat > last, flat == last
    left = count - above.sum(1, keepdim=True)
    return (above | equal & (equal.cumsum(1) <= left)).view_as(maps)


BINARISATIONS: Mapping[str, Callable[[Maps], Masks]] = MappingProxyType(
    {"iou_mean": above_mean, "iou_half": above_half, "iou_top15": top_15_percent}
)


def iou(a: Masks, b: Masks) -> Float[Tensor, " n"]:
    """Jaccard index of two sets of cells; NaN for two empty ones, between which there is nothing to compare."""
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))


def boxes(masks: Masks) -> Masks:
    """The smallest upright box around the true cells of each mask, filled; nothing where there are none."""
    spans = []
    for line in (masks.any(2), masks.any(1)):
        begun = line.int().cummax(1).values
        unfinished = line.flip(1).int().cummax(1).values.flip(1)
        spans.append((begun * unfinished).bool())
    return spans[0][:, :, None] & spans[1][:, None, :]


def compare_maps(maps: Maps, reference: Maps) -> dict[str, Row]:
    """Every map metric of one set of maps against another; NaN where a map has NaN."""
    distance = map_l1(maps, reference)
    ious = {name: iou(rule(maps), rule(reference)) for name, rule in BINARISATIONS.items()}
    known = {name: torch.where(distance.isnan(), torch.nan, values) for name, values in ious.items()}
    return {"map_l1": distance, "map_l2": map_l2(maps, reference), **known}


def compare_draws(maps: Sequence[Maps], references: Sequence[Maps]) -> dict[str, Row]:
    """Every map metric, averaged over the draws of an interpreter: each map against the next draw of the reference, so
    that the two share no random number."""
    found = [compare_maps(each, references[(k + 1) % len(references)]) for k, each in enumerate(maps)]
    return {name: torch.stack([each[name] for each in found]).nanmean(0) for name in DISTANCES}


def is_faint(maps: Maps) -> Flags:
    """Whether there is nothing to see in a map: it spans less than FAINT of the scale, or has NaN."""
    return ~(maps.amax((1, 2)) - maps.amin((1, 2)) >= FAINT)


def judged(distance: Row, overlap: Row, noise: Row, faint: Flags) -> list[str]:
    """What becomes of each map of one attack: one of UNSEEN, UNCHANGED, LIKE and CHANGED.

    `distance` (dL1) and `overlap` (IoU) are those to the map that it should look like, which is `faint` or not; `noise`
    is dL1 of two maps of the benign image. One such pair is a rough measure, so that at least their mean counts.
    """
    warning = torch.where(overlap > PLAUSIBLE, 2, 3)
    kind = torch.where(distance <= noise.clamp_min(noise.mean()), 1, warning).where(~faint, 0)
    return [(UNSEEN, UNCHANGED, LIKE, CHANGED)[each] for each in kind.tolist()]
