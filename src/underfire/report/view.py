"""What the report reads of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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

    def images(self, attack: str, interpreter: str | None = None) -> Named: ...

    def maps(self, attack: str, interpreter: str) -> Named: ...

    def thetas(self, attack: str, interpreter: str | None = None) -> Named: ...


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a class, or its number where the run has no names."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested record as dotted names and texts, in order."""
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
