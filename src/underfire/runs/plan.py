"""What a run of attacks consists of: its images, interpreters, attacks and stages, made once and read by all.

plan = AttackPlan.of(settings, select)
plan.attacks      # the plain ones, ADV2 for each interpreter, and those that evade detectors
plan.stages       # in the order in which they are computed; shared ones come once
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Protocol, cast, runtime_checkable

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import ENSEMBLE, SOLVERS
from underfire.attacks.target_classes import target_class_named
from underfire.attacks.target_maps import target_map_named
from underfire.data.corruptions import FILES, PNG, Corruption
from underfire.data.regions import Region
from underfire.detection.registry import evaded_named
from underfire.detection.scores import FeatureSqueezing
from underfire.interpreters import Ensemble, Interpreter
from underfire.interpreters.protocol import ClosedForm, Explainer, draws, scoring_draws
from underfire.runs.attack_settings import AttackSettings, Varied
from underfire.runs.specs import (
    Craft,
    Explain,
    Given,
    Pictured,
    Repeat,
    Saved,
    Select,
    Spec,
    TargetClasses,
    TargetMaps,
    Vary,
    key,
)


@dataclass(frozen=True)
class Planned:
    """One stage of a study; kind ("image", "map" or "step"), attack and interpreter say what readers find in it."""

    label: str
    spec: Spec
    kind: str
    attack: str
    interpreter: str | None


@dataclass(frozen=True)
class PlannedInterpreter:
    """An interpreter, its benign maps by each draw that scores, how far they move by nature, if that is asked for, and
    the maps that attacks are to show.

    Unless other maps are wanted, `goal` holds benign maps, too: by a draw of which scores know nothing. `noise` is what
    attacks know of the interpreter's own; None if it does not draw.
    """

    interpreter: Interpreter
    benign: tuple[Explain, ...]
    variation: Vary | None
    goal: Explain | TargetMaps
    noise: Repeat | None

    @property
    def name(self) -> str:
        return self.interpreter.name

    @property
    def wanted(self) -> tuple[Explain | TargetMaps, ...]:
        """What attacked maps are scored against."""
        return (self.goal,) if isinstance(self.goal, TargetMaps) else self.benign


@dataclass(frozen=True)
class MeasuredImages:
    """Attacked images, and by the name of the interpreter their maps by each draw that scores."""

    images: Craft | Given | Saved
    maps: Mapping[str, tuple[Explain, ...]]


@runtime_checkable
class MeasuredAttack(Protocol):
    """An attack of which a table can be made, ours or anybody's: facts of it (None if they are not known), and its
    images as they are and from files.
    """

    @property
    def name(self) -> str: ...

    @property
    def solver(self) -> str | None: ...

    @property
    def map_aware(self) -> bool | None: ...

    @property
    def evades(self) -> str | None: ...

    @property
    def scored(self) -> MeasuredImages: ...

    @property
    def files(self) -> Mapping[str, MeasuredImages]: ...


@dataclass(frozen=True)
class PlannedAttack:
    """One attack of a run, and the interpreter whose map it is after; None if it is after none, or after all.

    `scored` are its images as they are, `files` by the name of the form (see `data.corruptions.FILES`); `evades`
    names the detector that it hides from, if any.
    """

    craft: Craft
    interpreter: Interpreter | None
    solver: str
    evades: str | None
    scored: MeasuredImages
    files: Mapping[str, MeasuredImages]

    @property
    def name(self) -> str:
        return self.craft.attack.name

    @property
    def map_aware(self) -> bool:
        return self.craft.goal is not None


@dataclass(frozen=True)
class AttackPlan:
    """The chosen images and their target classes, the interpreters, the attacks, and the stages that hold it all."""

    settings: AttackSettings
    select: Select
    targets: TargetClasses
    interpreters: tuple[PlannedInterpreter, ...]
    attacks: tuple[PlannedAttack, ...]
    stages: tuple[Planned, ...]

    @classmethod
    def of(
        cls, settings: AttackSettings, select: Select, explainers: Sequence[Interpreter] | None = None
    ) -> "AttackPlan":
        """By the interpreters that the settings name, unless they are given."""
        targets = TargetClasses(select, settings.seed, target_class_named(settings.target_class))
        interpreters = tuple(_interpreters(settings, targets, explainers or settings.explainers()))
        attacks = tuple(_Planner(settings, targets, interpreters).attacks())
        everything = chain(before_attacks(targets, interpreters), *map(stages_of, attacks))
        stages = tuple(once(everything))
        return cls(settings, select, targets, interpreters, attacks, stages)

    @property
    def explainers(self) -> list[Interpreter]:
        return [each.interpreter for each in self.interpreters]


def scored_maps(of: Pictured, interpreter: Explainer) -> tuple[Explain, ...]:
    """The maps by which images are scored, one for each draw."""
    return tuple(Explain(of, interpreter, draw) for draw in scoring_draws(interpreter))


def planned_maps(label: str, maps: tuple[Explain, ...], attack: str, interpreter: str) -> Iterator[Planned]:
    """Maps by each draw that scores, of which the first are shown."""
    yield Planned(label, maps[0], "map", attack, interpreter)
    for further in maps[1:]:
        yield Planned(f"{label}, drawn again", further, "step", attack, interpreter)


def _interpreters(
    settings: AttackSettings, targets: TargetClasses, explainers: Sequence[Interpreter]
) -> Iterator[PlannedInterpreter]:
    rule = target_map_named(settings.target_map)
    for interpreter in explainers:
        benign, attacked = scored_maps(targets.of, interpreter), Explain(targets.of, interpreter)
        goal = attacked if rule is None else TargetMaps(targets, attacked, rule, settings.seed)
        yield PlannedInterpreter(interpreter, benign, variation(settings, benign[0]), goal, _noise(attacked))


def _noise(benign: Explain) -> Repeat | None:
    return Repeat(benign) if draws(benign.interpreter) else None


def variation(settings: Varied, benign: Explain) -> Vary | None:
    """Six more maps an image, unless they are not asked for where they are dear."""
    asked = settings.variation == "all" or isinstance(benign.interpreter, ClosedForm)
    return Vary(benign) if asked else None


@dataclass(frozen=True)
class _Planner:
    """Makes the attacks of a run."""

    settings: AttackSettings
    targets: TargetClasses
    interpreters: tuple[PlannedInterpreter, ...]

    @cached_property
    def region(self) -> Region | None:
        """Where images may be changed; None for everywhere."""
        return self.settings.within()

    def attacks(self) -> Iterator[PlannedAttack]:
        """For each solver the plain attack, ADV2 for each interpreter and, if it can hide, those that evade."""
        for solver in self.settings.solvers:
            yield self._plain(solver)
            for each in self.interpreters:
                yield self._map_aware(solver, each)
            for name in self.settings.evade if SOLVERS[solver].hides else ():
                yield from self._evading(solver, name)

    def _evading(self, solver: str, detector: str) -> Iterator[PlannedAttack]:
        if detector == ENSEMBLE:
            yield self._on_all(solver)
        else:
            for each in self.interpreters:
                yield self._map_aware(solver, each, detector)

    def _plain(self, solver: str) -> PlannedAttack:
        attack = solvers.plain(SOLVERS[solver], **self._recipe(solver))
        craft = Craft(self.targets, attack, None, self._first(attack.warm_start), region=self.region)
        return self._planned(craft, None, solver, None)

    def _map_aware(self, solver: str, shown: PlannedInterpreter, evades: str | None = None) -> PlannedAttack:
        """ADV2 for one interpreter, hidden from a detector if one is named."""
        scores = () if evades is None else evaded_named(evades, shown.interpreter, self.settings.interpreters)
        evaded = tuple(each.squeezer if isinstance(each, FeatureSqueezing) else each for each in scores)
        attack = self._adv2(solver, shown.interpreter, evade=evaded)
        if evades is not None:
            attack = replace(attack, name=f"{attack.name}-evading-{evades}")
        before = self._first(attack.warm_start), self._first(attack.anchor)
        craft = Craft(self.targets, attack, shown.goal, *before, shown.noise, self.region)
        return self._planned(craft, shown.interpreter, solver, evades)

    def _on_all(self, solver: str) -> PlannedAttack:
        """ADV2 for all interpreters at once."""
        members = tuple(each.interpreter for each in self.interpreters)
        attack = self._adv2(solver, Ensemble(members, (1.0,) * len(members)))
        attack = replace(attack, name=f"{attack.name}-{ENSEMBLE}")
        goal = Explain(self.targets.of, attack.interpreter)
        before = self._first(attack.warm_start)
        craft = Craft(self.targets, attack, goal, before, noise=_noise(goal), region=self.region)
        return self._planned(craft, None, solver, ENSEMBLE)

    def _planned(self, craft: Craft, interpreter: Interpreter | None, solver: str, evades: str | None) -> PlannedAttack:
        judges = [each.interpreter for each in self.interpreters] if interpreter is None else [interpreter]
        scored = MeasuredImages(craft, {each.name: scored_maps(craft, each) for each in judges})
        files = {name: saved(craft, form, judges) for name, form in FILES.items()}
        return PlannedAttack(craft, interpreter, solver, evades, scored, files)

    def _adv2(self, solver: str, interpreter: Interpreter, **further: Any) -> Attack:
        given = {"steps": self.settings.steps, **self._recipe(solver), "seed": self.settings.seed}
        if given.get("queries") is None:
            given["effort"] = self.settings.effort
        return solvers.map_aware(SOLVERS[solver], interpreter, **given, **further)

    def _recipe(self, solver: str) -> dict[str, Any]:
        """What the solver's two presets have in common; of one that is counted in queries, how many, and no steps."""
        budget = {name: getattr(self.settings, name) for name in SOLVERS[solver].budget}
        on_grid = self.settings.on_grid and "eps" in SOLVERS[solver].budget
        asked = {"queries": self.settings.queries, "steps": None} if SOLVERS[solver].counts == "queries" else {}
        return {"recipe": self.settings.recipe, "on_grid": on_grid, **asked, **budget}

    def _first(self, attack: Attack | None) -> Craft | None:
        """An attack that must be run before another one."""
        return None if attack is None else Craft(self.targets, attack, None, None, region=self.region)


