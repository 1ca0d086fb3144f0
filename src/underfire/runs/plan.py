"""Which attacks a run consists of: the plain ones, ADV2 for each interpreter, and those that evade detectors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from underfire.attacks.attack import Attack
from underfire.attacks.solvers import SOLVERS
from underfire.attacks.target_classes import target_class_named
from underfire.attacks.target_maps import target_map_named
from underfire.detection.registry import squeezing_named
from underfire.interpreters import Ensemble, Interpreter
from underfire.runs.settings import ENSEMBLE, AttackSettings
from underfire.runs.specs import Craft, Explain, Select, TargetClasses, TargetMaps


@dataclass(frozen=True)
class PlannedAttack:
    """One attack of a run, and the interpreter whose map it is after; None if it is after none, or after all."""

    craft: Craft
    interpreter: Interpreter | None

    @property
    def name(self) -> str:
        return self.craft.attack.name

    def judged_by(self, interpreters: Iterable[Interpreter]) -> list[Interpreter]:
        """The interpreters whose maps say what became of it."""
        return list(interpreters) if self.interpreter is None else [self.interpreter]


def attacks(settings: AttackSettings, select: Select) -> Iterator[PlannedAttack]:
    """For each solver the plain attack and ADV2 for each interpreter; then, with the first solver, those that evade."""
    explainers, (first, *_) = settings.explainers(), settings.solvers
    for solver in settings.solvers:
        yield PlannedAttack(_plain(settings, select, solver), None)
        for interpreter in explainers:
            yield PlannedAttack(_map_aware(settings, select, solver, interpreter), interpreter)
    for name in settings.evade:
        if name == ENSEMBLE:
            yield PlannedAttack(_on_all(settings, select, first, explainers), None)
        else:
            for interpreter in explainers:
                yield PlannedAttack(_map_aware(settings, select, first, interpreter, name), interpreter)


def aim_of(settings: AttackSettings, select: Select) -> TargetClasses:
    return TargetClasses(select, settings.seed, target_class_named(settings.target_class))


def goal_of(settings: AttackSettings, aim: TargetClasses, interpreter: Interpreter) -> Explain | TargetMaps:
    """The stage that holds the target maps."""
    benign, rule = Explain(aim.of, interpreter), target_map_named(settings.target_map)
    return benign if rule is None else TargetMaps(aim, benign, rule, settings.seed)


def _plain(settings: AttackSettings, select: Select, solver: str) -> Craft:
    aim, attack = aim_of(settings, select), SOLVERS[solver].plain(**_recipe(settings, solver))
    return Craft(aim, attack, None, _first(aim, attack.warm_start))


def _map_aware(
    settings: AttackSettings, select: Select, solver: str, interpreter: Interpreter, evaded: str | None = None
) -> Craft:
    """ADV2 for one interpreter, hidden from the squeezers of a detector if one is named."""
    squeezers = () if evaded is None else tuple(each.squeezer for each in squeezing_named(evaded))
    attack = _adv2(settings, solver, interpreter, evade=squeezers)
    if evaded is not None:
        attack = replace(attack, name=f"{attack.name}-evading-{evaded}")
    aim = aim_of(settings, select)
    return Craft(
        aim, attack, goal_of(settings, aim, interpreter), _first(aim, attack.warm_start), _first(aim, attack.anchor)
    )


def _on_all(settings: AttackSettings, select: Select, solver: str, interpreters: list[Interpreter]) -> Craft:
    """ADV2 for all interpreters at once."""
    attack = _adv2(settings, solver, Ensemble(tuple(interpreters), (1.0,) * len(interpreters)))
    attack = replace(attack, name=f"{attack.name}-{ENSEMBLE}")
    aim = aim_of(settings, select)
    return Craft(aim, attack, Explain(select, attack.interpreter), _first(aim, attack.warm_start))


def _adv2(settings: AttackSettings, solver: str, interpreter: Interpreter, **further: Any) -> Attack:
    recipe = _recipe(settings, solver)
    return SOLVERS[solver].map_aware(interpreter, **recipe, steps=settings.steps, seed=settings.seed, **further)


def _recipe(settings: AttackSettings, solver: str) -> dict[str, Any]:
    """What the solver's two presets have in common."""
    budget = {name: getattr(settings, name) for name in SOLVERS[solver].budget}
    return {"recipe": settings.recipe, **budget}


def _first(aim: TargetClasses, attack: Attack | None) -> Craft | None:
    """An attack that must be run before another one."""
    return None if attack is None else Craft(aim, attack, None, None)
