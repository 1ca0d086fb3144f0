"""Every kind of scorer, for any interpreter and any of the tiny networks.

scores = {each.name: score(each, model, images(3), keys) for each in scorers_of("grad", model)}
"""

from torch import Tensor

from tiny_attacks import interpreter_of
from underfire.data.corruptions import CHANGES
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing, Scorer, look
from underfire.detection.squeezers import BitDepth, Median
from underfire.interpreters import GradCAM
from underfire.models.classifier import Classifier


def scorers_of(name: str, model: Classifier) -> tuple[Scorer, ...]:
    interpreter = interpreter_of(name, model)
    consistencies = (Consistency(interpreter, change) for change in CHANGES.values())
    squeezings = (FeatureSqueezing(BitDepth(2)), FeatureSqueezing(Median(3)))
    return (*squeezings, *consistencies, Disagreement(interpreter, GradCAM()))


def score(scorer: Scorer, model: Classifier, x: Tensor, keys: Tensor) -> Tensor:
    return scorer.scores(model, look(model, x, keys, scorer.interpreters))
