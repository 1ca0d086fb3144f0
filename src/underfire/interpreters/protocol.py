"""The two faces of an interpreter, and Blind, the interpreter of plain PGD.

`explain` is the *deployed* interpreter: converged, exact, without a graph; benign maps, target maps,
the choice of the best iterate and every metric come from it. `begin`, `advance` and `read` are the
*attacker's model* of it: a belief about each image (a row record) and a Reading differentiable in x.

    belief = g.begin(classifier, x, y, keys)
    belief = g.advance(classifier, belief, x, y)
    reading = g.read(classifier, belief, x, y)

Interpreters are frozen dataclasses of hyper-parameters, so that a run can record them.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from underfire.core.losses import log_prob
from underfire.core.types import Images, Keys, Labels, Logits, Maps, Reading
from underfire.models.classifier import Classifier


@runtime_checkable
class Explainer(Protocol):
    """The deployed face alone: explains class y of image x by a map in [0, 1], high = important."""

    @property
    def name(self) -> str: ...

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        """The deployed maps, without a graph; keys feed the random streams of interpreters that draw."""
        ...


@runtime_checkable
class Interpreter(Explainer, Protocol):
    """Anything that can be attacked: both faces."""

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Any:
        """The attacker's first belief about each image, a row record."""
        ...

    def advance(self, classifier: Classifier, belief: Any, x: Images, y: Labels) -> Any:
        """The belief after the attacker has looked at x once more."""
        ...

    def read(self, classifier: Classifier, belief: Any, x: Images, y: Labels) -> Reading:
        """The attacker's maps and the prediction at x, differentiable in x."""
        ...


@dataclass(frozen=True)
class NoBelief:
    """The belief of interpreters in closed form: nothing needs remembering."""


class ClosedForm:
    """`begin` and `advance` of an interpreter whose attacker remembers nothing."""

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> NoBelief:
        return NoBelief()

    def advance(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> NoBelief:
        return belief


@dataclass(frozen=True)
class Blind(ClosedForm):
    """Looks at no map: ADV2 against it is plain PGD. Its map is one blank cell, which no image can change."""

    @property
    def name(self) -> str:
        return "blind"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return x.new_zeros(len(x), 1, 1)

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(classifier(x).logits, x.new_zeros(len(x), 1, 1), y)


def reading(logits: Logits, maps: Maps, y: Labels) -> Reading:
    """A Reading with one view of the map and no further terms."""
    return Reading(logits, log_prob(logits, y), maps[:, None])
