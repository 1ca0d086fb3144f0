"""Every kind of scorer, for any interpreter and any of the tiny networks.

scores = {each.name: score(each, model, images(3), keys) for each in scorers_of("grad", model)}
"""

from dataclasses import dataclass

from torch import Tensor

from tiny_attacks import interpreter_of
from underfire.core.image_ops import to_8bit
from underfire.core.types import Row
from underfire.data.corruptions import CHANGES
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing, Scorer, Seen, look
from underfire.detection.squeezers import BitDepth, Median
from underfire.interpreters import GradCAM
from underfire.interpreters.protocol import Explainer
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class BetweenLevels:
    """Suspects what no file of 8 bits can hold."""

    name: str = "between levels"
    interpreters: tuple[Explainer, ...] = ()

    def scores(self, classifier: Classifier, seen: Seen) -> Row:
        return (seen.images - to_8bit(seen.images)).abs().amax((1, 2, 3))


def scorers_of(name: str, model: Classifier) -> tuple[Scorer, ...]:
    interpreter = interpreter_of(name, model)
    consistencies = (Consistency(interpreter, change) for change in CHANGES.values())
    squeezings = (FeatureSqueezing(BitDepth(2)), FeatureSqueezing(Median(3)))
    return (*squeezings, *consistencies, Disagreement(interpreter, GradCAM()))


def score(scorer: Scorer, model: Classifier, x: Tensor, keys: Tensor) -> Tensor:
    return scorer.scores(model, look(model, x, keys, scorer.interpreters))
