"""Scorers: how suspicious an image is to a defender who knows neither its true class nor whether it was attacked.

    squeezing = FeatureSqueezing(Median(3))
    consistency = Consistency(CAM(), Blur())
    scores = consistency.scores(classifier, look(classifier, images, keys, consistency.interpreters))

With p = softmax f, the reported class y^ = argmax f(x), maps g(x; y^), squeezers and harmless changes psi:

    feature squeezing   || p(x) - p(psi(x)) ||_1                   between 0 and 2 (Xu, Evans and Qi 2018)
    consistency         mean | g(x; y^) - g(psi(x); y^) |          between 0 and 1
    disagreement        mean | g(x; y^) - g'(x; y^) |              between 0 and 1, on the coarser of both grids
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core.image_ops import area_mean
from underfire.core.types import Images, Keys, Labels, Maps, Row
from underfire.data.corruptions import Corruption
from underfire.detection.squeezers import Squeezer
from underfire.interpreters.protocol import Explainer
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Shown:
    """The class that the classifier reports on each image, and an interpreter's deployed map for it: row record."""

    reported: Labels
    maps: Maps


@dataclass(frozen=True)
class Seen:
    """Images, their keys, and what the interpreters that a scorer names show on them, one after another; in memory."""

    images: Images
    keys: Keys
    shown: tuple[Shown, ...] = ()


@runtime_checkable
class Scorer(Protocol):
    """A frozen record of parameters; each image is scored by itself."""

    @property
    def name(self) -> str:
        """As on the command line and in tables."""
        ...

    @property
    def interpreters(self) -> tuple[Explainer, ...]:
        """Those whose maps of the reported class it looks at."""
        ...

    def scores(self, classifier: Classifier, seen: Seen) -> Row:
        """One number per image, higher where it is more suspicious, in memory and without a graph."""
        ...


@dataclass(frozen=True)
class FeatureSqueezing:
    """How far one squeezer moves the class probabilities, in the sum of absolute differences."""

    squeezer: Squeezer

    @property
    def name(self) -> str:
        return f"fs:{self.squeezer.name}"

    @property
    def interpreters(self) -> tuple[Explainer, ...]:
        return ()

    def scores(self, classifier: Classifier, seen: Seen) -> Row:
        before, after = (_probabilities(classifier, each) for each in (seen.images, self.squeezer(seen.images)))
        return (before - after).abs().sum(1)


@dataclass(frozen=True)
class Consistency:
    """How far one harmless change moves one interpreter's map of the class that was reported before it."""

    interpreter: Explainer
    change: Corruption

    @property
    def name(self) -> str:
        return f"consistency:{self.interpreter.name}:{self.change.name}"

    @property
    def interpreters(self) -> tuple[Explainer, ...]:
        return (self.interpreter,)

    def scores(self, classifier: Classifier, seen: Seen) -> Row:
        (before,) = seen.shown
        changed = self.change(seen.images, seen.keys)
        after = explained(self.interpreter, classifier, changed, before.reported, seen.keys)
        return map_l1(self.change.moved(before.maps.double()), after.double())


@dataclass(frozen=True)
class Disagreement:
    """How far two interpreters' maps of the reported class are from each other, on the coarser of their grids."""

    first: Explainer
    second: Explainer

    @property
    def name(self) -> str:
        return f"ensemble:{self.first.name}+{self.second.name}"

    @property
    def interpreters(self) -> tuple[Explainer, ...]:
        return self.first, self.second

    def scores(self, classifier: Classifier, seen: Seen) -> Row:
        first, second = (each.maps.double() for each in seen.shown)
        rows, columns = (min(sides) for sides in zip(first.shape[1:], second.shape[1:], strict=True))
        return map_l1(*(area_mean(maps[:, None], rows, columns)[:, 0] for maps in (first, second)))


def look(classifier: Classifier, images: Images, keys: Keys, interpreters: Iterable[Explainer] = ()) -> Seen:
    """The images as these interpreters show them."""
    return Seen(images, keys, tuple(shown(each, classifier, images, keys) for each in interpreters))


def shown(interpreter: Explainer, classifier: Classifier, images: Images, keys: Keys) -> Shown:
    """The reported classes and their maps; keys feed the random streams of interpreters that draw."""
    reported = _probabilities(classifier, images).argmax(1)
    return Shown(reported, explained(interpreter, classifier, images, reported, keys))


def explained(interpreter: Explainer, classifier: Classifier, images: Images, classes: Labels, keys: Keys) -> Maps:
    """The deployed maps, from images in memory to maps in memory."""
    x, y, drawn = (rows.to(classifier.device) for rows in (images.detach(), classes, keys))
    return interpreter.explain(classifier, x, y, drawn).cpu()


def _probabilities(classifier: Classifier, images: Images) -> Float[Tensor, "n k"]:
    with torch.no_grad():
        return classifier(images.to(classifier.device)).cpu().double().softmax(1)
