"""What the report reads of a run, and the names it gives to things."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

ATTACKS = {"pgd": "PGD", "adv2": "ADV²"}
INTERPRETERS = {"grad": "GRAD", "cam": "CAM", "grad-cam": "Grad-CAM", "mask": "MASK", "rts": "RTS"}

Array = npt.NDArray[np.float32]
Named = tuple[tuple[str, ...], Array]  # ids, and one row per id


@runtime_checkable
class RunView(Protocol):
    """A run folder as the report sees it (`underfire.store.Run`); any key of `info` may be missing."""

    @property
    def info(self) -> Mapping[str, Any]: ...

    def outcomes(self) -> pa.Table: ...

    def images(self, attack: str, interpreter: str | None = None) -> Named: ...

    def maps(self, attack: str, interpreter: str) -> Named: ...


def interpreter_name(interpreter: str) -> str:
    """The name the field writes, or the given one."""
    return INTERPRETERS.get(interpreter, interpreter)


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
