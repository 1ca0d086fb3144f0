"""Tables beside the paper's: runs held in memory that have its interpreters, and its numbers as a table prints them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tiny_report import INFO, FakeRun, HeldRun
from underfire.runs.folder import Run
from underfire.studies.tables import Table

ALL = ("grad", "cam", "mask", "rts")
IDS = tuple(f"{number}.png" for number in range(4))
RESNET = {**INFO, "model": {**INFO["model"], "name": "torchvision:resnet50", "fingerprint": "ours"}}
DENSENET = {**INFO, "model": {**INFO["model"], "name": "torchvision:densenet169"}}


def held_run(
    *attacks: str, names: tuple[str, ...] = ALL, info: dict[str, Any] = RESNET, path: Path = Path("nowhere")
) -> Run:
    return HeldRun(path, FakeRun(IDS, interpreters=names, attacks=attacks, info=info))


def by_name(tables: Any) -> dict[str, Table]:
    return {table.name: table for table in tables}


def names_of(table: Table) -> list[tuple[str, ...]]:
    return [row.names for row in table.rows]


def printed(table: Table) -> list[list[float | None]]:
    """The paper's numbers by row, of all columns in one line."""
    return [[value.paper for cell in row.cells for value in cell] for row in table.rows]


def numbers(line: str) -> list[float | None]:
    """Numbers of a line of SPEC 9, percentages as shares; a dash where the paper has none."""
    words = line.replace("-", "nan").split()
    found = [round(float(word.rstrip("%")) / (100 if "%" in word else 1), 6) for word in words]
    return [None if np.isnan(number) else number for number in found]


def numbers_of(paper: str) -> Iterator[tuple[str, int]]:
    """What a row of the catalogue makes of the paper's, as in "Table 13; Fig. 7, 8 and 18"."""
    for part in paper.split(";"):
        kind = "table" if part.strip().startswith("Table") else "figure" if part.strip().startswith("Fig") else None
        yield from ((kind, int(number)) for number in re.findall(r"\d+", part) if kind is not None)