def saved(made: Craft | Given, form: Corruption, judges: Sequence[Interpreter]) -> MeasuredImages:
    """Images from files; where the file loses something, one draw of a map is enough."""
    images, lossless = Saved(made, form), isinstance(form, PNG)
    maps = {each.name: scored_maps(images, each) for each in judges}
    return MeasuredImages(images, maps if lossless else {name: drawn[:1] for name, drawn in maps.items()})


def once(stages: Iterable[Planned]) -> Iterator[Planned]:
    """Each stage where it first appears."""
    planned = set[str]()
    for each in stages:
        if key(each.spec) not in planned:
            planned.add(key(each.spec))
            yield each


def before_attacks(targets: TargetClasses, interpreters: Iterable[PlannedInterpreter]) -> Iterator[Planned]:
    """The images, their targets, and all that is known of benign maps."""
    yield Planned("images", targets.of, "image", "benign", None)
    yield Planned("targets", targets, "step", "benign", None)
    for each in interpreters:
        yield from planned_maps(f"benign maps, {each.name}", each.benign, "benign", each.name)
        if each.variation is not None:
            yield Planned(f"natural variation, {each.name}", each.variation, "step", "benign", each.name)
        seen = each.goal.benign if isinstance(each.goal, TargetMaps) else each.goal
        yield Planned(f"benign maps that attacks see, {each.name}", seen, "step", "benign", each.name)
        if each.noise is not None:
            yield Planned(f"own noise, {each.name}", each.noise, "step", "benign", each.name)
        if isinstance(each.goal, TargetMaps):
            yield Planned(f"target maps, {each.name}", each.goal, "map", "target", each.name)


