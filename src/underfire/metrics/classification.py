"""Which classes a classifier takes for which, and how often it is right.

    counts = confusion(labels, predicted, classes=7)       # row: true class, column: the class reported
    balanced_accuracy(counts)                              # an Estimate with its 95 % interval

    accuracy = sum_c n_cc / n          recall_c = n_cc / n_c          balanced accuracy = mean_c recall_c

Shares have Wilson's interval. That of the mean r of K recalls r_c with intervals (l_c, u_c) is, by Zou and Donner
(Statistics in Medicine 2008), r - sqrt(sum (r_c - l_c)^2) / K to r + sqrt(sum (u_c - r_c)^2) / K: it stays honest
where all images of a small class are right.
"""

from math import nan, sqrt

import torch
from jaxtyping import Int
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Labels
from underfire.metrics.intervals import Estimate, wilson

Counts = Int[Tensor, "k k"]


def confusion(labels: Labels, predicted: Labels, classes: int) -> Counts:
    """How many images of each class (row) are reported as each class (column)."""
    for name, values in (("label", labels), ("predicted class", predicted)):
        if not bool(((values >= 0) & (values < classes)).all()):
            raise UnderfireError(f"A {name} is not among the classes 0 to {classes - 1}.")
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def accuracy(counts: Counts) -> Estimate:
    """Share of all images whose class is recognised; NaN where there are none."""
    return _share(int(counts.trace()), int(counts.sum()))


def recalls(counts: Counts) -> tuple[Estimate, ...]:
    """Share of each class's images that are recognised; NaN for classes without images."""
    return tuple(_share(k, n) for k, n in zip(counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True))


def balanced_accuracy(counts: Counts) -> Estimate:
    """The mean recall of the classes that have images; n is the number of images."""
    known = [each for each in recalls(counts) if each.n]
    if not known:
        return Estimate(nan, 0.0, 1.0, 0)
    mean = sum(each.value for each in known) / len(known)
    below = sqrt(sum((each.value - each.low) ** 2 for each in known)) / len(known)
    above = sqrt(sum((each.high - each.value) ** 2 for each in known)) / len(known)
    return Estimate(mean, mean - below, mean + above, int(counts.sum()))


def _share(k: int, n: int) -> Estimate:
    return Estimate(k / n, *wilson(k, n), n) if n else Estimate(nan, 0.0, 1.0, 0)
