"""MASK: the least that must be blurred for the class to be lost (Fong and Vedaldi 2017).

    map = 1 - m,   m = what 300 Adam iterations make of argmin over m in [0, 1] of E(m; x)

with the energy E of `underfire.interpreters.mask.solver` (Eq. 9); no mm.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from underfire.core import rng
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.mask.attacker import Replay, SolverModel
from underfire.interpreters.mask.solver import Solution, Solver
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class MASK:
    """MASK on a grid of 8-pixel cells (4 below 64 pixels).

    `attacker` is the attacker's model of the solver; the deployed map never uses it.
    """

    solver: Solver = field(default_factory=Solver)
    attacker: SolverModel = field(default_factory=Replay)

    draws: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "mask"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        return 1 - self.solver.solve(classifier, x, y, rng.keys_of(x, keys)).mask

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Solution:
        return self.attacker.begin(self.solver, classifier, x, y, keys)

    def advance(self, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Solution:
        return self.attacker.advance(self.solver, classifier, belief, x, y)

    def read(self, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Reading:
        return self.attacker.read(self.solver, classifier, belief, x, y)
