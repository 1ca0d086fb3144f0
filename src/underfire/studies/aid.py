"""Does a defended interpreter tell attacked images from benign ones? (Table 10, Fig. 15 and 16)

    made = study(settings, classifier, image_set, None)
    run = carry_out(made, Path("runs/x"), classifier, command="…")
    rows = summarise(comparisons(run))

The first interpreter is the undefended one. Each is asked how far its maps move from its own benign ones

    under PGD, which ignores maps, under ADV2 made for it, and under ADV2 made for the undefended one,
    under random signs of the same size as each attack: benign images that a detector must let pass,
    under normal and uniform noise that makes the classifier err on 3 % and 30 % of the images,

and how far its benign maps are from those of the undefended one. With object masks, how well it finds objects is
measured in folders of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field, field_validator
from torch import Tensor

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import attack_name
from underfire.attacks.target_classes import RandomClass
from underfire.core.io import read_table, rows_where
from underfire.core.rng import image_keys
from underfire.core.types import Samples, UnderfireError
from underfire.data.image_set import ImageSet
from underfire.data.selection import Selection
from underfire.detection.calibration import roc
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import interpreter_named
from underfire.metrics.intervals import Estimate, mean_interval, share
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier
from underfire.models.noise import NOISES, Trial
from underfire.runs.compute import choose, keep
from underfire.runs.execute import Chosen, Planned, Report, Study, environment, preflight
from underfire.runs.folder import Run
from underfire.runs.settings import Inputs
from underfire.runs.specs import CalibratedNoise, Craft, Explain, Select, SignNoise, Spec, TargetClasses, describe, key
from underfire.runs.store import Store
from underfire.studies import localisation
from underfire.studies.figures import Drawing, Figure, gallery

TABLE = "aid.parquet"
LEVELS = (0.03, 0.30)  # shares of errors
BENIGN, SIGNS = "benign", "signs like"
SHOWN = 2  # images in a gallery
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


def locate(
    run: Run,
    classifier: Classifier,
    image_set: ImageSet,
    masks: ImageSet,
    *,
    command: str,
    batch_size: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> None:
    """How well each interpreter finds objects, in run folders of their own."""
    settings, _ = recorded(run)
    for name in settings.interpreters:
        given = settings.model_dump(include=set(localisation.LocalisationSettings.model_fields) - {"n", "interpreters"})
        localisation.execute(
            localisation.LocalisationSettings(**given, interpreters=(name,), n=settings.located),
            classifier,
            image_set,
            masks,
            _localised(run.path, label_of(name)),
            command=command,
            batch_size=batch_size,
            on_progress=on_progress,
        )


def study(
    settings: AidSettings, classifier: Classifier, image_set: ImageSet, masks: ImageSet | None, batch_size: int = 16
) -> Study:
    """Attacks and noises; what cannot be classified, explained or disturbed is found out when images are chosen."""
    select = _select(settings, classifier, image_set)

    def chosen() -> Chosen:
        selection = choose(select, image_set, classifier)
        samples = selection.samples
        preflight(settings.explainers(), classifier, samples)
        _check_noises(settings, classifier, samples, batch_size)
        description = _describe(settings, classifier, image_set, selection)
        return Chosen(description, partial(keep, select, samples))

    views = tuple(_views(settings, select))
    plan, table = tuple(_plan(settings, select, views)), partial(_table, settings, select, views)
    return Study(_spec(settings, select, masks), chosen, plan, TABLE, table)


# --- what is computed -------------------------------------------------------------------------


def _select(settings: AidSettings, classifier: Classifier, image_set: ImageSet) -> Select:
    return Select(classifier.fingerprint(), image_set.digest, settings.n, settings.seed)


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


def _views(settings: AidSettings, select: Select) -> Iterator[View]:
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
            yield View(_signs_like(craft.attack.name), made_for, name, SignNoise(craft, settings.seed), each)
        for kind in NOISES:
            for level in LEVELS:
                disturb = CalibratedNoise(select, kind, level, settings.seed)
                yield View(f"{kind} noise, {100 * level:g} %", None, name, disturb, each)


def _signs_like(attack: str) -> str:
    """Benign images with random signs of the size of that attack."""
    return f"{SIGNS} {attack}"


def _adv2(settings: AidSettings, select: Select, interpreter: Interpreter) -> Craft:
    attack = solvers.adv2(interpreter, **_recipe(settings), steps=settings.steps, seed=settings.seed)
    return _craft(settings, select, attack, Explain(select, interpreter))


def _recipe(settings: AidSettings) -> dict[str, Any]:
    return {"recipe": settings.recipe, "eps": settings.eps}


def _craft(settings: AidSettings, select: Select, attack: Attack, goal: Explain | None) -> Craft:
    aim = TargetClasses(select, settings.seed, RandomClass())
    assert attack.warm_start is not None
    return Craft(aim, attack, goal, Craft(aim, attack.warm_start, None, None))


def _plan(settings: AidSettings, select: Select, views: tuple[View, ...]) -> Iterator[Planned]:
    """The stages in the order in which they are computed, each once."""
    plain = _craft(settings, select, solvers.pgd(**_recipe(settings)), None)
    assert plain.start is not None
    yield Planned("images", select, "image", BENIGN, None)
    yield Planned("targets", plain.of, "step", BENIGN, None)
    yield Planned("warm start", plain.start, "step", "warm-start", None)
    for name, each in settings.by_label().items():
        yield Planned(f"benign maps, {name}", Explain(select, each), "map", BENIGN, name)
    begun = set[str]()
    for view in views:
        if view.spec != select and key(view.spec) not in begun:
            begun.add(key(view.spec))
            whose = view.made_for or "all"
            yield Planned(f"{view.images}, {whose}", view.spec, "image", view.images, view.made_for)
        if view.spec != select:
            attack = view.images if view.made_for in (None, view.shown_by) else f"{view.images} for {view.made_for}"
            yield Planned(f"{attack}, maps of {view.shown_by}", view.maps, "map", attack, view.shown_by)


def _table(
    settings: AidSettings, select: Select, views: tuple[View, ...], ids: tuple[str, ...], store: Store
) -> pa.Table:
    undefended = next(iter(settings.by_label().values()))
    labels = store.read(key(select), "label", ids).tolist()
    tables = []
    for view in views:
        reference = Explain(select, undefended if view.images == BENIGN else view.interpreter)
        distances = map_l1(*(store.read(key(spec), "map", ids) for spec in (view.maps, reference)))
        columns = {
            "id": ids,
            "images": [view.images] * len(ids),
            "made_for": [view.made_for] * len(ids),
            "shown_by": [view.shown_by] * len(ids),
            "class_true": labels,
            "class_target": [None] * len(ids),
            "class_predicted": labels,
            "sigma": [None] * len(ids),
            "map_l1": distances.tolist(),
        }
        if view.spec != select:
            columns["class_predicted"] = store.read(key(view.spec), "predicted", ids).tolist()
        if isinstance(view.spec, Craft):
            columns["class_target"] = store.read(key(view.spec.of), "target", ids).tolist()
        if isinstance(view.spec, CalibratedNoise):
            columns["sigma"] = store.read(key(view.spec), "sigma", ids).tolist()
        tables.append(pa.table(columns, SCHEMA))
    return pa.concat_tables(tables)


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 15 and 16: what noise and attacks make of every interpreter's maps."""
    settings, select = recorded(run)
    noises = [tuple(f"{kind} noise, {100 * level:g} %" for level in LEVELS) for kind in NOISES]
    title = "Fig. 15. Maps under noise that makes 3 and 30 % of images err"
    yield Figure("figure-15", title, partial(_gallery, settings, select, run, noises))
    title = "Fig. 16. Maps of benign and adversarial (ADV²) inputs, each attacked through its own interpreter"
    yield Figure("figure-16", title, partial(_gallery, settings, select, run, [("adv2",)]))


