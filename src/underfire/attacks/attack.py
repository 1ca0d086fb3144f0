"""An attack: what is minimised over which images by which steps. It holds parameters and no state.

    l(theta) = sum over terms of weight_term(step) * term(x),   x = decode(x0, theta)          (Eq. 3)

with the terms "prediction" (l_prd), "map" (l_int, mean over cells), "cost" (the perturbation's own)
and whatever the interpreter's reading or `extra_terms` add. `underfire.attacks.engine` runs it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from underfire.attacks.perturbations import Perturbation, Pixels
from underfire.attacks.steps import Objective, SignStep, StepRule
from underfire.core import rng
from underfire.core.checks import check_count, check_number, check_seed
from underfire.core.errors import UnderfireError
from underfire.core.losses import confidence, cross_entropy, log_odds, log_prob, map_distance, smoothed_cross_entropy
from underfire.core.schedules import Constant, Schedule, check_schedule
from underfire.core.types import Flags, Goal, Images, Keys, Labels, Logits, Reading, Row, Terms
from underfire.interpreters.protocol import Explainer, Interpreter, check_reading
from underfire.models.classifier import Classifier

QUANTUM = 50  # steps between two judgements


@runtime_checkable
class PredictionLoss(Protocol):
    """l_prd of a reading, per image."""

    def __call__(self, reading: Reading, goal: Goal, step: Labels) -> Row: ...


@dataclass(frozen=True)
class CrossEntropy:
    """-log p of the target class."""

    def __call__(self, reading: Reading, goal: Goal, step: Labels) -> Row:
        return cross_entropy(reading.log_prob)


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """Cross-entropy with target mass q ~ U(1 - rho, 1), drawn anew for each image and step."""

    rho: Schedule
    seed: int = 0

    def __post_init__(self) -> None:
        check_schedule("rho", self.rho)
        check_seed(self.seed)

    def __call__(self, reading: Reading, goal: Goal, step: Labels) -> Row:
        draw = rng.uniform(self.seed, "label smoothing", goal.key, step, 1)[:, 0]
        mass = (1 - self.rho(step) * draw).to(reading.logits.dtype)
        return smoothed_cross_entropy(reading.logits, goal.target, mass)


@dataclass(frozen=True)
class Margin:
    """slope * max(0, log-odds of `confidence` - log-odds of p_t): strong below that confidence, silent above."""

    confidence: float = 0.98
    slope: float = 0.3

    def __post_init__(self) -> None:
        check_number("The confidence of a margin", self.confidence, above=0.0, most=1 - 1e-9)
        check_number("The slope of a margin", self.slope, above=0.0)

    def __call__(self, reading: Reading, goal: Goal, step: Labels) -> Row:
        wanted = math.log(self.confidence / (1 - self.confidence))
        return self.slope * (wanted - log_odds(reading.logits, goal.target)).clamp_min(0)


@runtime_checkable
class ExtraTerm(Protocol):
    """A further per-image loss with its weight, such as the evasion of a detector.

    At `settled` or below it has done its work.
    """

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    @property
    def settled(self) -> float: ...

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        """The loss at x, of which the attacker has this belief and this reading, differentiable in x."""
        ...


@dataclass(frozen=True)
class Attack:
    """All parameters of one attack.

    `weights` are schedules by term name; a term that is not named has weight 1. In the choice of the best
    iterate those that report the target class with p >= `confidence` come first (see `rank`).
    Its effort is a ladder of `rungs`, each so many steps. After each the images leave that are settled: confident, with
    a map as close as the interpreter's own noise or as `settled`; the others go on from their best iterate or, if
    rungs begin `afresh`, from where they started. Schedules count the steps of all rungs.
    `judges` are the explainers by whose maps, on the mean, the best iterate is chosen; by default the interpreter.
    `warm_start` is run first and its theta seeds this attack; interpreters share it where it is Blind.
    `anchor` is run first, too, and the class probabilities of its images become the goal's.
    """

    name: str
    interpreter: Interpreter
    perturbation: Perturbation = field(default_factory=Pixels)
    rule: StepRule = field(default_factory=lambda: SignStep(Constant(1 / 255)))
    weights: Mapping[str, Schedule] = field(default_factory=dict)
    prediction: PredictionLoss = CrossEntropy()
    extra_terms: tuple[ExtraTerm, ...] = ()
    rungs: tuple[int, ...] = (100,)
    quantum: int = QUANTUM
    confidence: float = 0.95
    settled: float = 0.01
    afresh: bool = False
    judges: tuple[Explainer, ...] = ()
    warm_start: "Attack | None" = None
    anchor: "Attack | None" = None

    def __post_init__(self) -> None:
        check_rungs(self.rungs)
        check_count("quantum", self.quantum)
        check_number("The map distance at which an image is settled", self.settled, least=0.0)
        check_number("The confidence of a success", self.confidence, least=0.0, most=1.0)
        for name, schedule in self.weights.items():
            check_schedule(f"The weight of the term '{name}'", schedule, least=-math.inf)

    @property
    def steps(self) -> int:
        """The most that an image takes."""
        return sum(self.rungs)

    def end_of_rung(self, step: Labels) -> Labels:
        """How many steps an image has done when the rung ends on which it takes this one."""
        ends = torch.tensor(self.rungs, device=step.device).cumsum(0)
        return ends[torch.searchsorted(ends, step, right=True).clamp_max(len(ends) - 1)]

    def ends_rung(self, done: Labels) -> Flags:
        """Whether a rung has just ended after so many steps."""
        return (done > 0) & (self.end_of_rung(done - 1) == done)

    def image(self, goal: Goal, theta: torch.Tensor) -> Images:
        """What theta makes of the goal's images within its region, differentiable in theta; the rest stays x0."""
        x = self.perturbation.decode(goal.image, theta)
        return x if goal.region is None else torch.where(goal.region[:, None], x, goal.image)

    def objective(self, classifier: Classifier, goal: Goal, belief: Any, step: Labels) -> Objective:
        """The per-image loss as a function of theta."""
        return _Objective(self, classifier, goal, belief, step)

    def exposure(self, parts: Mapping[str, Row]) -> Row:
        """What gives a successful iterate away, in [0, 1]: its map distance or, where there are extra terms, the mean
        of both as the loss weighs them on the last step."""
        hiding = [term for term in self.extra_terms if term.weight > 0]
        if not hiding:
            return parts["map"]
        of_map = float(self.weights.get("map", Constant(1.0))(torch.tensor([max(self.steps - 1, 0)])))
        weighed = of_map * parts["map"] + torch.stack([term.weight * parts[term.name] for term in hiding]).sum(0)
        return (weighed / (of_map + sum(term.weight for term in hiding))).clamp_max(1)

    def rank(self, logits: Logits, exposure: Row, target: Labels) -> Row:
        """Order of iterates, smaller is better: confident successes by exposure, other successes likewise, then
        failures by confidence."""
        p = confidence(logits, target)
        of_success = torch.where(p >= self.confidence, exposure, 1 + exposure)
        rank = torch.where(logits.argmax(1) == target, of_success, 3 - p)
        return torch.where(p.isnan() | exposure.isnan(), torch.inf, rank)


