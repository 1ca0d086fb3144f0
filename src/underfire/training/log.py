"""What the checks of a training have found: rows of numbers in its memory, and as CSV beside its result."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from underfire.core.io import write_atomically


class Curves:
    """At most `checks` rows of named numbers, of which one is the step; NaN where nothing is known.

    `rows` is what a checkpoint has to keep.
    """

    def __init__(self, names: Sequence[str], checks: int, path: Path) -> None:
        self.names, self.path = tuple(names), path
        self.rows = torch.full((checks, len(self.names)), math.nan, dtype=torch.float64)

    def __len__(self) -> int:
        return int((~self.rows[:, self.names.index("step")].isnan()).sum())

    def note(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add a row, and write the table."""
        count, row = len(self), {**values, "step": step}
        known = [row.get(name) for name in self.names]
        self.rows[count] = torch.tensor([math.nan if value is None else value for value in known])
        text = _table(self.names, self.rows[: count + 1])
        write_atomically(self.path, lambda temporary: temporary.write_text(text))


def _table(names: Sequence[str], rows: Tensor) -> str:
    """As CSV; empty where nothing is known."""
    lines = (",".join("" if math.isnan(value) else f"{value:.6g}" for value in row) for row in rows.tolist())
    return "\n".join((",".join(names), *lines, ""))
