"""A mean or a share of n images with its 95 % interval."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Estimate:
    """A mean over n images with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: npt.ArrayLike, resamples: int = 2000) -> Estimate:
    """The mean and its percentile bootstrap interval; all NaN where n is 0.

    Resampling is fixed, so equal data give equal intervals.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(0).integers(0, data.size, (resamples, data.size))
    low, high = np.percentile(data[draws].mean(1), (2.5, 97.5))
    return Estimate(float(data.mean()), float(low), float(high), data.size)


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share k/n (Wilson 1927), which stays honest where all n agree."""
    z = 1.96
    centre, spread = k + z * z / 2, z * sqrt(k * (n - k) / n + z * z / 4)
    return max(0.0, (centre - spread) / (n + z * z)), min(1.0, (centre + spread) / (n + z * z))


def share(flags: npt.ArrayLike) -> Estimate:
    """How many of n flags are set, as a share with Wilson's 95 % interval; NaN in [0, 1] where n is 0."""
    data = np.asarray(flags, dtype=bool)
    low, high = wilson(int(data.sum()), data.size) if data.size else (0.0, 1.0)
    return Estimate(float(data.mean()) if data.size else float("nan"), low, high, data.size)
