"""How far apart are prediction and interpretation? Both sides of Proposition 1 for every image of an attack.

    add(open_run("runs/x"), classifier)
    rows = summarise(gaps(run))

To the run of an attack (`underfire.studies.effectiveness`) this adds a table and a plot; benign images, whose losses
are both 0, and random noise of the attack's size stand beside the attacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from underfire.attacks.names import made_for
from underfire.core.io import groups, read_table, write_bytes, write_table
from underfire.core.plots import bound
from underfire.interpreters import Midpoints
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.models.classifier import Classifier
from underfire.runs.compute import Context
from underfire.runs.execute import Report, adding_to, even_batch_size, perform
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.runs.plan import AttackPlan, Planned
from underfire.runs.settings import StudySettings
from underfire.runs.specs import Bound, Select, SignNoise, key
from underfire.runs.store import Store
from underfire.studies import effectiveness
from underfire.studies.base import Manner, Study, Subject, per_image
from underfire.studies.tables import Row, Table, Value

TABLE, PLOT = "gap.parquet", "gap.svg"
QUADRATURE = Midpoints(64)
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
    }
)


def add(
    run: Run, classifier: Classifier, *, batch_size: int = 16, on_progress: Report = lambda planned, progress: None
) -> None:
    """Compute the losses that an attack's run lacks, and write their table and plot."""
    made, ids = effectiveness.recorded(run), run.ids
    context = Context(classifier, run.store, even_batch_size(len(ids), batch_size))
    with adding_to(run):
        computed = perform(plan(made), ids, context, run, on_progress)
        if computed or not ((run.path / TABLE).exists() and (run.path / PLOT).exists()):
            table = gap_table(made, ids, context.store)
            write_bytes(run.path / PLOT, scatter(table))
            write_table(run.path / TABLE, table)


def plan(made: AttackPlan) -> Iterator[Planned]:
    """The noise, then the losses of each kind of images."""
    for attack, interpreter, spec in _bounds(made):
        if isinstance(spec.of, SignNoise):
            yield Planned("noise", spec.of, "step", attack, None)
        yield Planned(f"both losses, {interpreter or attack}", spec, "step", attack, interpreter)


def gap_table(made: AttackPlan, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter that it was made for."""
    tables = []
    for attack, interpreter, spec in _bounds(made):
        prediction, interpretation, error = (
            store.read(key(spec), name, ids).double()
            for name in ("prediction_loss", "interpretation_loss", "completeness_error")
        )
        table = per_image(
            SCHEMA,
            ids,
            attack=attack,
            interpreter=interpreter,
            class_target=store.read(key(spec.targets), "target", ids),
            prediction_loss=prediction,
            interpretation_loss=interpretation,
            gap=interpretation - prediction,
            completeness_error=error,
        )
        tables.append(table)
    return pa.concat_tables(tables)


def _bounds(made: AttackPlan) -> Iterator[tuple[str, str | None, Bound]]:
    """(attack, interpreter that it was made for, spec) of every kind of images."""
    first = made.attacks[0].craft
    yield "benign", None, Bound(made.select, made.targets, QUADRATURE)
    yield "noise", None, Bound(SignNoise(first, made.settings.seed), made.targets, QUADRATURE)
    for each in made.attacks:
        after = None if each.interpreter is None else each.interpreter.name
        yield each.name, after, Bound(each.craft, made.targets, QUADRATURE)


@dataclass(frozen=True)
class GapSummary:
    """One kind of images; `error` is the mean size of the completeness error, `beyond` counts images whose prediction
    loss exceeds the interpretation loss by more than their completeness error."""

    attack: str
    interpreter: str | None
    prediction_loss: Estimate
    interpretation_loss: Estimate
    gap: Estimate
    error: float
    beyond: int


def gaps(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[GapSummary]:
    """One GapSummary per kind of images, in the order of the table."""
    return [_summary(rows, *kind) for kind, rows in groups(table, "attack", "interpreter")]


def _summary(rows: pa.Table, attack: str, interpreter: str | None) -> GapSummary:
    prediction, interpretation, gap = (
        mean_interval(rows[name].to_numpy()) for name in ("prediction_loss", "interpretation_loss", "gap")
    )
    error = rows["completeness_error"].to_numpy()
    beyond = int((rows["gap"].to_numpy() < -abs(error) - 1e-6).sum())
    return GapSummary(attack, interpreter, prediction, interpretation, gap, float(abs(error).mean()), beyond)


def scatter(table: pa.Table) -> bytes:
    """Both losses of every image as SVG, above the line of the bound; the benign ones, where both are 0, left out."""
    points = {
        made_for(*kind): (rows["prediction_loss"].to_numpy(), rows["interpretation_loss"].to_numpy())
        for kind, rows in groups(table, "attack", "interpreter")
        if kind != ("benign", None)
    }
    return bound(points, "prediction loss  p(x) − p(x₀)", "interpretation loss  ‖Δm‖₁")


def tables(run: Run) -> Iterator[Table]:
    """Both sides of Proposition 1, of which the paper prints no numbers."""
    columns = "prediction loss", "interpretation loss", "gap"
    rows = []
    for each in summarise(gaps(run)):
        means = each.prediction_loss, each.interpretation_loss, each.gap
        cells = tuple((Value(measure, mean),) for measure, mean in zip(columns, means, strict=True))
        rows.append(Row((made_for(each.attack, each.interpreter),), cells))
    title = "Proposition 1. Prediction loss is at most the interpretation loss by integrated gradients"
    yield Table("proposition-1", title, ("",), columns, tuple(rows))


def _further(request: StudySettings, select: Select) -> Iterator[Planned]:
    return plan(AttackPlan.of(effectiveness.attack_settings(request), select))


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    add(run, subject.classifier, batch_size=manner.batch_size, on_progress=manner.on_progress)


STUDY = Study(effectiveness.attacking(), (OUTCOMES, TABLE), tables, further=_further, add=_add)