def stages_of(attacked: PlannedAttack) -> Iterator[Planned]:
    """What must be there before an attack, the attack, and what is measured on its images."""
    craft, attack = attacked.craft, attacked.name
    after = None if attacked.interpreter is None else attacked.interpreter.name
    if isinstance(craft.start, Craft):
        yield Planned(f"warm start of {attack}", craft.start, "step", craft.start.attack.name, None)
    if craft.anchor is not None:
        yield Planned(f"first stage of {attack}", craft.anchor, "step", craft.anchor.attack.name, None)
    if isinstance(craft.attack.interpreter, Ensemble):
        yield Planned(f"benign maps for {attack}", cast(Explain, craft.goal), "step", "benign", None)
        if craft.noise is not None:
            yield Planned(f"own noise for {attack}", craft.noise, "step", "benign", None)
    yield from measured_stages(attacked, after)


def measured_stages(attacked: MeasuredAttack, after: str | None = None) -> Iterator[Planned]:
    """The images of an attack, made for that interpreter if for one, and what is measured on them."""
    attack, against = attacked.name, "" if after is None else f", {after}"
    yield Planned(f"{attack}{against}", attacked.scored.images, "image", attack, after)
    for name, maps in attacked.scored.maps.items():
        yield from planned_maps(f"{attack} maps, {name}", maps, attack, name)
    for form, scored in attacked.files.items():
        yield Planned(f"{attack} as {form}{against}", scored.images, "step", attack, after)
        for name, maps in scored.maps.items():
            for drawn in maps:
                yield Planned(f"{attack} maps as {form}, {name}", drawn, "step", attack, name)
