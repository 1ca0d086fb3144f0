"""How far apart are prediction and interpretation? Both sides of Proposition 1, and IG's map, of every attacked image.

    add(open_run("runs/x"), classifier)
    rows = summarise(gaps(run))

To the run of an attack (`underfire.studies.effectiveness`) this adds a table and a plot; benign images, whose losses
are both 0, and random noise of the attack's size stand beside the attacks.

That sum |dm| >= |sum dm| is so for any numbers dm, and no finding. Findings are how large the interpretation loss is
and whether IG would show it: how far its deployed map is from that of the benign image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import nan

import numpy as np
import pyarrow as pa

from underfire.attacks.names import made_for
from underfire.core.io import groups, nullable, read_table, write_bytes, write_table
from underfire.core.plots import bound
from underfire.interpreters import IG, Midpoints
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import compare_maps
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner, adding_to, perform
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.runs.plan import AttackPlan, Planned
from underfire.runs.specs import Bound, Craft, Explain, Select, SignNoise
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies import effectiveness
from underfire.studies.base import Study, Subject, per_image
from underfire.studies.stage_rows import StageRows, by_parts
from underfire.studies.tables import Row, Table, Value

TABLE, PLOT = "gap.parquet", "gap.svg"
QUADRATURE = Midpoints(64)
SHOWN = IG()  # whose maps are compared, as deployed
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "attack": pa.string(),
        "interpreter": pa.string(),  # whose map the attack was after, if any
        "class_target": pa.int64(),
        "prediction_loss": pa.float64(),
        "interpretation_loss": pa.float64(),
        "gap": pa.float64(),  # interpretation loss - prediction loss
        "completeness_error": pa.float64(),
        "ig_l1": pa.float64(),  # dL1 of IG's map of the image, for the class reported, to that of the benign image
        "ig_iou": pa.float64(),  # the same two maps above their own means; null where neither marks anything
    }
)


def add(run: Run, classifier: Classifier, manner: Manner) -> None:
    """Compute the losses that an attack's run lacks, and write their table and plot."""
    made, ids = effectiveness.recorded(run), run.ids
    context = manner.context(classifier, len(ids))
    with adding_to(run):
        computed = perform(plan(made), ids, context, run, manner)
        if computed or not ((run.path / TABLE).exists() and (run.path / PLOT).exists()):
            table = gap_table(made, ids, run.store)
            write_bytes(run.path / PLOT, scatter(table))
            write_table(run.path / TABLE, table)


def plan(made: AttackPlan) -> Iterator[Planned]:
    """The noise, then the losses of each kind of images and IG's maps of them."""
    for each in _kinds(made):
        if isinstance(each.images, SignNoise):
            yield Planned("noise", each.images, "step", each.attack, None)
        of = each.interpreter or each.attack
        yield Planned(f"both losses, {of}", each.bound, "step", each.attack, each.interpreter)
        yield Planned(f"maps of ig, {of}", each.maps, "map", each.attack, each.interpreter)


