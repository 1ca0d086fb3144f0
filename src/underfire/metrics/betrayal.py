"""When an attacked image betrays: its class is the attacker's, and nobody who looks at its map would have noticed.

    found = plausible(distance, overlap, natural)        # by each of DEFINITIONS
    betrayed = success & found["natural"] & ~flagged     # where a detector is deployed

    overlap    IoU with the benign map > 1/2 at own means (the paper's)
    natural    distance to the benign map <= the 95th percentile of those that harmless changes of the image cause

Where there is nothing to compare, because the benign map shows nothing or both maps mark no cell, nobody notices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from underfire.metrics.intervals import wilson
from underfire.metrics.maps import PLAUSIBLE

Flags = npt.NDArray[np.bool_]
Definition = Literal["natural", "overlap"]

DEFINITIONS: Mapping[Definition, str] = MappingProxyType(
    {
        "natural": "no further from the benign map than harmless changes of the same image move it",
        "overlap": f"IoU with the benign map above {PLAUSIBLE:g}",
    }
)
GRID = tuple(each / 16 for each in (1, 2, 4, 6, 8, 12, 16, 24, 32))  # budgets of the curve, in the audit's own


def plausible(
    distance: npt.ArrayLike, overlap: npt.ArrayLike, natural: npt.ArrayLike, unseen: npt.ArrayLike
) -> dict[Definition, Flags]:
    """By each definition which of n maps would not be noticed; `unseen` ones show nothing in the benign map."""
    nothing = np.asarray(unseen, dtype=bool)
    alike = np.asarray(overlap, dtype=np.float64)
    near = np.asarray(distance, dtype=np.float64) <= np.asarray(natural, dtype=np.float64)
    return {"natural": near | nothing, "overlap": (alike > PLAUSIBLE) | np.isnan(alike) | nothing}


@dataclass(frozen=True)
class Point:
    """Which share of n images is betrayed within a budget, with Wilson's 95 % interval."""

    eps: float
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """The security curve of images by the smallest budget that betrays each, infinite where none of the grid does."""

    grid: tuple[float, ...]
    smallest: tuple[float, ...]

    def points(self) -> Iterator[Point]:
        """From the smallest budget to the largest; shares never fall."""
        n, smallest = len(self.smallest), np.array(self.smallest)
        for eps in self.grid:
            betrayed = int((smallest <= eps).sum())
            yield Point(eps, betrayed / n, *wilson(betrayed, n))

    @property
    def median(self) -> tuple[float | None, float | None, float | None]:
        """The smallest budget that betrays half of the images, and its bounds by the band; None beyond the grid."""
        points = list(self.points())
        return tuple(  # type: ignore[return-value]
            next((each.eps for each in points if getattr(each, bound) >= 0.5), None)
            for bound in ("share", "high", "low")
        )


def halved(budgets: Sequence[Any]) -> tuple[Sequence[Any], Any, Sequence[Any]]:
    """What bisection tries next, and what is left of the grid below and above it."""
    middle = len(budgets) // 2
    return budgets[:middle], budgets[middle], budgets[middle + 1 :]
