"""Train an interpreter against its own attacker: the parts of adversarial interpretation distillation (AID).

    alternation = Alternation(1, 1)                                  # a step on Eq. 15, a step on Eq. 16, and so on
    adversary = Adversary(classifier, eps=8 / 255, seed=0)
    batch = adversary.batch_of(x, keys)
    start = adversary.warm_up(batch)
    attacked = adversary.attack(interpreter, batch, 20, start)     # A(x) against the interpreter as it is now

Eq. 16 rewards the distance between the maps of x and of A(x). It has no bound below, and a masker that answers
every change with another map pays nothing for it; so the distance counts up to a margin, and drifting away from the
undefended interpreter g_0 on benign images costs what exceeds an allowance:

    l_aid = -min( mean |g(x) - g(A(x))|, margin ),      l_fid = max( 0, mean |g(x) - g_0(x)| - allowed )

No two maps are further apart than 1: that margin, or that allowance, is none.

A batch is attacked in parts of a fixed size, by whoever computes, so that workers change no bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.target_classes import random_class
from underfire.core import rows
from underfire.core.types import Goal, Images, Keys, Labels, Maps, Outcome, Row
from underfire.interpreters.protocol import Blind, Interpreter
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier
from underfire.runs.compute import Context, Rows, compute
from underfire.runs.dispatch import Crew, compute_parts
from underfire.runs.needs import Need, StageInputs, needs
from underfire.runs.specs import Identified


def distillation(benign: Maps, attacked: Maps, margin: float) -> Row:
    """Eq. 16, the distance counting up to the margin."""
    return -map_l1(benign, attacked).clamp_max(margin)


def excess_drift(maps: Maps, original: Maps, allowed: float) -> Row:
    """By how much maps are further from the original ones than allowed."""
    return (map_l1(maps, original) - allowed).clamp_min(0)


def rank(drift: float, separation: float, allowed: float) -> float:
    """Order of defended interpreters, lower is better: those within the allowed drift by separation, then the others
    by drift."""
    return -separation if drift <= allowed else drift


@dataclass(frozen=True)
class Turn:
    """A step of an alternation: whether it is the defence's, and how many of its kind came before."""

    defends: bool
    count: int


@dataclass(frozen=True)
class Alternation:
    """`plain` steps on the interpreter's own loss, then `defending` ones on the defence's, over and over."""

    plain: int = 1
    defending: int = 1

    def __call__(self, step: int) -> Turn:
        cycle, place = divmod(step, self.plain + self.defending)
        if place < self.plain:
            return Turn(False, cycle * self.plain + place)
        return Turn(True, cycle * self.defending + place - self.plain)


@dataclass(frozen=True)
class AttackBatch:
    """Benign images, the class reported of each, and the one to be reported: row record."""

    key: Keys
    image: Images
    label: Labels
    target: Labels


@dataclass(frozen=True)
class Rehearsal(Identified):
    """An attack on an interpreter as it is now, its own benign maps being those to be shown; rows as in Outcome."""

    attack: Attack


@needs.register
def _(spec: Rehearsal) -> Mapping[str, Need]:
    return {}


@compute.register
def _(spec: Rehearsal, inputs: StageInputs, context: Context) -> Rows:
    attack, classifier = spec.attack, context.classifier
    key, image, label, target = (inputs[name].to(classifier.device) for name in ("key", "image", "label", "target"))
    goal = Goal(key, image, target, attack.interpreter.explain(classifier, image, label, key))
    with torch.enable_grad():
        width = min(context.batch_size, len(key))  # no slot is filled up with repetitions
        outcome = engine.run(attack, classifier, goal, width, start=inputs.tensors.get("start"))
    yield inputs.ids, vars(outcome)


@dataclass(frozen=True)
class Adversary:
    """ADV2 against an interpreter as it is now, `at_once` images at a time, by a crew where there is one."""

    classifier: Classifier
    eps: float = 8 / 255
    seed: int = 0
    at_once: int = 16
    crew: Crew | None = None

    def batch_of(self, x: Images, keys: Keys) -> AttackBatch:
        """A random other class for each image, the same at every call."""
        with torch.no_grad():
            logits = self.classifier(x)
        labels = logits.argmax(1)
        return AttackBatch(keys, x, labels, random_class(labels, logits.shape[1], keys, self.seed))

    def warm_up(self, batch: AttackBatch) -> Tensor:
        """The first thetas, whatever the interpreter."""
        warm_start = self._adv2(Blind(), 1).warm_start
        assert warm_start is not None
        return self._run(warm_start, batch, None).theta

    def attack(self, interpreter: Interpreter, batch: AttackBatch, steps: int, start: Tensor) -> Outcome:
        """The whole batch, from the thetas of the warm start or of an earlier attack."""
        return self._run(self._adv2(interpreter, steps), batch, start)

    def decode(self, batch: AttackBatch, theta: Tensor) -> Images:
        """The attacked images that thetas stand for."""
        return self._adv2(Blind(), 1).perturbation.decode(batch.image, theta)

    def _adv2(self, interpreter: Interpreter, steps: int) -> Attack:
        return solvers.adv2(interpreter, eps=self.eps, steps=steps, seed=self.seed)

    def _run(self, attack: Attack, batch: AttackBatch, start: Tensor | None) -> Outcome:
        given = {**vars(batch), **({} if start is None else {"start": start})}
        places = torch.split(torch.arange(len(batch.key)), self.at_once)
        parts = [
            StageInputs(tuple(map(str, chosen.tolist())), {name: each[chosen] for name, each in given.items()})
            for chosen in places
        ]
        found = compute_parts(Rehearsal(attack), parts, Context(self.classifier, self.at_once), self.crew)
        return rows.to(rows.cat([Outcome(**each) for each in found]), batch.image.device)
