"""GRAD: which pixels the prediction reacts to most (Simonyan et al. 2014; Eq. 5).

    m = mm( average pool( max over channels |d log p_y / dx| ) )

Computed from the log-odds o = log p_y / (1 - p_y): d log p_y / dx = (1 - p_y) do/dx, so the map is the
same and does not vanish when p_y saturates. How the attacker differentiates do/dx once more is
pluggable: see `underfire.interpreters.input_gradients`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F

from underfire.core.image_ops import block_mean, cell_side, normalise_map
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.input_gradients import FiniteDifferences, InputGradient, exact_gradient
from underfire.interpreters.protocol import ClosedForm, NoBelief
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class GRAD(ClosedForm):
    """Gradient saliency at 1/4 of the input side (1/2 below 64 pixels).

    `input_gradient` is the attacker's way to differentiate the gradient; the deployed map never uses it.
    """

    draws: ClassVar[bool] = False

    input_gradient: InputGradient = field(default_factory=FiniteDifferences)

    @property
    def name(self) -> str:
        return "grad"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        return saliency(exact_gradient(classifier, x, y)[2])

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        logits, log_odds, gradient = self.input_gradient(classifier, x, y)
        return Reading(logits, F.logsigmoid(log_odds), saliency(gradient)[:, None])


def saliency(gradient: Images) -> Maps:
    """mm of the block-averaged largest absolute channel."""
    return normalise_map(block_mean(gradient.abs().amax(1), cell_side(gradient)))
