"""What `underfire transfer` leaves in a run folder: the table of all maps, its averages and their heat-map.

cells = summarise(transfers(open_run("runs/x")))
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from underfire.attacks.names import interpreter_name, made_for
from underfire.core.io import groups, read_table
from underfire.core.plots import matrix
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.runs.folder import Run

TABLE, AVERAGES = "transfer.parquet", "transfer-averages.csv"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "attack": pa.string(),
        "source": pa.string(),  # the interpreter that the image was made for, if any
        "interpreter": pa.string(),  # the one that shows the map
        "model": pa.string(),
        "model_fingerprint": pa.string(),
        "class_true": pa.int64(),
        "class_explained": pa.int64(),
        "class_predicted": pa.int64(),  # by this classifier
        "map_l1": pa.float64(),  # these against the same interpreter's and classifier's benign map
        "map_l2": pa.float64(),
        "iou_mean": pa.float64(),
        "iou_half": pa.float64(),
        "iou_top15": pa.float64(),
        "own": pa.bool_(),  # shown by the interpreter that it was made for, on the classifier that it was made for
        "own_l1": pa.float64(),  # map_l1 of that row of the same image
        "map_constant": pa.bool_(),
        "benign_constant": pa.bool_(),
    }
)
AVERAGES_COLUMNS = pa.schema(
    {
        **{name: pa.string() for name in ("attack", "source", "interpreter", "model", "measure")},
        **{name: pa.float64() for name in ("value", "low", "high")},
        "n": pa.int64(),
    }
)


def transfers(run: Run) -> pa.Table:
    """The run's table, of all calls."""
    return read_table(run.path / TABLE, SCHEMA)


@dataclass(frozen=True)
class TransferCell:
    """One source seen by one interpreter on one classifier.

    `difference` is own - transferred, paired image by image, with its bootstrap interval; None for the null rows and
    for a source's own row. `predicted` is how often this classifier reports the explained class.
    """

    attack: str
    source: str | None
    interpreter: str
    model: str
    map_l1: Estimate
    iou_mean: Estimate
    predicted: Estimate
    difference: Estimate | None
    own: bool

    @property
    def made_for(self) -> str:
        """The source in words."""
        return self.attack if self.source is None else f"{self.attack} {self.source}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row for each of its numbers, as AVERAGES_COLUMNS name them."""
        named = {name: getattr(self, name) for name in ("attack", "source", "interpreter", "model")}
        for measure in ("map_l1", "iou_mean", "predicted", "difference"):
            estimate: Estimate | None = getattr(self, measure)
            if estimate is not None and estimate.n:
                yield {**named, "measure": measure, **estimate.row()}


def summarise(table: pa.Table) -> list[TransferCell]:
    """One TransferCell per (source, shown interpreter, classifier), in the order of the table."""
    return [_cell(rows) for _, rows in groups(table, "attack", "source", "interpreter", "model_fingerprint")]


def _cell(rows: pa.Table) -> TransferCell:
    first = {name: rows[name][0].as_py() for name in ("attack", "source", "interpreter", "model", "own")}
    distance, overlap = rows["map_l1"].to_numpy(), rows["iou_mean"].to_numpy()
    predicted = rows["class_predicted"].to_numpy() == rows["class_explained"].to_numpy()
    paired = first["source"] is not None and not first["own"]
    return TransferCell(
        **first,
        map_l1=mean_interval(distance),
        iou_mean=mean_interval(overlap),
        predicted=mean_interval(predicted),
        difference=mean_interval(rows["own_l1"].to_numpy() - distance) if paired else None,
    )


def averages(table: pa.Table) -> pa.Table:
    """Every number of all cells, one a row."""
    return pa.Table.from_pylist([row for cell in summarise(table) for row in cell.rows()], AVERAGES_COLUMNS)


def heat_map(table: pa.Table) -> bytes:
    """Mean distances on one classifier as SVG: sources by shown interpreters, a source's own one framed."""
    cells = summarise(table)
    rows = list(dict.fromkeys((cell.attack, cell.source) for cell in cells))
    columns = list(dict.fromkeys(cell.interpreter for cell in cells))
    values = np.full((len(rows), len(columns)), np.nan)
    own = np.zeros(values.shape, dtype=bool)
    for cell in cells:
        place = rows.index((cell.attack, cell.source)), columns.index(cell.interpreter)
        values[place], own[place] = cell.map_l1.value, cell.own
    titles = [made_for(*row) for row in rows], [interpreter_name(column) for column in columns]
    return matrix(values, *titles, own, "ΔL1 to the benign map")