def _gallery(settings: AidSettings, select: Select, run: Run, kinds: Sequence[tuple[str, ...]]) -> Drawing:
    """For some images a row benign, and one for each of what became of them; images that the last of these fools."""
    views, store = list(_views(settings, select)), run.store
    ids, rows = store.done(key(select)), []
    labels = store.read(key(select), "label", ids)
    for group in kinds:
        by_kind = {
            kind: [view for view in views if view.images == kind and view.made_for in (None, view.shown_by)]
            for kind in group
        }
        fooled = store.read(key(by_kind[group[-1]][0].spec), "predicted", ids) != labels
        for place in fooled.nonzero()[:SHOWN, 0].tolist():
            chosen = ids[place : place + 1]
            benign = [Explain(select, each) for each in settings.by_label().values()]
            rows.append((BENIGN, _panels(store, chosen, select, benign)))
            for kind, shown in by_kind.items():
                rows.append((attack_name(kind), _panels(store, chosen, shown[0].spec, [view.maps for view in shown])))
    return gallery(["input", *settings.by_label()], rows)


def _panels(store: Store, chosen: tuple[str, ...], images: Spec, maps: Sequence[Explain]) -> list[Tensor]:
    """One image and its maps."""
    return [store.read(key(images), "image", chosen)[0], *(store.read(key(each), "map", chosen)[0] for each in maps)]


