"""Everything that an interpreter is shown in the study of defences, and the table of what its maps did.

Images benign, under PGD and ADV2, under random signs of the size of each attack, and under calibrated noise; the maps
of each are compared with benign ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, field_validator

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.target_classes import RandomClass
from underfire.core.errors import UnderfireError
from underfire.core.io import groups, read_table
from underfire.detection.calibration import roc
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import interpreter_named
from underfire.metrics.intervals import Estimate, mean_interval, share
from underfire.metrics.maps import map_l1
from underfire.models.noise import NOISES
from underfire.runs.folder import Run
from underfire.runs.plan import Planned
from underfire.runs.settings import Inputs
from underfire.runs.specs import CalibratedNoise, Craft, Explain, Select, SignNoise, TargetClasses, key
from underfire.runs.store import Store
from underfire.studies.base import per_image

TABLE = "aid.parquet"
LEVELS = (0.03, 0.30)  # shares of errors
BENIGN, SIGNS = "benign", "signs like"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "images": pa.string(),  # benign, of an attack, of signs like an attack, or of a noise with its level
        "made_for": pa.string(),  # whose map the attack was after, if any
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
    kind, colon, argument = name.rpartition(":")
    return f"{kind}{colon}{Path(argument).stem}"


class AidSettings(Inputs):
    """Everything that decides what a run computes; the first interpreter is the undefended one."""

    interpreters: tuple[str, ...] = Field(min_length=2)
    n: int = Field(default=64, ge=2)
    recipe: Literal["annealed", "paper"] = "annealed"
    eps: float | None = Field(default=None, gt=0, le=1)
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
    """Images of one kind, for whom they were made, and who shows them."""

    images: str
    made_for: str | None
    shown_by: str
    spec: Select | Craft | SignNoise | CalibratedNoise
    interpreter: Interpreter

    @property
    def maps(self) -> Explain:
        return Explain(self.spec, self.interpreter)


def views(settings: AidSettings, select: Select) -> Iterator[View]:
    """Everything that each interpreter is asked to show."""
    interpreters = settings.by_label()
    undefended, *_ = interpreters
    plain = _craft(settings, select, solvers.pgd(**_recipe(settings)), None)
    crafts = {name: _adv2(settings, select, each) for name, each in interpreters.items()}
    for name, each in interpreters.items():
        yield View(BENIGN, None, name, select, each)
        attacks = [(None, plain), (name, crafts[name])]
        attacks += [(undefended, crafts[undefended])] if name != undefended else []
        for made_for, craft in attacks:
            yield View(craft.attack.name, made_for, name, craft, each)
            yield View(signs_like(craft.attack.name), made_for, name, SignNoise(craft, settings.seed), each)
        for kind in NOISES:
            for level in LEVELS:
                noise = CalibratedNoise(select, kind, level, settings.seed)
                yield View(noise_name(kind, level), None, name, noise, each)


def noise_name(kind: str, level: float) -> str:
    """Benign images with so much noise that this share of them is misclassified."""
    return f"{kind} noise, {100 * level:g} %"


def signs_like(attack: str) -> str:
    """Benign images with random signs of the size of that attack."""
    return f"{SIGNS} {attack}"


def _adv2(settings: AidSettings, select: Select, interpreter: Interpreter) -> Craft:
    attack = solvers.adv2(interpreter, **_recipe(settings), steps=settings.steps, seed=settings.seed)
    return _craft(settings, select, attack, Explain(select, interpreter))


def _recipe(settings: AidSettings) -> dict[str, Any]:
    return {"recipe": settings.recipe, "eps": settings.eps}


def _craft(settings: AidSettings, select: Select, attack: Attack, goal: Explain | None) -> Craft:
    targets = TargetClasses(select, settings.seed, RandomClass())
    assert attack.warm_start is not None
    return Craft(targets, attack, goal, Craft(targets, attack.warm_start, None, None))


def plan(settings: AidSettings, select: Select, shown: tuple[View, ...]) -> Iterator[Planned]:
    """The stages in the order in which they are computed, each once."""
    plain = _craft(settings, select, solvers.pgd(**_recipe(settings)), None)
    assert plain.start is not None
    yield Planned("images", select, "image", BENIGN, None)
    yield Planned("targets", plain.of, "step", BENIGN, None)
    yield Planned("warm start", plain.start, "step", "warm-start", None)
    for name, each in settings.by_label().items():
        yield Planned(f"benign maps, {name}", Explain(select, each), "map", BENIGN, name)
    begun = set[str]()
    for view in shown:
        if view.spec != select and key(view.spec) not in begun:
            begun.add(key(view.spec))
            whose = view.made_for or "all"
            yield Planned(f"{view.images}, {whose}", view.spec, "image", view.images, view.made_for)
        if view.spec != select:
            attack = view.images if view.made_for in (None, view.shown_by) else f"{view.images} for {view.made_for}"
            yield Planned(f"{attack}, maps of {view.shown_by}", view.maps, "map", attack, view.shown_by)


def aid_table(
    settings: AidSettings, select: Select, shown: tuple[View, ...], ids: tuple[str, ...], store: Store
) -> pa.Table:
    undefended = next(iter(settings.by_label().values()))
    labels = store.read(key(select), "label", ids)
    tables = []
    for view in shown:
        reference = Explain(select, undefended if view.images == BENIGN else view.interpreter)
        distances = map_l1(*(store.read(key(spec), "map", ids) for spec in (view.maps, reference)))
        of, predicted = view.spec, labels if view.spec == select else store.read(key(view.spec), "predicted", ids)
        table = per_image(
            SCHEMA,
            ids,
            images=view.images,
            made_for=view.made_for,
            shown_by=view.shown_by,
            class_true=labels,
            class_target=store.read(key(of.of), "target", ids) if isinstance(of, Craft) else None,
            class_predicted=predicted,
            sigma=store.read(key(of), "sigma", ids) if isinstance(of, CalibratedNoise) else None,
            map_l1=distances,
        )
        tables.append(table)
    return pa.concat_tables(tables)


# --- what it says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class AidSummary:
    """One interpreter on images of one kind.

    `success` is an attack's, and `auc` that of map change as a detector of it against signs of the same size.
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
        """Whether nobody attacks: what a detector must tell an attack from."""
        return self.images.startswith(SIGNS)


def comparisons(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[AidSummary]:
    """One AidSummary per interpreter and kind of images, in the order of the table."""
    kinds = dict(groups(table, "shown_by", "images", "made_for"))
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
