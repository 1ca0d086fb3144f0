"""What the study of black boxes says: how many images each attacker betrays, by the queries that he may ask.

rows = summarise(attempts(open_run("runs/x/blackbox")))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from underfire.attacks.names import interpreter_name
from underfire.core.io import groups, read_table
from underfire.metrics.intervals import Estimate, mean_interval, share
from underfire.runs.folder import Run
from underfire.studies.figures import Drawing, Figure, Level, growing
from underfire.studies.tables import Cell, Row, Table, Value

TABLE = "blackbox.parquet"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "interpreter": pa.string(),
        "attacker": pa.string(),
        "queries": pa.int64(),  # that the attacker may ask; null where he asks nothing
        "class_true": pa.int64(),
        "class_target": pa.int64(),
        "class_predicted": pa.int64(),
        "map_l1": pa.float64(),  # to the benign map
        "iou_mean": pa.float64(),  # likewise; null where neither map marks anything
        "natural_l1": pa.float64(),  # that harmless changes of the image stay within; null where not measured
        "betrayed_overlap": pa.bool_(),  # target class reported, and plausible by each definition
        "betrayed_natural": pa.bool_(),  # null where natural variation was not measured
    }
)


@dataclass(frozen=True)
class AttackerSummary:
    """One attacker before one interpreter: shares of images, and the mean distance of those that were fooled."""

    interpreter: str
    attacker: str
    queries: int | None
    success: Estimate
    betrayed: Estimate  # by overlap
    within_natural: Estimate | None
    map_l1: Estimate

    @property
    def name(self) -> str:
        return self.attacker if self.queries is None else f"{self.queries:,} {self.attacker}"


def attempts(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[AttackerSummary]:
    """One AttackerSummary per interpreter, attacker and number of queries, in the order of the table."""
    return [_summary(rows, *names) for names, rows in groups(table, "interpreter", "attacker", "queries")]


def _summary(rows: pa.Table, interpreter: str, attacker: str, queries: int | None) -> AttackerSummary:
    fooled = rows["class_predicted"].to_numpy() == rows["class_target"].to_numpy()
    unknown = rows["betrayed_natural"].null_count == rows.num_rows
    return AttackerSummary(
        interpreter,
        attacker,
        queries,
        success=share(fooled),
        betrayed=share(rows["betrayed_overlap"].to_numpy()),
        within_natural=None if unknown else share(rows["betrayed_natural"].to_numpy()),
        map_l1=mean_interval(rows["map_l1"].to_numpy()[fooled]),
    )


def tables(run: Run) -> Iterator[Table]:
    """A row for each attacker, a column for each interpreter."""
    found = {(each.name, each.interpreter): each for each in summarise(attempts(run))}
    attackers, interpreters = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    rows = [Row((name,), tuple(_cell(found.get((name, shown))) for shown in interpreters)) for name in attackers]
    yield Table(
        "blackbox",
        "Images betrayed by what an attacker knows (within natural variation; fooled; ΔL1 of those)",
        ("attacker",),
        tuple(map(interpreter_name, interpreters)),
        tuple(rows),
        "Betrayed: the target class is reported, and the map's IoU with the benign one is above 0.5; in brackets the "
        "share whose map moved no further than harmless changes move it, that of images whose target class is "
        "reported, and how far the maps of these moved. A query is a forward pass or an explanation of one image.",
    )


def _cell(each: AttackerSummary | None) -> Cell:
    if each is None:
        return (Value("betrayed", None, percent=True),)
    return (
        Value("betrayed", each.betrayed, percent=True),
        *(() if each.within_natural is None else (Value("within natural", each.within_natural, percent=True),)),
        Value("fooled", each.success, percent=True),
        Value("ΔL1", each.map_l1),
    )


def betrayed_by_queries(found: Sequence[AttackerSummary]) -> Drawing:
    """A panel for each interpreter: attackers who ask by their budgets, the others as levels."""
    interpreters = list(dict.fromkeys(each.interpreter for each in found))
    levels = {
        interpreter_name(shown): [
            Level(each.attacker, each.queries, each.betrayed) for each in found if each.interpreter == shown
        ]
        for shown in interpreters
    }
    return growing(levels, "queries", "share betrayed")


def figures(run: Run) -> Iterator[Figure]:
    found = summarise(attempts(run))
    yield Figure("blackbox", "Share of images betrayed against queries", lambda: betrayed_by_queries(found))
