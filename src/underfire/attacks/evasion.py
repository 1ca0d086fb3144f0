"""Terms that hide an attack from feature squeezing: the adaptive ADV2 (A*, Sec. 4 Q3).

    attack = presets.adv2(CAM(), evade=(Median(3),))

Against a squeezer psi whose copy the attacker can follow, p(psi(x)) is drawn to p(x); against bit depth Algorithm 2
draws p(x) to p(x+) in place, with x+ an adversarial image among the squeezed ones (see `perturbations.Levels`).
"""

from dataclasses import dataclass

from underfire.core.errors import UnderfireError
from underfire.core.types import Goal, Images, Labels, Reading, Row
from underfire.detection.squeezers import Squeezer
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class SqueezeConsistency:
    """l_sqz = -sum over k of p_k(x) log p_k(psi(x)): the prediction should survive the squeezer."""

    squeezer: Squeezer

    @property
    def name(self) -> str:
        return f"agreement {self.squeezer.name}"

    @property
    def settled(self) -> float:
        """Where the squeezed image reports the class with p of .95 or so, as a confident one does."""
        return 0.05

    def __call__(self, classifier: Classifier, reading: Reading, x: Images, goal: Goal, step: Labels) -> Row:
        squeezed = classifier(self.squeezer(x))
        return -(reading.logits.softmax(1) * squeezed.log_softmax(1)).sum(1)


@dataclass(frozen=True)
class Likeness:
    """|| p(x) - p(x+) ||_1, stage 2 of Algorithm 2; p(x+) is the goal's anchor (see `Attack.anchor`)."""

    @property
    def name(self) -> str:
        return "likeness"

    @property
    def settled(self) -> float:
        """Where no more than .05 of the probability lies elsewhere."""
        return 0.1

    def __call__(self, classifier: Classifier, reading: Reading, x: Images, goal: Goal, step: Labels) -> Row:
        if goal.anchor is None:
            raise UnderfireError("Likeness compares with an anchor; give the attack one, such as PGD on few levels.")
        return (reading.logits.softmax(1) - goal.anchor).abs().sum(1)
