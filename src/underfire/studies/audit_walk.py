"""The walk of an audit through its suite: which image is betrayed by which attack, and by how small a budget.

    for trail in Walk(plan, ids, store, compute, deployed).trails(): ...

Each interpreter is attacked no longer than it takes: PGD and ADV2 meet all images, further members those that no attack
before has betrayed by both definitions of plausible (`metrics.betrayal`). Then the smallest budget that betrays is
searched for by bisection, each attack beginning where the one before it ended, so that betrayal is monotone in it.
All that is read is in the store; `compute` puts it there, or has done so before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

from underfire.attacks.attack import Attack
from underfire.attacks.names import SOLVERS
from underfire.attacks.perturbations import Pixels
from underfire.data.corruptions import PNG
from underfire.detection.registry import Judgement
from underfire.interpreters.protocol import ClosedForm
from underfire.metrics.betrayal import DEFINITIONS, GRID, Curve, Definition, Flags, halved
from underfire.runs.plan import (
    AttackPlan,
    Planned,
    PlannedAttack,
    PlannedInterpreter,
    before_attacks,
    scored_maps,
    stages_of,
)
from underfire.runs.specs import Believed, Craft, Detect, ExplainRandomised, Saved, Spec, key
from underfire.runs.store import Store
from underfire.studies.detect import Calibrated, Pictured
from underfire.studies.detect import plan as detection_stages
from underfire.studies.judged import judged
from underfire.studies.stage_rows import StageRows

Compute = Callable[[Iterable[Planned], tuple[str, ...]], None]
CHECKED_TWICE = 16  # betrayed images that are attacked again, within twice the budget
RANDOMISED = "all"  # layers that are re-initialised to see whether maps depend on what was learned


@dataclass(frozen=True)
class Deployed:
    """A detector that is deployed beside the interpreters, calibrated."""

    judgement: Judgement
    calibrated: Calibrated

    def stages(self, craft: Craft, ids: tuple[str, ...]) -> Iterator[Planned]:
        yield from detection_stages(self.judgement.parts, Pictured(key(craft), craft.attack.name, None, ids))

    def flagged(self, craft: Craft, ids: tuple[str, ...], store: Store) -> Flags:
        parts = [store.read(key(Detect(key(craft), part)), "score", ids) for part in self.judgement.parts]
        flagged: Flags = self.calibrated.detector.flag(self.calibrated.score(parts)).numpy()
        return flagged


@dataclass(frozen=True)
class Tried:
    """One attack on images, as PNG files: which it fooled, and which it betrays by each definition."""

    name: str
    craft: Craft
    ids: tuple[str, ...]
    fooled: Flags
    betrayed: Mapping[Definition, Flags]

    def betrays(self, definition: Definition) -> tuple[str, ...]:
        return tuple(name for name, each in zip(self.ids, self.betrayed[definition], strict=True) if each)


@dataclass(frozen=True)
class Trail:
    """What was found of one interpreter.

    The curve varies the budget of the first member, `smallest` holds that which betrays each image, infinite where none
    does. `lost` are images that it betrays and the same attack within twice its budget does not, of so many `doubled`.
    """

    shown: PlannedInterpreter
    ids: tuple[str, ...]
    plain: Tried
    members: tuple[Tried, ...]
    definition: Definition
    grid: tuple[float, ...]
    smallest: Mapping[str, float]
    lost: tuple[str, ...]
    doubled: int

    @property
    def everything(self) -> tuple[Tried, ...]:
        return self.plain, *self.members

    @property
    def first(self) -> Tried:
        """The member that meets all images and is varied: ADV2, evading the detector where one is deployed."""
        return self.members[0]

    @property
    def curve(self) -> Curve:
        return Curve(self.grid, tuple(self.smallest[name] for name in self.ids))

    def betrayed_by(self, definition: Definition) -> dict[str, str]:
        """The images that are betrayed, in their order, each with the attack that does so first."""
        first = {name: tried.name for tried in reversed(self.everything) for name in tried.betrays(definition)}
        return {name: first[name] for name in self.ids if name in first}


@dataclass(frozen=True)
class Walk:
    """The plan of a suite's attacks, the images, where rows are, and who computes them."""

    plan: AttackPlan
    ids: tuple[str, ...]
    store: Store
    compute: Compute
    deployed: Deployed | None

    def trails(self) -> Iterator[Trail]:
        """One for each interpreter, in their order."""
        self.compute(before_attacks(self.plan.targets, self.plan.interpreters), self.ids)
        for shown in self.plan.interpreters:
            yield _OneInterpreter(self, shown).trail()