def gap_table(made: AttackPlan, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter that it was made for."""
    return pa.concat_tables(by_parts(ids, store, partial(_losses, made, each)) for each in _kinds(made))


def _losses(made: AttackPlan, kind: "_Kind", held: StageRows) -> pa.Table:
    names = ("prediction_loss", "interpretation_loss", "completeness_error")
    prediction, interpretation, error = (held.of(kind.bound, name).double() for name in names)
    moved = compare_maps(held.of(kind.maps, "map"), held.of(Explain(made.select, SHOWN), "map"))
    return per_image(
        SCHEMA,
        held.ids,
        attack=kind.attack,
        interpreter=kind.interpreter,
        class_target=held.of(made.targets, "target"),
        prediction_loss=prediction,
        interpretation_loss=interpretation,
        gap=interpretation - prediction,
        completeness_error=error,
        ig_l1=moved["map_l1"].double(),
        **nullable({"ig_iou": moved["iou_mean"]}),
    )


@dataclass(frozen=True)
class _Kind:
    """One kind of images, and the interpreter that they were made for, if any."""

    attack: str
    interpreter: str | None
    images: Select | Craft | SignNoise
    bound: Bound

    @property
    def maps(self) -> Explain:
        return Explain(self.images, SHOWN)


def _kinds(made: AttackPlan) -> Iterator[_Kind]:
    """Benign images, noise, and those of every attack."""

    def kind(attack: str, interpreter: str | None, images: Select | Craft | SignNoise) -> _Kind:
        return _Kind(attack, interpreter, images, Bound(images, made.targets, QUADRATURE))

    yield kind("benign", None, made.select)
    yield kind("noise", None, SignNoise(made.attacks[0].craft, made.settings.seed))
    for each in made.attacks:
        yield kind(each.name, None if each.interpreter is None else each.interpreter.name, each.craft)


@dataclass(frozen=True)
class GapSummary:
    """One kind of images.

    Both errors are sizes of the completeness error, as shares of the mean size of the prediction loss: their mean, and
    that of the image where it is largest; of no image where no prediction changes. `ig_l1` and `ig_iou` compare IG's
    map with that of the benign image.
    """

    attack: str
    interpreter: str | None
    prediction_loss: Estimate
    interpretation_loss: Estimate
    gap: Estimate
    mean_error: Estimate
    largest_error: Estimate
    ig_l1: Estimate
    ig_iou: Estimate


def gaps(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[GapSummary]:
    """One GapSummary per kind of images, in the order of the table."""
    return [_summary(rows, *kind) for kind, rows in groups(table, "attack", "interpreter")]


def _summary(rows: pa.Table, attack: str, interpreter: str | None) -> GapSummary:
    names = ("prediction_loss", "interpretation_loss", "gap", "ig_l1", "ig_iou")
    means = {name: mean_interval(rows[name].to_numpy()) for name in names}
    changes, errors = (abs(rows[name].to_numpy()) for name in ("prediction_loss", "completeness_error"))
    errors = errors / changes.mean() if changes.any() else np.array([])
    largest = Estimate(float(max(errors, default=nan)), nan, nan, len(errors))
    return GapSummary(attack, interpreter, **means, mean_error=mean_interval(errors), largest_error=largest)


def scatter(table: pa.Table) -> bytes:
    """Both losses of every image as SVG, and where they are equal; the benign ones, where both are 0, left out."""
    points = {
        made_for(*kind): (rows["prediction_loss"].to_numpy(), rows["interpretation_loss"].to_numpy())
        for kind, rows in groups(table, "attack", "interpreter")
        if kind != ("benign", None)
    }
    return bound(points, "prediction loss  p(x) − p(x₀)", "interpretation loss  ‖Δm‖₁")


def tables(run: Run) -> Iterator[Table]:
    """The one table, of which the paper prints no numbers."""
    yield both_sides_and_map(gaps(run))


def both_sides_and_map(table: pa.Table) -> Table:
    """Both sides of Proposition 1, the error of the integral, and what IG would show, for each kind of images."""
    columns = {
        "prediction loss": ("prediction_loss", False),
        "interpretation loss": ("interpretation_loss", False),
        "gap": ("gap", False),
        "mean error": ("mean_error", True),
        "largest error": ("largest_error", True),
        "IG ΔL1": ("ig_l1", False),
        "IG IoU": ("ig_iou", False),
    }
    rows = []
    for each in summarise(table):
        cells = tuple(
            (Value(measure, getattr(each, name), percent=percent),) for measure, (name, percent) in columns.items()
        )
        rows.append(Row((made_for(each.attack, each.interpreter),), cells))
    title = "Proposition 1. Prediction loss, interpretation loss by integrated gradients, and IG's map"
    note = (
        "Errors: what the integral misses, as shares of the mean size of the prediction loss. ΔL1 and IoU: IG's map as "
        "deployed, of the class that is reported, against the benign image's."
    )
    return Table("proposition-1", title, ("",), tuple(columns), tuple(rows), note)


def _further(request: StudySettings, select: Select) -> Iterator[Planned]:
    return plan(AttackPlan.of(effectiveness.attack_settings(request), select))


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    add(run, subject.classifier, manner)


STUDY = Study(effectiveness.attacking(), (OUTCOMES, TABLE), tables, further=_further, add=_add)
