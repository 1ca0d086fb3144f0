"""Who else is deceived? The heat-map of transferred maps, one for each classifier that looked."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import made_for
from underfire.metrics.maps import BINARISATIONS
from underfire.report.figures import Plot, embedded
from underfire.report.sections.part import complete_table
from underfire.studies.transfers import SCHEMA, TransferCell, heat_map, summarise


@dataclass(frozen=True)
class Transfer:
    """What one classifier's interpreters make of the images."""

    model: str
    sentence: str
    plot: Plot


def compose(path: Path) -> list[Transfer]:
    """One Transfer per classifier; UnderfireError if the table is damaged."""
    table = complete_table(path, SCHEMA, optional=("source", "own_l1", *BINARISATIONS))
    return list(_transfers(table))


def _transfers(table: pa.Table) -> Iterator[Transfer]:
    for fingerprint in dict.fromkeys(table["model_fingerprint"].to_pylist()):
        rows = table.filter(pc.equal(table["model_fingerprint"], fingerprint))
        yield Transfer(rows["model"][0].as_py(), _sentence(summarise(rows)), embedded(heat_map(rows)))


def _sentence(cells: list[TransferCell]) -> str:
    """For how many sources the own distance is smaller than every transferred one."""
    differences: dict[str, list[float]] = {}
    for cell in cells:
        if cell.difference is not None:
            differences.setdefault(made_for(cell.attack, cell.source), []).append(cell.difference.value)
    if not differences:
        return "The maps of every source are shown by its own interpreter alone, so that nothing is compared."
    exceptions = [source for source, values in differences.items() if not all(value < 0 for value in values)]
    count = len(differences) - len(exceptions)
    told = f"For {count} of {len(differences)} sources the map of the interpreter that was attacked is nearer to the "
    rest = f"; not so for {', '.join(exceptions)}." if exceptions else "."
    return f"{told}benign one than that of every other{rest}"
