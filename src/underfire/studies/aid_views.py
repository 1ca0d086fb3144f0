"""Everything that an interpreter is shown in the study of defences, and the table of what its maps did.

Images benign, under PGD and ADV2, under random signs of the size of each attack, and under calibrated noise; the maps
of each are compared with benign ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field, field_validator

from underfire.attacks import solvers
from underfire.attacks.names import Effort
from underfire.attacks.suite import PRESET, suite
from underfire.attacks.target_classes import RandomClass
from underfire.core.errors import UnderfireError
from underfire.core.io import groups, read_table
from underfire.data.corruptions import PNG
from underfire.detection.calibration import roc
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import interpreter_named
from underfire.metrics.intervals import Estimate, mean_interval, share
from underfire.metrics.maps import compare_draws
from underfire.models.noise import NOISES
from underfire.runs.attack_settings import RecipeName
from underfire.runs.folder import Run
from underfire.runs.plan import Planned, planned_maps, scored_maps
from underfire.runs.settings import Inputs
from underfire.runs.specs import (
    CalibratedNoise,
    Craft,
    Explain,
    RandomPoints,
    Saved,
    Select,
    SignNoise,
    TargetClasses,
    key,
)
from underfire.runs.store import Store
from underfire.studies.base import per_image
from underfire.studies.stage_rows import StageRows, by_parts
from underfire.studies.worst_case import WorstCase, crafted, warm_start, worst_case

TABLE = "aid.parquet"
LEVELS = (0.03, 0.30)  # shares of errors
BENIGN, SIGNS = "benign", "signs like"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "images": pa.string(),  # benign, of an attack, of signs like an attack, or of a noise with its level
        "made_for": pa.string(),  # whose map the attack was after, if any
        "member": pa.string(),  # of the suite of attacks, where they are after a map
        "shown_by": pa.string(),
        "class_true": pa.int64(),
        "class_target": pa.int64(),  # null where nobody attacks
        "class_predicted": pa.int64(),
        "sigma": pa.float64(),  # of calibrated noise
        "map_l1": pa.float64(),  # to its own benign map; of benign images, to that of the undefended interpreter
    }
)


def label_of(name: str) -> str:
    """An interpreter in tables: as it is named, a file by its stem alone."""
    shown, _, _ = name.partition("@")
    kind, colon, argument = shown.rpartition(":")
    return f"{kind}{colon}{Path(argument).stem}"


class AidSettings(Inputs):
    """Everything that decides what a run computes; the first interpreter is the undefended one."""

    interpreters: tuple[str, ...] = Field(min_length=2)
    n: int = Field(default=64, ge=2)
    recipe: RecipeName = "annealed"
    eps: float | None = Field(default=None, gt=0, le=1)
    effort: Effort | None = None
    steps: int | None = Field(default=None, ge=1)
    masks: str | None = None
    located: int = Field(default=200, ge=2)  # images on which objects are to be found

    @field_validator("interpreters")
    @classmethod
    def _known_and_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        labels = [label_of(name) for name in names]
        if repeated := [label for label in labels if labels.count(label) > 1]:
            raise UnderfireError(f"Interpreter '{repeated[0]}' is named twice; give each file a name of its own.")
        for name in names:
            interpreter_named(name)
        return names

    def by_label(self) -> dict[str, Interpreter]:
        """The interpreters by their names in tables, the undefended one first."""
        return {label_of(name): interpreter_named(name) for name in self.interpreters}


@dataclass(frozen=True)
class View:
    """Images of one kind, for whom and by which member of the suite they were made, and who shows them."""

    images: str
    made_for: str | None
    member: str | None
    shown_by: str
    spec: Select | Craft | SignNoise | CalibratedNoise
    interpreter: Interpreter

    @property
    def measured(self) -> Select | Saved | SignNoise | CalibratedNoise:
        """The images as they are measured: attacked ones as PNG files."""
        return Saved(self.spec, PNG()) if isinstance(self.spec, Craft) else self.spec

    @property
    def maps(self) -> tuple[Explain, ...]:
        """By each draw that scores."""
        return scored_maps(self.measured, self.interpreter)

    @property
    def attack(self) -> str:
        """As readers of the run find the images; the suite's preset is ADV2 itself."""
        return self.images if self.member in (None, PRESET) else f"{self.images}, {self.member}"


