"""Detectors: a score for each image, and a threshold that few benign images exceed.

    squeezing = FeatureSqueezing(Median(3))
    detector = Detector.fit(squeezing.scores(classifier, benign), fpr=0.05)
    flagged = detector.flag(squeezing.scores(classifier, suspects))

Feature squeezing (Xu, Evans and Qi 2018) asks how far a squeezer psi moves the class probabilities p = softmax f:

    score(x) = || p(x) - p(psi(x)) ||_1        between 0 and 2
    joint(x) = max over squeezers of score(x)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from underfire.classifiers import Classifier
from underfire.squeezers import Squeezer, squeezer_named
from underfire.types import Flags, Images, Row, UnderfireError

JOINT = "joint"
SQUEEZED = ("bits:2", "bits:3", "median:3", "nlm:11-3-4")  # by default
DETECTORS = ("fs", "fs:SQUEEZER+SQUEEZER")


@runtime_checkable
class Scorer(Protocol):
    """Says how suspicious each image is; a frozen record of parameters."""

    @property
    def name(self) -> str:
        """As in tables."""
        ...

    def scores(self, classifier: Classifier, images: Images) -> Row:
        """One number per image, higher where it is more suspicious, in memory and without a graph."""
        ...


@dataclass(frozen=True)
class FeatureSqueezing:
    """How far one squeezer moves the class probabilities, in the sum of absolute differences."""

    squeezer: Squeezer

    @property
    def name(self) -> str:
        return self.squeezer.name

    def scores(self, classifier: Classifier, images: Images) -> Row:
        before, after = (_probabilities(classifier, each) for each in (images, self.squeezer(images)))
        return (before - after).abs().sum(1)


def joint(scores: Sequence[Row]) -> Row:
    """The maximum over squeezers, image by image."""
    return torch.stack(list(scores)).amax(0)


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
        if ordered[0] == ordered[-1]:
            raise UnderfireError(
                f"All {len(ordered)} benign images have the same score of {ordered[0]:g}, so no threshold means "
                "anything; use another detector."
            )
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
    ours, theirs = _checked(benign, "benign").numpy(), _checked(attacked, "attacked").numpy()
    both, n, m = np.concatenate([ours, theirs]), len(ours), len(theirs)
    falling = np.unique(both)[::-1]
    exceeding = rankdata(both)[n:].sum() - m * (m + 1) / 2
    return Roc(_shares_reaching(falling, ours), _shares_reaching(falling, theirs), float(exceeding / (n * m)))


def squeezing_named(text: str) -> tuple[FeatureSqueezing, ...]:
    """fs, or fs: and squeezers joined by +, as on the command line; UnderfireError if it is neither."""
    name, colon, listed = text.partition(":")
    if name != "fs":
        raise UnderfireError(f"There is no detector '{text}'; there are {', '.join(DETECTORS)}.")
    squeezers = [squeezer_named(each.strip()) for each in (listed.split("+") if colon else SQUEEZED)]
    names = [each.name for each in squeezers]
    if repeated := [each for each in names if names.count(each) > 1]:
        raise UnderfireError(f"Squeezer '{repeated[0]}' is named twice; name it once.")
    return tuple(FeatureSqueezing(each) for each in squeezers)


def _exceeding(n: int, fpr: float) -> int:
    """How many of n + 1 images may exceed the threshold."""
    return math.floor((n + 1) * fpr + 1e-9)


def _checked(scores: Row, kind: str) -> Float[Tensor, " n"]:
    """The scores in double precision."""
    scores = scores.detach().cpu().double()
    if wrong := int(scores.isnan().sum()):
        raise UnderfireError(
            f"{wrong} of {len(scores)} {kind} scores are NaN: the classifier gives no probabilities there; check its "
            "weights and its normalisation."
        )
    return scores


def _shares_reaching(falling: Float[np.ndarray, " v"], scores: Float[np.ndarray, " n"]) -> Float[Tensor, " points"]:
    """Which share of the scores is at least each value, after the 0 that reaches more than the highest."""
    reached = len(scores) - np.searchsorted(np.sort(scores), falling, side="left")
    return torch.from_numpy(np.concatenate([[0.0], reached / len(scores)]))


def _probabilities(classifier: Classifier, images: Images) -> Float[Tensor, "n k"]:
    with torch.no_grad():
        return classifier(images.to(classifier.device)).logits.cpu().double().softmax(1)