@dataclass(frozen=True)
class _OneInterpreter:
    """The walk before one interpreter."""

    walk: Walk
    shown: PlannedInterpreter

    def trail(self) -> Trail:
        ids = self.walk.ids
        plain = self._try(self.walk.plan.attacks[0], ids)
        root, *further = self._suite()
        members = [self._try(root, ids)]
        for attack in further:
            if resisting := _resisting([plain, *members], ids):
                members.append(self._try(attack, resisting))
        definition = _stricter([plain, *members])
        eps = budget_of(root.craft)
        grid = tuple(min(1.0, eps * each) for each in GRID)
        smallest = self._smallest(members[0], definition, grid)
        lost, doubled = self._within_twice(members[0], definition)
        maps = root.scored.maps[self.shown.name][0]
        randomised = ExplainRandomised(self.walk.plan.select, self.shown.interpreter, RANDOMISED, self._seed)
        self._compute([self._stage("attacker's maps", Believed(maps)), self._stage("randomised", randomised)], ids)
        return Trail(self.shown, ids, plain, tuple(members), definition, grid, smallest, lost, doubled)

    def _suite(self) -> list[PlannedAttack]:
        """Those that are after this interpreter's map, by solver, the one that evades the detector first.

        An interpreter that takes many passes to explain is not asked thousands of times.
        """
        cheap = isinstance(self.shown.interpreter, ClosedForm)
        made = (each for each in self.walk.plan.attacks if cheap or SOLVERS[each.solver].counts == "steps")
        ours = [each for each in made if each.map_aware and self.shown.name in each.scored.maps]
        solvers = self.walk.plan.settings.solvers
        return sorted(ours, key=lambda each: (solvers.index(each.solver), each.evades is None))

    def _try(self, attack: PlannedAttack, ids: tuple[str, ...]) -> Tried:
        self._compute(stages_of(attack), ids)
        return self._tried(Saved(attack.craft, PNG()), ids)

    def _smallest(self, root: Tried, definition: Definition, grid: Sequence[float]) -> dict[str, float]:
        """By image, by bisection over the grid, whose root is the budget of the audit itself."""
        smallest = dict.fromkeys(self.walk.ids, inf)
        place = grid.index(budget_of(root.craft))

        def search(budgets: Sequence[float], ids: tuple[str, ...], start: Craft) -> None:
            if budgets and ids:
                below, eps, above = halved(budgets)
                settle(self._within(eps, root.craft, start, ids), eps, below, above)

        def settle(tried: Tried, eps: float, below: Sequence[float], above: Sequence[float]) -> None:
            betrayed = tried.betrays(definition)
            smallest.update(dict.fromkeys(betrayed, eps))
            search(below, betrayed, tried.craft)
            search(above, tuple(name for name in tried.ids if name not in set(betrayed)), tried.craft)

        settle(root, grid[place], grid[:place], grid[place + 1 :])
        return smallest

    def _within_twice(self, root: Tried, definition: Definition) -> tuple[tuple[str, ...], int]:
        """Images that the root betrays and the same attack within twice its budget does not; of so many."""
        ids, eps = root.betrays(definition)[:CHECKED_TWICE], min(1.0, 2 * budget_of(root.craft))
        if not ids:
            return (), 0
        warm = root.craft.attack.warm_start
        start = None if warm is None else Craft(root.craft.of, _within(warm, eps), None, None)
        if start is not None:
            self._compute([self._stage("warm start within twice the budget", start)], ids)
        betrayed = self._within(eps, root.craft, start, ids).betrays(definition)
        return tuple(name for name in ids if name not in betrayed), len(ids)

    def _within(self, eps: float, root: Craft, start: Craft | None, ids: tuple[str, ...]) -> Tried:
        """The root's attack within another budget."""
        craft = replace(root, attack=_within(root.attack, eps), start=start)
        saved = Saved(craft, PNG())
        label, maps = f"within {255 * eps:.3g}/255", scored_maps(saved, self.shown.interpreter)
        stages = [self._stage(label, craft), self._stage(f"{label} as png", saved)]
        self._compute([*stages, *(self._stage(f"{label}, maps", each) for each in maps)], ids)
        return self._tried(saved, ids)

    def _tried(self, saved: Saved, ids: tuple[str, ...]) -> Tried:
        """What an attack did to class, map and detector, all of them looked at on PNG files but for the detector."""
        assert isinstance(saved.of, Craft)
        craft, found = saved.of, judged(StageRows(ids, self.walk.store), saved, self.shown)
        betrayed = found.betrayed
        if (deployed := self.walk.deployed) is not None:
            self._compute(deployed.stages(craft, ids), ids)
            seen = deployed.flagged(craft, ids, self.walk.store)
            betrayed = {name: each & ~seen for name, each in betrayed.items()}
        return Tried(craft.attack.name, craft, ids, found.fooled, betrayed)

    def _compute(self, stages: Iterable[Planned], ids: tuple[str, ...]) -> None:
        self.walk.compute(stages, ids)

    def _stage(self, label: str, spec: Spec) -> Planned:
        return Planned(f"{label}, {self.shown.name}", spec, "step", "", self.shown.name)

    @property
    def _seed(self) -> int:
        return self.walk.plan.settings.seed


def budget_of(craft: Craft) -> float:
    """The L-infinity budget; an attack without one has no curve."""
    assert isinstance(craft.attack.perturbation, Pixels)
    return craft.attack.perturbation.eps


def _within(attack: Attack, eps: float) -> Attack:
    """The attack within another budget."""
    assert isinstance(attack.perturbation, Pixels)
    return replace(attack, perturbation=replace(attack.perturbation, eps=eps))


def _resisting(tried: Sequence[Tried], ids: tuple[str, ...]) -> tuple[str, ...]:
    """The images that some definition does not hold for betrayed yet."""
    by_definition = [{name for each in tried for name in each.betrays(definition)} for definition in DEFINITIONS]
    betrayed = set[str].intersection(*by_definition)
    return tuple(name for name in ids if name not in betrayed)


def _stricter(tried: Sequence[Tried]) -> Definition:
    """The definition by which fewer images are betrayed; of equals the first."""
    counts = {name: len({id for each in tried for id in each.betrays(name)}) for name in DEFINITIONS}
    return min(counts, key=counts.__getitem__)
