"""An interpreter on several classifiers at once: what an attacker looks at whose surrogates are a committee.

    surrogate = together([one, another])
    attack = replace(attack, interpreter=Jointly(attack.interpreter))

Its map is the members' maps, one below the other on the finest grid among them, and its cross-entropy is the mean of
theirs, so that each member's losses count alike. A single classifier is a committee of one.
"""

from dataclasses import dataclass
from typing import Any

import torch

from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.ensemble import stacked
from underfire.interpreters.protocol import Interpreter, draws
from underfire.models.classifier import Classifier
from underfire.models.committee import members_of


@dataclass(frozen=True)
class Jointly:
    """The interpreter on each member; what it says beside maps is averaged over them."""

    interpreter: Interpreter

    @property
    def name(self) -> str:
        return self.interpreter.name

    @property
    def draws(self) -> bool:
        return draws(self.interpreter)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return stacked([self.interpreter.explain(each, x, y, keys)[:, None] for each in members_of(classifier)])[:, 0]

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> tuple[Any, ...]:
        return tuple(self.interpreter.begin(each, x, y, keys) for each in members_of(classifier))

    def advance(self, classifier: Classifier, belief: tuple[Any, ...], x: Images, y: Labels) -> tuple[Any, ...]:
        pairs = zip(members_of(classifier), belief, strict=True)
        return tuple(self.interpreter.advance(each, own, x, y) for each, own in pairs)

    def read(self, classifier: Classifier, belief: tuple[Any, ...], x: Images, y: Labels) -> Reading:
        pairs = zip(members_of(classifier), belief, strict=True)
        readings = [self.interpreter.read(each, own, x, y) for each, own in pairs]
        logits = torch.stack([each.logits.log_softmax(1) for each in readings]).mean(0)
        log_prob = torch.stack([each.log_prob for each in readings]).mean(0)
        terms = {name: torch.stack([each.terms[name] for each in readings]).mean(0) for name in readings[0].terms}
        return Reading(logits, log_prob, stacked([each.maps for each in readings]), terms)
