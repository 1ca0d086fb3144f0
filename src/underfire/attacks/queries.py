"""What an attacker sees who may only ask, and how his questions are counted.

    interpreter = Queried(CAM())                            # read: logits and the deployed map, no gradient
    steps = looks_within(5000, interpreter)                 # of an attack by `Square`

A *query* is one forward pass of the classifier or one explanation by the interpreter, of one image. A *look* asks for
all that the attack wants to know of an image: its logits and, unless it ignores the map, its map. Each step is a look,
and so is each judgement of an iterate at the end of a quantum; where a rung ends that is not the last, one more
explanation tells whether the image is settled. What is measured of the result is no query. How many passes of
a network an explanation takes is the interpreter's affair: GRAD one with its gradient, RTS one of its masker, MASK 300.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from underfire.attacks.attack import QUANTUM, Attack
from underfire.attacks.evasion import agreement
from underfire.attacks.names import BUDGETS, QUICK, STANDARD
from underfire.attacks.perturbations import Pixels
from underfire.attacks.recipes import MapAttack, Recipe, Rungs, ladder, margin
from underfire.attacks.square import Square
from underfire.core import rng
from underfire.core.checks import check_count
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.adapters.follow import Looked
from underfire.interpreters.protocol import Blind, Explainer, Interpreter, draws, reading
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Queried:
    """The deployed interpreter as its own model: what it shows, with dice of the attacker's, and no gradient."""

    interpreter: Explainer

    @property
    def name(self) -> str:
        return self.interpreter.name

    @property
    def draws(self) -> bool:
        return draws(self.interpreter)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return self.interpreter.explain(classifier, x, y, keys)

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Looked:
        return Looked(keys, keys.new_zeros(keys.shape))

    def advance(self, classifier: Classifier, belief: Looked, x: Images, y: Labels) -> Looked:
        return replace(belief, step=belief.step + 1)

    def read(self, classifier: Classifier, belief: Looked, x: Images, y: Labels) -> Reading:
        dice = rng.derived(belief.keys, "look", belief.step)
        return reading(classifier(x), self.explain(classifier, x, y, dice), y)


def per_look(interpreter: Interpreter) -> int:
    """Queries that a look at an image takes."""
    return 1 if isinstance(interpreter, Blind) else 2


def looks_within(queries: int, interpreter: Interpreter) -> int:
    """The most steps that so many queries allow, judgements counted; UnderfireError if they allow none."""
    looks = check_count("queries", queries) // per_look(interpreter)
    steps = looks - -(-looks // (QUANTUM + 1))
    if steps < 1:
        raise UnderfireError(f"{queries} queries do not suffice for a step and its judgement; give 4 or more.")
    return steps


def queries_of(attack: Attack, steps: int) -> int:
    """The most that an image has cost which left this attack after so many steps, at the end of a rung."""
    done = [rung for rung, end in zip(attack.rungs, accumulate(attack.rungs), strict=True) if end <= steps]
    looks = sum(rung + -(-rung // attack.quantum) for rung in done)
    return per_look(attack.interpreter) * looks + len(done) - (steps == attack.steps)


def _rungs(interpreter: Interpreter) -> Rungs:
    """Steps that end when the budgets of all efforts are spent."""
    later = (after - before - 1 for before, after in pairwise(BUDGETS.values()))
    return tuple(looks_within(queries, interpreter) for queries in (BUDGETS[QUICK], *later))


SHARE = 0.2  # of the first squares

QUERY_RECIPES: Mapping[str, Recipe] = {
    "annealed": Recipe(
        perturbation=Pixels(8 / 255),
        warm_steps=0,
        warm_rule=Square(SHARE),
        plain_steps=looks_within(BUDGETS[STANDARD], Blind()),
        rule=lambda rungs: Square(SHARE),
        weight=lambda c, steps: Constant(c),
        map_attacks={"cam": MapAttack(ladder(*_rungs(Queried(Blind()))), 40.0, model=Queried, prediction=margin)},
        evasion=agreement,
    )
}
