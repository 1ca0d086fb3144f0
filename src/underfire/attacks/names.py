"""What attacks, interpreters and detectors are called in sentences, tables and pictures.

    attack_name("adv2-stadv-evading-fs:median:3")    # ADV² on StAdv evading median 3×3
    detector_name("fs:median:3")                     # feature squeezing (median 3×3)

A name that is not one of ours is shown as it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from underfire.core.errors import UnderfireError
from underfire.detection.names import FAMILIES, families_in

if TYPE_CHECKING:
    from underfire.attacks.recipes import Recipe


@dataclass(frozen=True)
class AttackSolver:
    """A way to move images, with all that is said of it; its perturbation and its steps are those of its recipes.

    `name` is that of its attack that ignores the map as well, `map_aware` that of ADV2; titles stand in sentences.
    `budget` names the settings that are fields of its perturbation, `columns` what its perturbation measures, `counts`
    the setting that takes the place of an effort.
    """

    name: str
    map_aware: str
    title: str
    map_aware_title: str
    ensemble_title: str  # of ADV2 for all interpreters at once
    does: str
    recipes: "Callable[[], Mapping[str, Recipe]]"  # by name; imports them when an attack is made
    budget: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    counts: Literal["steps", "queries"] = "steps"

    @property
    def hides(self) -> bool:
        """Whether its ADV2 can hide from detectors, which takes following gradients."""
        return self.counts == "steps"

    def recipe(self, name: str) -> "Recipe":
        """Its parameters; UnderfireError if there is no recipe of that name."""
        known = self.recipes()
        if name not in known:
            raise UnderfireError(f"Solver '{self.name}' has no recipe '{name}'; it has {', '.join(known)}.")
        return known[name]


def _of_pixels() -> "Mapping[str, Recipe]":
    from underfire.attacks.recipes import RECIPES

    return RECIPES


def _of_balls() -> "Mapping[str, Recipe]":
    from underfire.attacks.recipes import L2_RECIPES

    return L2_RECIPES


def _of_flows() -> "Mapping[str, Recipe]":
    from underfire.attacks.recipes import FLOW_RECIPES

    return FLOW_RECIPES


def _of_queries() -> "Mapping[str, Recipe]":
    from underfire.attacks.queries import QUERY_RECIPES

    return QUERY_RECIPES


SOLVERS = {
    each.name: each
    for each in (
        AttackSolver(
            "pgd", "adv2", "PGD", "ADV²", "ADV² on the ensemble", "changes pixel values", _of_pixels, budget=("eps",)
        ),
        AttackSolver(
            "pgd-l2",
            "adv2-l2",
            "PGD in L2",
            "ADV² in L2",
            "ADV² in L2 on the ensemble",
            "changes pixel values within an L2 ball",
            _of_balls,
            budget=("eps",),
        ),
        AttackSolver(
            "stadv",
            "adv2-stadv",
            "StAdv",
            "ADV² on StAdv",
            "ADV² on StAdv and the ensemble",
            "moves pixels in place of changing them",
            _of_flows,
            columns=("flow_mean", "flow_smoothness"),
        ),
        AttackSolver(
            "square",
            "adv2-square",
            "Square",
            "ADV² by queries",
            "ADV² by queries on the ensemble",
            "changes squares of pixels at random, by queries alone,",
            _of_queries,
            budget=("eps",),
            counts="queries",
        ),
    )
}
NORMS = {"linf": "pgd", "l2": "pgd-l2"}  # of a change of pixel values, and the solver that keeps it small
ATTACKS = {each.name: each.title for each in SOLVERS.values()}
ATTACKS |= {each.map_aware: each.map_aware_title for each in SOLVERS.values()}
ENSEMBLE = "ensemble"  # the detector that compares the maps of all interpreters
Effort = Literal["quick", "standard", "thorough"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)  # how many rungs the annealed attacks climb
QUICK, STANDARD, THOROUGH = EFFORTS
BUDGETS: Mapping[Effort, int] = {QUICK: 1000, STANDARD: 5000, THOROUGH: 20_000}  # in queries, of attacks that ask
SUITES: Mapping[str, tuple[Effort, tuple[str, ...]]] = {  # of an audit: the effort of its attacks, and their solvers
    "quick": (QUICK, ("pgd",)),
    "standard": (STANDARD, ("pgd", "stadv")),
    "thorough": (THOROUGH, ("pgd", "stadv", "square")),
}
RECIPES = ("paper", "paper-densenet", "paper-isic", "annealed", "patch")
TARGET_CLASSES = ("random", "least-likely", "next", "N", "CSV")
TARGET_MAPS = ("benign", "patch", "random-class", "FILE")
GIVEN = "attacked"  # an attack of which there is no more than its images, unless it is called something
OTHERS = {"benign": "benign", "target": "target", "noise": "random noise", GIVEN: "Given attack"}
INTERPRETERS = {"grad": "GRAD", "cam": "CAM", "grad-cam": "Grad-CAM", "ig": "IG", "mask": "MASK", "rts": "RTS"}
INTERPRETERS |= {"rollout": "Rollout", "grad-rollout": "Grad-rollout"}
OF_NO_CLASS = ("rollout", "smooth-rollout", "smooth:rollout")


@dataclass(frozen=True)
class AttackName:
    """The name of an attack, taken apart into what the columns of outcomes say."""

    solver: AttackSolver
    map_aware: bool  # whether it is after a map
    evades: str | None = None  # the detector that it hides from; ENSEMBLE deceives all interpreters with one image

    @property
    def shared(self) -> bool:
        """Whether its images are the same for all interpreters."""
        return not self.map_aware or self.evades == ENSEMBLE

    @property
    def order(self) -> tuple[int, ...]:
        """Solver by solver: the plain attack, ADV², those that evade detectors, that on the ensemble."""
        place = list(SOLVERS).index(self.solver.name)
        return place, self.map_aware, self.evades == ENSEMBLE, self.evades is not None

    @property
    def title(self) -> str:
        """Without the detector that it evades."""
        if self.evades == ENSEMBLE:
            return self.solver.ensemble_title
        return self.solver.map_aware_title if self.map_aware else self.solver.title


def attacker(attack: str) -> AttackName | None:
    """An attack's name taken apart; None if it is not one of ours."""
    base, evading, evades = attack.partition("-evading-")
    if not evading and base.endswith(f"-{ENSEMBLE}"):
        base, evades = base.removesuffix(f"-{ENSEMBLE}"), ENSEMBLE
    for solver in SOLVERS.values():
        if base == solver.map_aware:
            return AttackName(solver, True, evades or None)
        if attack == solver.name:
            return AttackName(solver, False)
    return None


