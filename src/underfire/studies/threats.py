"""How little must change? The smallest change in L2, and the smallest patch, that betray an image.

    made = experiment(AttackSettings(…), Subject(classifier, image_set))
    run = execute(made, Path("runs/x"), classifier, Manner("…"))
    found = curves(threats(run))                    # by interpreter and threat

Each image meets ADV2 within balls of L2 of growing length, and in squares in its middle of growing side, where any
value is in reach. It is betrayed where the classifier reports the target class and the map is no further from the
benign one than harmless changes move it, which is measured of interpreters in closed form; others are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any

import pyarrow as pa

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import interpreter_name
from underfire.core.errors import UnderfireError
from underfire.core.io import groups, read_table
from underfire.data.corruptions import PNG
from underfire.data.regions import Middle, Region
from underfire.interpreters.protocol import ClosedForm
from underfire.metrics.betrayal import Curve
from underfire.metrics.intervals import Estimate
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.choosing import choose
from underfire.runs.execute import Chosen, Experiment, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan, Planned, PlannedInterpreter, before_attacks, once, planned_maps, scored_maps
from underfire.runs.specs import Craft, Saved, describe
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies.base import Study, Subject, chosen, identity, per_image, select_from
from underfire.studies.judged import judged
from underfire.studies.stage_rows import StageRows, by_parts
from underfire.studies.tables import Row, Table, Value

TABLE = "threats.parquet"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "interpreter": pa.string(),
        "threat": pa.string(),
        "budget": pa.float64(),  # length in L2, or the share of the image's side that a patch has
        "success": pa.bool_(),
        "map_l1": pa.float64(),
        "natural_l1": pa.float64(),
        "betrayed": pa.bool_(),
    }
)
LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
SIDES = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2)
TITLES = {"l2": "length in L2", "patch": "side of a patch"}


@dataclass(frozen=True)
class Threat:
    """A way to change images within a budget, and ADV2 on an interpreter that keeps to it."""

    name: str
    budget: float
    craft: Craft
    shown: PlannedInterpreter

    @property
    def saved(self) -> Saved:
        """Its images as PNG files, of which all is measured."""
        return Saved(self.craft, PNG())


def experiment(settings: AttackSettings, subject: Subject) -> Experiment:
    """The attacks; UnderfireError where no interpreter is in closed form."""
    select = select_from(settings, subject.classifier, subject.image_set)
    plan = AttackPlan.of(settings, select)
    if not _shown(plan):
        raise UnderfireError("The study 'threats' needs an interpreter in closed form, such as cam; name one.")

    def choose_images() -> Chosen:
        selection = choose(select, subject.image_set, subject.classifier)
        preflight(plan.explainers, subject.classifier, selection.chosen.samples([0]))
        return chosen(settings, subject, select, selection, {"interpreters": describe(plan.explainers)})

    stages, table = tuple(once(_stages(plan))), partial(threat_table, plan)
    return Experiment(
        identity(settings, select, "threats"), choose_images, stages, TABLE, SCHEMA, table, subject.image_set
    )


def threats_of(plan: AttackPlan) -> Iterator[Threat]:
    """Of each interpreter in closed form, growing lengths and growing sides."""
    settings = plan.settings
    length: dict[str, Any] = {"effort": settings.effort, "steps": settings.steps, "seed": settings.seed}
    for shown in _shown(plan):
        for eps in LENGTHS:
            attack = solvers.adv2(shown.interpreter, norm="l2", eps=eps, **length)
            yield Threat("l2", eps, _craft(plan, shown, attack, None), shown)
        for side in SIDES:
            attack = solvers.adv2(shown.interpreter, recipe="patch", **length)
            yield Threat("patch", side, _craft(plan, shown, attack, Middle(side)), shown)


def _shown(plan: AttackPlan) -> tuple[PlannedInterpreter, ...]:
    """The interpreters in closed form."""
    return tuple(each for each in plan.interpreters if isinstance(each.interpreter, ClosedForm))


def _craft(plan: AttackPlan, shown: PlannedInterpreter, attack: Attack, region: Region | None) -> Craft:
    assert attack.warm_start is not None
    start = Craft(plan.targets, attack.warm_start, None, None, region=region)
    return Craft(plan.targets, attack, shown.goal, start, noise=shown.noise, region=region)


def _stages(plan: AttackPlan) -> Iterator[Planned]:
    yield from before_attacks(plan.targets, _shown(plan))
    for each in threats_of(plan):
        name, label = each.shown.name, f"{each.name} {each.budget:g}, {each.shown.name}"
        assert each.craft.start is not None
        yield Planned(f"warm start, {label}", each.craft.start, "step", each.name, name)
        yield Planned(label, each.craft, "step", each.name, name)
        yield Planned(f"{label}, as png", each.saved, "step", each.name, name)
        for maps in planned_maps(f"maps, {label}", scored_maps(each.saved, each.shown.interpreter), each.name, name):
            yield replace(maps, kind="step")


def threat_table(plan: AttackPlan, ids: tuple[str, ...], store: Store) -> Iterator[pa.Table]:
    """One row per image x interpreter x threat x budget."""
    for each in threats_of(plan):
        yield by_parts(ids, store, partial(_measured, each))


def _measured(threat: Threat, held: StageRows) -> pa.Table:
    found = judged(held, threat.saved, threat.shown)
    return per_image(
        SCHEMA,
        held.ids,
        interpreter=threat.shown.name,
        threat=threat.name,
        budget=threat.budget,
        success=found.fooled.tolist(),
        map_l1=found.moved["map_l1"].tolist(),
        natural_l1=found.natural_l1.tolist(),
        betrayed=found.betrayed["natural"].tolist(),
    )


def threats(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def curves(table: pa.Table) -> Mapping[tuple[str, str], Curve]:
    """By interpreter and threat, the share of images that some budget up to each betrays."""
    found = {}
    for (interpreter, threat), rows in groups(table, "interpreter", "threat"):
        smallest = dict.fromkeys(rows["id"].to_pylist(), inf)
        for row in rows.to_pylist():
            if row["betrayed"]:
                smallest[row["id"]] = min(smallest[row["id"]], row["budget"])
        grid = sorted(set(rows["budget"].to_pylist()))
        found[interpreter, threat] = Curve(tuple(grid), tuple(smallest.values()))
    return found


def tables(run: Run) -> Iterator[Table]:
    """For each threat the share betrayed within each budget, and the median smallest budget; not in the paper."""
    found = curves(threats(run))
    for threat, title in TITLES.items():
        ours = {name: curve for (name, kind), curve in found.items() if kind == threat}
        grid = next(iter(ours.values())).grid
        rows = [Row((interpreter_name(name),), tuple(_cells(curve))) for name, curve in ours.items()]
        columns = (*(f"≤ {each:.3g}" for each in grid), "median smallest")
        note = (
            "Share of images that betray: the target class is reported, and harmless changes move the map as far. "
            "Lengths are over all values of an image, sides are shares of the image's."
        )
        yield Table(f"threats-{threat}", f"Betrayed within, by {title}", ("",), columns, tuple(rows), note)


def _cells(curve: Curve) -> Iterator[tuple[Value, ...]]:
    n = len(curve.smallest)
    for point in curve.points():
        yield (Value("betrayed", Estimate(point.share, point.low, point.high, n), percent=True),)
    middle, low, high = curve.median
    none = middle is None
    yield (Value("budget", None if none else Estimate(middle or inf, low or inf, high or inf, n)),)


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    given = {name: each for name, each in request.recipe_given().items() if name in ("effort", "steps")}
    return experiment(AttackSettings(**request.inputs(), **given), subject)


STUDY = Study(_experiment, (TABLE,), tables)