def views(settings: AidSettings, select: Select) -> Iterator[View]:
    """Everything that each interpreter is asked to show."""
    interpreters = settings.by_label()
    undefended, *_ = interpreters
    plain = _plain(settings, select)
    suites = {name: _suite(settings, select, each) for name, each in interpreters.items()}
    for name, each in interpreters.items():
        yield View(BENIGN, None, None, name, select, each)
        attacks = [(None, None, plain), (name, PRESET, suites[name][PRESET])]
        attacks += [(undefended, PRESET, suites[undefended][PRESET])] if name != undefended else []
        for made_for, member, craft in attacks:
            signs = SignNoise(craft, settings.seed)
            yield View(craft.attack.name, made_for, member, name, craft, each)
            yield View(signs_like(craft.attack.name), made_for, None, name, signs, each)
        for member, craft in suites[name].items():
            if member != PRESET:
                yield View(craft.attack.name, name, member, name, craft, each)
        for kind in NOISES:
            for level in LEVELS:
                noise = CalibratedNoise(select, kind, level, settings.seed)
                yield View(noise_name(kind, level), None, None, name, noise, each)


def noise_name(kind: str, level: float) -> str:
    """Benign images with so much noise that this share of them is misclassified."""
    return f"{kind} noise, {100 * level:g} %"


def signs_like(attack: str) -> str:
    """Benign images with random signs of the size of that attack."""
    return f"{SIGNS} {attack}"


def _plain(settings: AidSettings, select: Select) -> Craft:
    attack = solvers.pgd(**_recipe(settings))
    return Craft(_targets(settings, select), attack, None, warm_start(attack, _targets(settings, select)))


def _suite(settings: AidSettings, select: Select, interpreter: Interpreter) -> dict[str, Craft]:
    """ADV2 for the interpreter by every member of the suite."""
    members = suite(interpreter, **_recipe(settings), effort=settings.effort, steps=settings.steps, seed=settings.seed)
    benign, targets = Explain(select, interpreter), _targets(settings, select)
    return {each.name: crafted(each, targets, benign, settings.seed) for each in members}


def _recipe(settings: AidSettings) -> dict[str, Any]:
    return {"recipe": settings.recipe, "eps": settings.eps}


def _targets(settings: AidSettings, select: Select) -> TargetClasses:
    return TargetClasses(select, settings.seed, RandomClass())


def plan(settings: AidSettings, select: Select, shown: tuple[View, ...]) -> Iterator[Planned]:
    """The stages in the order in which they are computed, each once."""
    stages = dict[str, Planned]()
    for planned in _stages(settings, select, shown):
        stages.setdefault(key(planned.spec), planned)
    yield from stages.values()


def _stages(settings: AidSettings, select: Select, shown: tuple[View, ...]) -> Iterator[Planned]:
    yield Planned("images", select, "image", BENIGN, None)
    yield Planned("targets", _targets(settings, select), "step", BENIGN, None)
    for name, each in settings.by_label().items():
        yield from planned_maps(f"benign maps, {name}", scored_maps(select, each), BENIGN, name)
        yield Planned(f"target maps, {name}", Explain(select, each), "step", BENIGN, name)
    for view in shown:
        if view.spec == select:
            continue
        if isinstance(view.spec, Craft):
            yield _start(view.spec)
        yield Planned(f"{view.attack}, {view.made_for or 'all'}", view.spec, "image", view.attack, view.made_for)
        if isinstance(view.measured, Saved):
            yield Planned(f"{view.attack} as png, {view.made_for or 'all'}", view.measured, "step", view.attack, None)
        attack = view.attack if view.made_for in (None, view.shown_by) else f"{view.attack} for {view.made_for}"
        yield from planned_maps(f"{attack}, maps of {view.shown_by}", view.maps, attack, view.shown_by)


