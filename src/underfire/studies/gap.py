"""How far apart are prediction and interpretation? Both sides of Proposition 1 for every image of an attack.

    run = execute(settings, classifier, image_set, Path("runs/x"), command="…")
    rows = summarise(gaps(run))

The folder is that of an attack (`underfire.studies.effectiveness`) with a table and a plot more; benign images, whose
losses are both 0, and random noise of the attack's size stand beside the attacks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from underfire.attacks.names import made_for
from underfire.core.io import read_table, rows_where, write_atomically, write_table
from underfire.core.plots import bound
from underfire.data.image_set import ImageSet
from underfire.interpreters import Midpoints
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.models.classifier import Classifier
from underfire.runs.compute import Context
from underfire.runs.execute import Planned, Report, even_batch_size, perform
from underfire.runs.folder import Run
from underfire.runs.plan import aim_of, attacks
from underfire.runs.settings import AttackSettings
from underfire.runs.specs import Bound, Select, SignNoise, key
from underfire.runs.store import Store
from underfire.studies import effectiveness

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


def execute(
    settings: AttackSettings,
    classifier: Classifier,
    image_set: ImageSet,
    out: Path,
    *,
    command: str,
    batch_size: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Run the attack if `out` does not hold it yet, then compute what is missing of the losses."""
    run = effectiveness.execute(
        settings, classifier, image_set, out, command=command, batch_size=batch_size, on_progress=on_progress
    )
    add(run, classifier, batch_size=batch_size, on_progress=on_progress)
    return run


def add(
    run: Run, classifier: Classifier, *, batch_size: int = 16, on_progress: Report = lambda planned, progress: None
) -> None:
    """Compute the losses that an attack's run lacks, and write their table and plot."""
    settings, select = effectiveness.recorded(run)
    ids = run.store.done(key(select))
    context = Context(classifier, run.store, even_batch_size(len(ids), batch_size))
    computed = [perform(planned, ids, context, run, on_progress) for planned in plan(settings, select)]
    if any(computed) or not ((run.path / TABLE).exists() and (run.path / PLOT).exists()):
        table = gap_table(settings, select, ids, context.store)
        picture = scatter(table)
        write_table(run.path / TABLE, table)
        write_atomically(run.path / PLOT, lambda temporary: temporary.write_bytes(picture))


def plan(settings: AttackSettings, select: Select) -> Iterator[Planned]:
    """The noise, then the losses of each kind of images."""
    for attack, interpreter, spec in _bounds(settings, select):
        if isinstance(spec.of, SignNoise):
            yield Planned("noise", spec.of, "step", attack, None)
        yield Planned(f"both losses, {interpreter or attack}", spec, "step", attack, interpreter)


def gap_table(settings: AttackSettings, select: Select, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter that it was made for."""
    tables = []
    for attack, interpreter, spec in _bounds(settings, select):
        prediction, interpretation, error = (
            store.read(key(spec), name, ids).double()
            for name in ("prediction_loss", "interpretation_loss", "completeness_error")
        )
        columns = {
            "id": ids,
            "attack": [attack] * len(ids),
            "interpreter": [interpreter] * len(ids),
            "class_target": store.read(key(spec.aim), "target", ids).tolist(),
            "prediction_loss": prediction.tolist(),
            "interpretation_loss": interpretation.tolist(),
            "gap": (interpretation - prediction).tolist(),
            "completeness_error": error.tolist(),
        }
        tables.append(pa.table(columns, SCHEMA))
    return pa.concat_tables(tables)


def _bounds(settings: AttackSettings, select: Select) -> Iterator[tuple[str, str | None, Bound]]:
    """(attack, interpreter that it was made for, spec) of every kind of images."""
    made = list(attacks(settings, select))
    first, aim = made[0].craft, aim_of(settings, select)
    yield "benign", None, Bound(select, aim, QUADRATURE)
    yield "noise", None, Bound(SignNoise(first, settings.seed), aim, QUADRATURE)
    for each in made:
        after = None if each.interpreter is None else each.interpreter.name
        yield each.name, after, Bound(each.craft, aim, QUADRATURE)


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
    return [_summary(rows, *pair) for pair, rows in _kinds(table)]


def _kinds(table: pa.Table) -> Iterator[tuple[tuple[str, str | None], pa.Table]]:
    pairs = dict.fromkeys(zip(*(table[name].to_pylist() for name in ("attack", "interpreter")), strict=True))
    for attack, interpreter in pairs:
        yield (attack, interpreter), rows_where(table, attack=attack, interpreter=interpreter)


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
        for kind, rows in _kinds(table)
        if kind != ("benign", None)
    }
    return bound(points, "prediction loss  p(x) − p(x₀)", "interpretation loss  ‖Δm‖₁")