# --- what it says -----------------------------------------------------------------------------


@dataclass(frozen=True)
class AidSummary:
    """One interpreter on images of one kind; `auc` of map change as a detector of the attack against signs of the same
    size, `success` of attacks."""

    shown_by: str
    images: str
    made_for: str | None
    map_l1: Estimate
    misclassified: Estimate
    success: Estimate | None
    auc: float | None
    sigma: float | None

    @property
    def is_harmless(self) -> bool:
        """Whether it stands beside an attack, to be told from it."""
        return self.images.startswith(SIGNS)


def exactly(value: float, n: int) -> Estimate:
    """A number of n images without an interval of its own."""
    return Estimate(value, value, value, n)


def comparisons(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[AidSummary]:
    """One AidSummary per interpreter and kind of images, in the order of the table."""
    names = ("shown_by", "images", "made_for")
    kinds = dict.fromkeys(zip(*(table[name].to_pylist() for name in names), strict=True))
    return [_summary(table, *kind) for kind in kinds]


def _summary(table: pa.Table, shown_by: str, images: str, made_for: str | None) -> AidSummary:
    rows = _of(table, shown_by, images, made_for)
    predicted, target = (np.array(rows[name].to_pylist(), dtype=object) for name in ("class_predicted", "class_target"))
    attacked, distances = target[0] is not None, rows["map_l1"].to_numpy()
    harmless = _of(table, shown_by, _signs_like(images), made_for)["map_l1"].to_numpy()
    return AidSummary(
        shown_by=shown_by,
        images=images,
        made_for=made_for,
        map_l1=mean_interval(distances),
        misclassified=share(predicted != rows["class_true"].to_numpy()),
        success=share(predicted == target) if attacked else None,
        auc=roc(*(torch.from_numpy(each.copy()) for each in (harmless, distances))).auc if attacked else None,
        sigma=rows["sigma"][0].as_py(),
    )


def _of(table: pa.Table, shown_by: str, images: str, made_for: str | None) -> pa.Table:
    return rows_where(table, shown_by=shown_by, images=images, made_for=made_for)


def located(run: Run) -> dict[str, localisation.LocalisationSummary]:
    """How well each interpreter finds objects under the rule that did best on other images, if masks were given."""
    settings, _ = recorded(run)
    if settings.masks is None:
        return {}
    tables = {
        label: localisation.localisations(Run(_localised(run.path, label))).filter(pc.field("interpreter") == each.name)
        for label, each in settings.by_label().items()
    }
    return {label: next(row for row in localisation.summarise(table) if row.best) for label, table in tables.items()}


def _localised(out: Path, label: str) -> Path:
    return out / "localisation" / label.replace(":", "-")


def _check_noises(settings: AidSettings, classifier: Classifier, samples: Samples, batch_size: int) -> None:
    for kind in NOISES:
        keys = image_keys(samples.ids)
        Trial(classifier, samples.images, samples.labels, keys, kind, settings.seed, batch_size).check(max(LEVELS))


def recorded(run: Run) -> tuple[AidSettings, Select]:
    """What the run was made with; UnderfireError if it holds no defences or another version's."""
    try:
        spec = dict(run.info["spec"])
        select = Select(spec["model_fingerprint"], spec["images_digest"], spec["n"], spec["seed"])
        return AidSettings(**{name: spec[name] for name in AidSettings.model_fields}), select
    except (KeyError, TypeError, ValueError) as problem:
        raise UnderfireError(f"{run.path} holds no defences that this version made; run the study again.") from problem


def _spec(settings: AidSettings, select: Select, masks: ImageSet | None) -> dict[str, Any]:
    """What two runs must share to be the same run."""
    digests = {"model_fingerprint": select.model, "images_digest": select.images}
    digests |= {} if masks is None else {"masks_digest": masks.digest}
    return {"study": "aid", **settings.model_dump(mode="json"), **digests}


def _describe(
    settings: AidSettings, classifier: Classifier, image_set: ImageSet, selection: Selection
) -> dict[str, Any]:
    """What run.json says of the model, the images and the interpreters."""
    return {
        "interpreters": {label: describe(each) for label, each in settings.by_label().items()},
        **environment(settings, classifier, image_set),
        "selection": {
            "requested": settings.n,
            "examined": selection.examined,
            "misclassified": selection.misclassified,
        },
        "skipped": [{"id": name, "reason": reason} for name, reason in selection.skipped],
    }