def _start(craft: Craft) -> Planned:
    """What an attack begins from."""
    if isinstance(craft.start, RandomPoints):
        return Planned("random starts", craft.start, "step", "random-start", None)
    assert craft.start is not None
    return Planned("warm start", craft.start, "step", craft.start.attack.name, None)


def aid_table(
    settings: AidSettings, select: Select, shown: tuple[View, ...], ids: tuple[str, ...], store: Store
) -> Iterator[pa.Table]:
    """One row per image and view."""
    undefended = next(iter(settings.by_label().values()))
    for view in shown:
        reference = scored_maps(select, undefended if view.images == BENIGN else view.interpreter)
        yield by_parts(ids, store, partial(_seen, view, select, reference))


def _seen(view: View, select: Select, reference: tuple[Explain, ...], held: StageRows) -> pa.Table:
    of, labels = view.spec, held.of(select, "label")
    return per_image(
        SCHEMA,
        held.ids,
        images=view.images,
        made_for=view.made_for,
        member=view.member,
        shown_by=view.shown_by,
        class_true=labels,
        class_target=held.of(of.of, "target") if isinstance(of, Craft) else None,
        class_predicted=labels if of == select else held.of(view.measured, "predicted"),
        sigma=held.of(of, "sigma") if isinstance(of, CalibratedNoise) else None,
        map_l1=compare_draws(held.maps(view.maps), held.maps(reference))["map_l1"],
    )


# --- what it says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class AidSummary:
    """One interpreter on images of one kind.

    `success` is an attack's. `auc` says how well the change against the benign map, which nobody has who meets only the
    image at hand, separates the attack from random signs of the same size.
    """

    shown_by: str
    images: str
    made_for: str | None
    map_l1: Estimate
    misclassified: Estimate
    success: Estimate | None
    auc: float | None
    sigma: float | None

    @property
    def is_control(self) -> bool:
        """Whether nobody attacks: the random signs that stand beside an attack."""
        return self.images.startswith(SIGNS)


def comparisons(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[AidSummary]:
    """One AidSummary per interpreter and kind of images, in the order of the table; of a suite the preset alone."""
    single = pc.fill_null(pc.equal(table["member"], PRESET), True)
    kinds = dict(groups(table.filter(single), "shown_by", "images", "made_for"))
    return [
        _summary(rows, kinds.get((shown_by, signs_like(images), made_for)), shown_by, images, made_for)
        for (shown_by, images, made_for), rows in kinds.items()
    ]


def _summary(rows: pa.Table, signs: pa.Table | None, shown_by: str, images: str, made_for: str | None) -> AidSummary:
    predicted, target = (np.array(rows[name].to_pylist(), dtype=object) for name in ("class_predicted", "class_target"))
    success = auc = None
    if signs is not None:
        success = share(predicted == target)
        auc = roc(*(torch.tensor(each["map_l1"].to_numpy()) for each in (signs, rows))).auc
    return AidSummary(
        shown_by=shown_by,
        images=images,
        made_for=made_for,
        map_l1=mean_interval(rows["map_l1"].to_numpy()),
        misclassified=share(predicted != rows["class_true"].to_numpy()),
        success=success,
        auc=auc,
        sigma=rows["sigma"][0].as_py(),
    )


def worst_cases(table: pa.Table) -> dict[str, WorstCase]:
    """What the suite against each interpreter leaves of it, by interpreter, images in the order of their ids."""
    own = table.filter(pc.and_(pc.is_valid(table["member"]), pc.equal(table["made_for"], table["shown_by"])))
    return {shown_by: _worst_case(rows) for (shown_by,), rows in groups(own, "shown_by")}


def _worst_case(rows: pa.Table) -> WorstCase:
    by_member = {member: each.sort_by("id") for (member,), each in groups(rows, "member")}
    fooled = [pc.equal(each["class_predicted"], each["class_target"]).to_numpy() for each in by_member.values()]
    return worst_case(list(by_member), [each["map_l1"].to_numpy() for each in by_member.values()], fooled)
