"""The parts of the report that are there only if a study has left its table in the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow as pa

from underfire.core.errors import UnderfireError
from underfire.core.io import read_table

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):
    """What a part shows, or in its place the sentence that says why it shows nothing."""

    content: T | None
    problem: str = ""


def part(path: Path, compose: Callable[[Path], T]) -> Part[T] | None:
    """The part that this file is for; None if the file is not there."""
    if not path.is_file():
        return None
    try:
        return Part(compose(path))
    except UnderfireError as problem:
        return Part(None, str(problem))


def complete_table(path: Path, schema: pa.Schema, optional: Sequence[str] = ()) -> pa.Table:
    """A table with rows, in which only optional columns lack values; UnderfireError otherwise."""
    table = read_table(path, schema)
    if not table.num_rows:
        raise UnderfireError(f"{path} contains no rows yet; finish the command that writes it.")
    for name in schema.names:
        if table[name].null_count and name not in optional:
            raise UnderfireError(f"{path} lacks values of {name}; delete it and run the command again.")
    return table
