"""Detectors: a threshold that the scores of few benign images exceed (for the scores see `underfire.detection.scores`).

    detector = Detector.fit(benign, fpr=0.05)
    flagged = detector.flag(suspected)

Several scores of each image become one by their maximum, as they are or, where their scales differ, in units of what
benign images have:

    joint(x) = max over parts of score(x)        or        max over parts of (score(x) - mean) / deviation
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from underfire.core.errors import UnderfireError
from underfire.core.types import Flags, Row


def joint(scores: Sequence[Row]) -> Row:
    """The maximum over parts, image by image."""
    return torch.stack(list(scores)).amax(0)


@dataclass(frozen=True)
class Standardisation:
    """What scores are measured from, and in units of what; as it stands, it leaves them as they are."""

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def fit(cls, benign: Row) -> "Standardisation":
        """Mean and deviation of benign scores; UnderfireError where there are none, or all are equal, or one is NaN."""
        scores = _checked(benign, "benign")
        _check_unequal(scores)
        return cls(float(scores.mean()), float(scores.std()))

    def __call__(self, scores: Row) -> Row:
        return (scores.double() - self.mean) / self.deviation


def left_out(benign: Row) -> Row:
    """Each benign score on the scale that the others give: the one that a new image's score would be on.

    Measured from the median, which lies among the others whichever is left out, so that neither a large offset nor a
    single far score rounds the deviation of the others off. UnderfireError where the others have no scale.
    """
    scores = _checked(benign, "benign")
    ordered = scores.sort().values
    for others in (ordered[1:], ordered[:-1]):
        _check_unequal(others)
    away, n = scores - scores.median(), len(scores) - 1
    mean, square = _sum_of_others(away) / n, _sum_of_others(away.square()) / n
    return (away - mean) / ((square - mean.square()) * n / (n - 1)).sqrt()


@dataclass(frozen=True)
class Scale:
    """What benign scores make of scores: of new ones, and of their own, each left out in turn."""

    fit: Callable[[Row], Standardisation]
    left_out: Callable[[Row], Row]


AS_IT_IS = Scale(fit=lambda benign: Standardisation(), left_out=lambda benign: benign)
STANDARDISED = Scale(Standardisation.fit, left_out)


@dataclass(frozen=True)
class Detector:
    """Flags the images whose score exceeds the threshold."""

    threshold: float

    @classmethod
    def fit(cls, benign: Row, fpr: float = 0.05) -> "Detector":
        """The threshold for a false-positive rate, from the scores of n benign images.

        It is the k-th smallest score, k = ceil((1 - fpr) (n + 1)): of new images that are drawn like these at most
        fpr exceed it, on average over such fits, and but for ties more than fpr - 1/(n + 1). UnderfireError where
        there are too few scores for that rate, where they are NaN, and where all are equal.
        """
        ordered = _checked(benign, "benign").sort().values
        check_enough(len(ordered), fpr)
        _check_unequal(ordered)
        return cls(float(ordered[len(ordered) - _exceeding(len(ordered), fpr)]))

    def flag(self, scores: Row) -> Flags:
        """Which scores exceed the threshold; UnderfireError where one is NaN."""
        return _checked(scores, "suspected") > self.threshold


def check_enough(n: int, fpr: float) -> None:
    """UnderfireError unless a threshold for this false-positive rate can be had from n benign images."""
    if not 0 < fpr < 1:
        raise UnderfireError(f"A false-positive rate must lie between 0 and 1, not at {fpr:g}; give one like 0.05.")
    if not _exceeding(n, fpr):
        least = math.ceil(1 / fpr - 1e-9) - 1
        raise UnderfireError(
            f"A false-positive rate of {100 * fpr:g} % takes at least {least} benign images to calibrate on, and there "
            f"are {n}; give more of them or allow a higher rate."
        )


@dataclass(frozen=True)
class Roc:
    """How many benign and attacked images exceed each threshold, from none to all; the area under that curve."""

    fpr: Float[Tensor, " points"]
    tpr: Float[Tensor, " points"]
    auc: float


def roc(benign: Float[Tensor, " n"], attacked: Float[Tensor, " m"]) -> Roc:
    """The curve over all thresholds; auc is P(attacked > benign) + P(equal) / 2.

    UnderfireError where either class has no score, or where one is NaN.
    """
    if not len(benign) or not len(attacked):
        raise UnderfireError(
            f"A ROC curve takes scores of both benign and attacked images; there are {len(benign)} and {len(attacked)}."
        )
    from scipy.stats import mannwhitneyu

    ours, theirs = _checked(benign, "benign").numpy(), _checked(attacked, "attacked").numpy()
    falling = np.unique(np.concatenate([ours, theirs]))[::-1]
    exceeding = mannwhitneyu(theirs, ours, method="asymptotic").statistic
    auc = float(exceeding / (len(ours) * len(theirs)))
    return Roc(_shares_reaching(falling, ours), _shares_reaching(falling, theirs), auc)


def _exceeding(n: int, fpr: float) -> int:
    """How many of n + 1 images may exceed the threshold."""
    return math.floor((n + 1) * fpr + 1e-9)


def _sum_of_others(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """For each value the sum of those before and after it, which no value that is left out can round off."""
    before, after = values[:-1].cumsum(0), values[1:].flip(0).cumsum(0).flip(0)
    return pad(before, (1, 0)) + pad(after, (0, 1))


def _check_unequal(scores: Float[Tensor, " n"]) -> None:
    if not len(scores):
        raise UnderfireError("There are no scores of benign images to calibrate on; give some.")
    if scores.min() == scores.max():
        raise UnderfireError(
            f"All {len(scores)} benign images have the same score of {scores[0]:g}, so no threshold means "
            "anything; use another detector."
        )


def _checked(scores: Row, kind: str) -> Float[Tensor, " n"]:
    """The scores in double precision."""
    scores = scores.detach().cpu().double()
    if wrong := int(scores.isnan().sum()):
        raise UnderfireError(
            f"{wrong} of {len(scores)} {kind} scores are NaN: the classifier gives no probabilities there, or an "
            "interpreter no map; check its weights and its normalisation."
        )
    return scores


def _shares_reaching(falling: Float[np.ndarray, " v"], scores: Float[np.ndarray, " n"]) -> Float[Tensor, " points"]:
    """Which share of the scores is at least each value, after the 0 that reaches more than the highest."""
    reached = len(scores) - np.searchsorted(np.sort(scores), falling, side="left")
    return torch.from_numpy(np.concatenate([[0.0], reached / len(scores)]))
