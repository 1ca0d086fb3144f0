"""The two faces of an interpreter, and Blind, the interpreter of plain PGD.

`explain` is the *deployed* interpreter: converged, exact, without a graph; benign maps, target maps,
the choice of the best iterate and every metric come from it. `begin`, `advance` and `read` are the
*attacker's model* of it: a belief about each image (a row record) and a Reading differentiable in x.

    belief = g.begin(classifier, x, y, keys)
    belief = g.advance(classifier, belief, x, y)
    reading = g.read(classifier, belief, x, y)

Interpreters are frozen dataclasses of hyper-parameters, so that a run can record them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.losses import log_prob
from underfire.core.types import Images, Keys, Labels, Logits, Maps, Reading
from underfire.models.classifier import Classifier


@runtime_checkable
class Explainer(Protocol):
    """The deployed face alone: explains class y of image x by a map in [0, 1], high = important."""

    @property
    def name(self) -> str: ...

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        """The deployed maps, without a graph; keys feed the random streams of interpreters that draw.

        Our own interpreters may be asked without keys: then images are named by their places (`core.rng.keys_of`).
        """
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


ROUNDING = 1e-5  # by which a map may leave [0, 1]


def explained(explainer: Explainer, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
    """The deployed maps, or UnderfireError unless they are one map of floats for each image."""
    maps = explainer.explain(classifier, x, y, keys)
    if not isinstance(maps, Tensor) or not maps.is_floating_point() or maps.ndim != 3 or len(maps) != len(x):
        given = f"{maps.dtype} of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else type(maps).__name__
        raise UnderfireError(
            f"'{explainer.name}' explained {len(x)} images by {given}; maps must be one tensor of floats of shape "
            "(N, rows, columns)."
        )
    return maps


def check_maps(name: str, maps: Maps, ids: Sequence[str]) -> Maps:
    """The interpreter's maps of images with these ids, or UnderfireError unless they are finite and in [0, 1]."""
    fine = ((maps >= -ROUNDING) & (maps <= 1 + ROUNDING)).flatten(1).all(1)
    if not bool(fine.all()):
        place = int((~fine).nonzero()[0, 0])
        raise UnderfireError(
            f"'{name}' explained image {ids[place]} by a map from {float(maps[place].min()):g} to "
            f"{float(maps[place].max()):g}; maps must be finite and in [0, 1]: normalise them."
        )
    return maps


def check_reading(name: str, read: Reading, target_map: Maps) -> None:
    """UnderfireError unless the attacker's maps are NJhw on the grid of the deployed ones, or of one blank cell."""
    n, *grid = target_map.shape
    if read.maps.ndim != 4 or len(read.maps) != n or list(read.maps.shape[2:]) not in (grid, [1, 1]):
        raise UnderfireError(
            f"The attacker's maps of '{name}' have shape {tuple(read.maps.shape)}; they must be (N, views, rows, "
            f"columns) on the grid of its deployed maps, here {n} images and {grid[0]} × {grid[1]} cells."
        )


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

    draws: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "blind"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return x.new_zeros(len(x), 1, 1)

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(classifier(x), x.new_zeros(len(x), 1, 1), y)


def draws(interpreter: Explainer) -> bool:
    """Whether two maps of one image may differ, as the interpreter says itself; one that is silent is taken to draw."""
    said: bool = getattr(interpreter, "draws", True)
    return said


def attacked_like(interpreter: Explainer) -> str:
    """Whose steps an attack takes on an interpreter that no recipe names, as it says itself; CAM's otherwise."""
    said: str = getattr(interpreter, "attacked_like", "cam")
    return said


def check_suited(interpreter: Explainer, classifier: Classifier, x: Images) -> None:
    """UnderfireError where the interpreter is not made for the network, as its `check` says, if it has one."""
    check = getattr(interpreter, "check", None)
    if check is not None:
        check(classifier, x)


SCORING_DRAWS = (1, 2, 3, 4)  # of `image_keys`
REPEATED = 5  # attacks see benign maps by draw 0, their noise by this one, and for all else have dice, see `engine`


def remarks_on(interpreter: Explainer, classifier: Classifier, x: Images) -> tuple[str, ...]:
    """Sentences on the interpreter and the network that a reader should know, as its `remarks` says, if it has any."""
    remarks = getattr(interpreter, "remarks", None)
    return () if remarks is None else tuple(remarks(classifier, x))


def scoring_draws(interpreter: Explainer) -> tuple[int, ...]:
    """The draws by which maps are scored: several that no attack has seen, where the interpreter draws."""
    return SCORING_DRAWS if draws(interpreter) else (0,)


def reading(logits: Logits, maps: Maps, y: Labels) -> Reading:
    """A Reading with one view of the map and no further terms."""
    return Reading(logits, log_prob(logits, y), maps[:, None])
