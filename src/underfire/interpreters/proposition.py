"""Proposition 1: no image raises a probability by more than its integrated gradients change (Eq. 12 and 13).

    l_prd = p(x) - p(x0),    dm_i = (x_i - x0_i) * integral over t in (0, 1) of dp/dx_i at x0 + t (x - x0)
    l_int = sum_i |dm_i|  >=  sum_i dm_i = l_prd

p is the probability of the target class (the paper has two classes), x0 the benign image in the place of the baseline.
The derivative is that of p at the points of the path: with a further factor t, as Eq. 13 reads to the letter, the sum
would not be l_prd. It holds for any image and any network that is differentiable almost everywhere along the path. It
bounds a surrogate: the distance of two maps that were normalised and explain each its own class is another thing.
"""

from dataclasses import dataclass

import torch

from underfire.core.losses import confidence
from underfire.core.types import Images, Labels, Row
from underfire.interpreters.integrated_gradients import Quadrature, attributions, completeness_error
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Sides:
    """Row record of l_prd, from two forward passes, l_int, and sum_i dm_i - l_prd, which is 0 but for the quadrature.

    Whatever the quadrature, l_prd + completeness_error <= l_int, as |sum_i dm_i| <= sum_i |dm_i| for any numbers.
    """

    prediction_loss: Row
    interpretation_loss: Row
    completeness_error: Row


def both_sides(classifier: Classifier, x: Images, x0: Images, target: Labels, quadrature: Quadrature) -> Sides:
    """Both losses of Proposition 1 for each image."""
    change = attributions(classifier, x, x0, target, quadrature)
    with torch.no_grad():
        gain = confidence(classifier(x), target) - confidence(classifier(x0), target)
    error = completeness_error(classifier, x, x0, target, change)
    return Sides(gain, change.abs().sum((1, 2, 3)), error)
