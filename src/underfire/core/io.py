"""Files that are whole or not there: JSON, tables and bytes, written under a temporary name and renamed.

Content and name are on the disk before a write returns, so that a power cut leaves whole files, too.
"""

import filecmp
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from safetensors import SafetensorError
from torch import Tensor

from underfire.core.errors import UnderfireError


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file in one move."""
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def write_csv(path: Path, table: pa.Table) -> None:
    """Write a CSV file in one move."""
    write_atomically(path, lambda temporary: pyarrow.csv.write_csv(table, temporary))


def write_row_groups(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables of these columns as one parquet file in one move, each as a row group as soon as it is there."""

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in tables:
                writer.write_table(table)

    write_atomically(path, write)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """A table that `write_table` wrote; UnderfireError if the file is missing, damaged or holds other columns."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise UnderfireError(f"{path} is missing or damaged; delete it and run the command again.") from problem
    if not table.schema.equals(schema):
        raise UnderfireError(f"{path} has columns other than those this version writes; delete it and run again.")
    return table


def rows_where(table: pa.Table, **wanted: str | int | None) -> pa.Table:
    """The rows whose columns hold these values; None stands for null."""
    for name, value in wanted.items():
        table = table.filter(pc.is_null(table[name]) if value is None else pc.equal(table[name], value))
    return table


def nullable(columns: Mapping[str, Tensor]) -> dict[str, pa.Array]:
    """Numbers as columns in which those that are NaN are null, as programs that compare with them expect."""
    return {name: pa.array(values.tolist(), pa.float64(), from_pandas=True) for name, values in columns.items()}


def groups(table: pa.Table, *names: str) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """What these columns hold together, and the rows that hold it, in the order in which they first appear."""
    for values in dict.fromkeys(zip(*(table[name].to_pylist() for name in names), strict=True)):
        yield values, rows_where(table, **dict(zip(names, values, strict=True)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UnderfireError if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UnderfireError(f"{path} cannot be read: {problem}") from problem
    if not isinstance(content, dict):
        raise UnderfireError(f"{path} contains no JSON object.")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one move."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_atomically(path, lambda temporary: temporary.write_text(text + "\n", encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one move."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, unless `path` holds just this already.

    UnderfireError if the folder is not writable.
    """
    try:
        _make(path.parent)
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as problem:
        raise UnderfireError(f"{path.parent} cannot be written to: {problem.strerror}.") from problem
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        if not (path.is_file() and filecmp.cmp(temporary, path, shallow=False)):
            temporary.chmod(0o644)
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
    except (OSError, SafetensorError) as problem:
        raise UnderfireError(f"{path} cannot be written: {problem}.") from problem
    finally:
        temporary.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    """The folder and those above it, their names on the disk."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        _flush(each.parent)


def _flush(path: Path) -> None:
    """Wait until the disk holds a file's content, or a folder's list of names (which Windows keeps by itself)."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
