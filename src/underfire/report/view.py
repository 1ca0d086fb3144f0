"""What the report reads of a run."""

from collections.abc import Collection, Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

TOGETHER = 16  # images of which pictures are read at a time

Array = npt.NDArray[np.float32]
Named = tuple[tuple[str, ...], Array]  # ids, and one row per id


@runtime_checkable
class RunView(Protocol):
    """A run folder as the report sees it (`underfire.runs.folder.Run`); any key of `info` may be missing."""

    @property
    def path(self) -> Path: ...

    @property
    def info(self) -> Mapping[str, Any]: ...

    def outcomes(self) -> pa.Table: ...

    def images(self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None) -> Named: ...

    def maps(self, attack: str, interpreter: str, only: Collection[str] | None = None) -> Named: ...

    def thetas(self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None) -> Named: ...


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a class, or its number where the run has no names."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested record as dotted names and texts, in order, without what was left open (None or nothing)."""
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif text := as_text(value):
            flat[f"{prefix}{name}"] = text
    return flat


def as_text(value: Any) -> str:
    """A value as a reader writes it: 16/255 for what it is in floating point, lists without brackets, no None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(filter(None, map(as_text, value)))
    return str(value)


def _number(value: float) -> str:
    short, levels = f"{value:g}", 255 * value
    if float(short) != value and 0 < levels < 255 and isclose(levels, round(levels, 2), abs_tol=1e-9):
        return f"{round(levels, 2):g}/255"
    return short
