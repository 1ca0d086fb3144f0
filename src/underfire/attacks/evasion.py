"""What hides an attack from detectors: the adaptive ADV2 (A*, Sec. 4 Q3), and one against self-consistency.

    attack = solvers.adv2(CAM(), evade=(Median(3), Consistency(CAM(), JPEG())))

Against a squeezer psi whose copy the attacker can follow, p(psi(x)) is drawn to p(x); against bit depth Algorithm 2
draws p(x) to p(x+) in place, with x+ an adversarial image among the squeezed ones (see `perturbations.Levels`). Against
self-consistency g(psi(x)) is drawn to psi(g(x)), in expectation over the draws of psi.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from underfire.attacks.attack import Attack, ExtraTerm
from underfire.attacks.perturbations import Levels, Perturbation, Pixels
from underfire.attacks.steps import SignStep
from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant
from underfire.core.types import Goal, Images, Labels, Reading, Row
from underfire.data.corruptions import Corruption
from underfire.detection.scores import Consistency
from underfire.detection.squeezers import BitDepth, Squeezer
from underfire.interpreters.protocol import Blind, ClosedForm, Interpreter
from underfire.models.classifier import Classifier

Evaded = Squeezer | Consistency  # what an attack can hide from


@dataclass(frozen=True)
class Evasion:
    """What hides an attack: further terms, and the attack that must be run first, if any."""

    terms: tuple[ExtraTerm, ...]
    anchor: Attack | None = None


@dataclass(frozen=True)
class SqueezeConsistency:
    """l_sqz = -sum over k of p_k(x) log p_k(psi(x)): the prediction should survive the squeezer."""

    squeezer: Squeezer
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"agreement {self.squeezer.name}"

    @property
    def settled(self) -> float:
        """Where the squeezed image reports the class with p of .95 or so, as a confident one does."""
        return 0.05

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        squeezed = classifier(self.squeezer(x))
        return -(reading.logits.softmax(1) * squeezed.log_softmax(1)).sum(1)


@dataclass(frozen=True)
class Likeness:
    """|| p(x) - p(x+) ||_1, stage 2 of Algorithm 2; p(x+) is the goal's anchor (see `Attack.anchor`)."""

    weight: float = 1.0

    @property
    def name(self) -> str:
        return "likeness"

    @property
    def settled(self) -> float:
        """Where no more than .05 of the probability lies elsewhere."""
        return 0.1

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        if goal.anchor is None:
            raise UnderfireError("Likeness compares with an anchor; give the attack one, such as PGD on few levels.")
        return (reading.logits.softmax(1) - goal.anchor).abs().sum(1)


@dataclass(frozen=True)
class MapConsistency:
    """mean over psi and cells of (g(psi(x); ct) - psi(g(x; ct)))^2: the map should survive harmless changes.

    What a change draws is drawn anew for every image and step, from the attacker's own dice. The interpreter is in
    closed form, or the one whose map the attack is after: the attacker's belief about x serves for psi(x) as well.
    """

    interpreter: Interpreter
    changes: tuple[Corruption, ...]
    weight: float = 1.0

    @property
    def name(self) -> str:
        return f"agreement consistency:{self.interpreter.name}:{'+'.join(each.name for each in self.changes)}"

    @property
    def settled(self) -> float:
        """Where maps move by .03 or so, no more than those of benign images do."""
        return 0.001

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        before = self.interpreter.read(classifier, belief, x, goal.target).maps
        moved = torch.zeros_like(reading.log_prob)
        for change in self.changes:
            keys = rng.derived(goal.key, f"attacker's {change.name}", step)
            after = self.interpreter.read(classifier, belief, change(x, keys), goal.target).maps
            expected = change.moved(before.flatten(0, 1)).view_as(before)
            moved = moved + (after - expected).square().mean((1, 2, 3))
        return moved / len(self.changes)


def agreement(squeezers: Sequence[Squeezer], perturbation: Perturbation) -> Evasion:
    """The prediction survives every squeezer, each with the gradient that it passes on."""
    return Evasion(tuple(SqueezeConsistency(each, weight=0.1) for each in squeezers))


def algorithm_2(squeezers: Sequence[Squeezer], perturbation: Perturbation) -> Evasion:
    """The prediction survives smoothing squeezers, and is like that on an image of the coarsest bit depth."""
    smoothing = tuple(SqueezeConsistency(each) for each in squeezers if not isinstance(each, BitDepth))
    depths = [each.bits for each in squeezers if isinstance(each, BitDepth)]
    if not depths:
        return Evasion(smoothing)
    bits, within = min(depths), perturbation if isinstance(perturbation, Pixels) else Pixels()
    rule = SignStep(Constant(1 / 2**bits))
    anchor = Attack(f"pgd-on-bits:{bits}", Blind(), Levels(bits, within.eps), rule, rungs=(400,))
    return Evasion((*smoothing, Likeness()), anchor)


def steadiness(
    scores: Sequence[Consistency], after: Interpreter, model: Callable[[Interpreter], Interpreter], weight: float
) -> Evasion:
    """A term for each interpreter that a defender asks twice, as the attacker models it; `after` is the one attacked.

    UnderfireError for another one whose map is the end of an optimisation, which the attack does not follow.
    """
    changes = dict[str, tuple[Corruption, ...]]()
    asked = dict[str, Interpreter]()
    for score in scores:
        interpreter, name = score.interpreter, score.interpreter.name
        followed = isinstance(interpreter, ClosedForm) or name == after.name
        if not isinstance(interpreter, Interpreter) or not followed:
            raise UnderfireError(
                f"The consistency of '{name}' can be evaded only by an attack on '{name}'; name it as the interpreter, "
                "or another detector to evade."
            )
        changes[name] = (*changes.get(name, ()), score.change)
        asked[name] = model(interpreter)
    return Evasion(tuple(MapConsistency(asked[name], its, weight) for name, its in changes.items()))