def check_rungs(rungs: tuple[int, ...]) -> tuple[int, ...]:
    """The same rungs, or UnderfireError unless they are one number of steps or several of at least one each."""
    if not isinstance(rungs, tuple) or not rungs:
        raise UnderfireError(f"rungs must be a tuple of numbers of steps, not {rungs!r}.")
    for steps in rungs:
        check_count("steps", steps, least=0 if len(rungs) == 1 else 1)
    return rungs


@dataclass(frozen=True)
class _Objective:
    """An attack's loss for these goals, this belief and this step."""

    attack: Attack
    classifier: Classifier
    goal: Goal
    belief: Any
    step: Labels

    def __call__(self, theta: torch.Tensor) -> Terms:
        attack, goal = self.attack, self.goal
        x = attack.image(goal, theta)
        reading = attack.interpreter.read(self.classifier, self.belief, x, goal.target)
        check_reading(attack.interpreter.name, reading, goal.target_map)
        parts = {
            "prediction": attack.prediction(reading, goal, self.step),
            "map": map_distance(reading.maps, goal.target_map),
            "cost": attack.perturbation.cost(theta),
            **reading.terms,
        }
        total = torch.zeros_like(parts["prediction"])
        for name, part in parts.items():
            total = total + (attack.weights[name](self.step).to(part.dtype) * part if name in attack.weights else part)
        for term in attack.extra_terms:
            parts[term.name] = term(self.classifier, self.belief, reading, x, goal, self.step)
            total = total + term.weight * parts[term.name]
        return Terms(total, parts, reading.logits)

    @property
    def keys(self) -> Keys:
        return self.goal.key

    def prediction(self, theta: torch.Tensor) -> Terms:
        x = self.attack.image(self.goal, theta)
        logits = self.classifier(x)
        loss = cross_entropy(log_prob(logits, self.goal.target))
        return Terms(loss, {"prediction": loss}, logits)

    def project(self, theta: torch.Tensor) -> torch.Tensor:
        return self.attack.perturbation.project(self.goal.image, theta)