def in_order(attacks: Iterable[str]) -> list[str]:
    """Each attack once, in the order in which they are shown; unknown ones last."""
    last = (len(SOLVERS),)
    return sorted(dict.fromkeys(attacks), key=lambda name: known.order if (known := attacker(name)) else last)


def attack_name(attack: str) -> str:
    """An attack, as in "ADV² on StAdv evading median 3×3"."""
    known = attacker(attack)
    if known is None:
        return OTHERS.get(attack, attack)
    if known.evades is None or known.evades == ENSEMBLE:
        return known.title
    speaks_for_itself = known.evades.startswith("fs:") and len(families_in(known.evades)) == 1
    return f"{known.title} evading {(detector_part if speaks_for_itself else detector_name)(known.evades)}"


def made_for(attack: str, interpreter: str | None) -> str:
    """An attack and the interpreter whose map it was after, if it was after one."""
    return attack_name(attack) if interpreter is None else f"{attack_name(attack)} for {interpreter_name(interpreter)}"


def interpreter_name(interpreter: str) -> str:
    """The name the field writes, or the given one."""
    return INTERPRETERS.get(interpreter, interpreter)


def class_blindness(interpreter: str) -> Iterator[str]:
    """A sentence on an interpreter whose map is the same for every class; none on any other."""
    if interpreter in OF_NO_CLASS:
        yield (
            f"{interpreter_name(interpreter)} explains no class in particular: its map is the same for all of them, so "
            "that it cannot tell why this one was reported."
        )


def detector_name(detector: str) -> str:
    """A detector with its family, as in "feature squeezing (median 3×3)"."""
    if len(families := families_in(detector)) > 1:
        return " and ".join(map(detector_name, families))
    family, colon, _ = detector.partition(":")
    name = family_name(family)
    return f"{name} ({detector_part(detector)})" if colon else name


def detector_part(detector: str) -> str:
    """A detector within its family, as in "median 3×3"; that of all its parts is "combined"."""
    if len(families_in(detector)) > 1:
        return detector_name(detector)
    family, _, part = detector.partition(":")
    return _PARTS.get(family, str)(part) if part else "combined"


def family_name(family: str) -> str:
    return FAMILIES.get(family, family)


def _squeezers(part: str) -> str:
    return " + ".join(_squeezer(each) for each in part.split("+"))


def _squeezer(squeezer: str) -> str:
    kind, _, number = squeezer.partition(":")
    return _SQUEEZERS[kind].format(number) if kind in _SQUEEZERS else squeezer


def _consistency(part: str) -> str:
    interpreter, _, change = part.partition(":")
    name = interpreter_name(interpreter)
    return f"{name} under {_CHANGES.get(change, change)}" if change else name


def _pair(part: str) -> str:
    return " and ".join(map(interpreter_name, part.split("+")))


_SQUEEZERS = {"bits": "{0} bits", "median": "median {0}×{0}", "nlm": "non-local means {0}"}
_CHANGES = {"jpeg": "JPEG"}
_PARTS: dict[str, Callable[[str], str]] = {"fs": _squeezers, "consistency": _consistency, "ensemble": _pair}
