"""Files that the settings of a run name, wherever it is opened from and however they are spelled."""

import os
import re
from collections.abc import Mapping
from typing import Any

from underfire.interpreters.registry import foreign

FILES = (
    *("weights", "images", "attacked", "labels", "masks", "target_class", "target_map", "region", "encoder_weights"),
    "init",
)


def spelled_alike(held: Any, given: Any, folder: str) -> bool:
    """Whether two values are the same or name the same file; `held` was written in that working folder.

    Names that bring a file along, such as rts:FILE or FILE:BUILDER, are compared part by part.
    """
    if isinstance(held, list) and isinstance(given, list):
        return len(held) == len(given) and all(map(spelled_alike, held, given, [folder] * len(held)))
    if not (isinstance(held, str) and isinstance(given, str)):
        return bool(held == given)
    parts = re.split("[:@]", held), re.split("[:@]", given)
    return len(parts[0]) == len(parts[1]) and all(
        a == b or os.path.realpath(os.path.join(folder, a)) == os.path.realpath(b) for a, b in zip(*parts, strict=True)
    )


def found(spec: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A spec whose files are named from `folder`, in which it was written, where they are not found from here."""
    return {name: _found(name, value, folder) for name, value in spec.items()}


def _found(name: str, value: Any, folder: str) -> Any:
    if name in FILES and isinstance(value, str):
        return _from(folder, value)
    if name in ("model", "encoder") and isinstance(value, str):
        return _model_found(value, folder)
    if name in ("interpreters", "defended") and isinstance(value, list):
        return [_argument_found(each, folder) if isinstance(each, str) else each for each in value]
    return value


def _argument_found(named: str, folder: str) -> str:
    """An interpreter with the files that it is named with, as in smooth:rts:FILE or rts:FILE@FILE:BUILDER."""
    if foreign(named):
        return _model_found(named, folder)
    shown, at, encoder = named.partition("@")
    name, colon, file = shown.rpartition(":")
    return f"{name}{colon}{_from(folder, file)}{at}{_model_found(encoder, folder)}" if colon else named


def _model_found(named: str, folder: str) -> str:
    """A model with its folder, or with the file of its builder, if it has one."""
    library, _, of_it = named.partition(":")
    if library in ("timm", "hf"):
        return f"{library}:{_from(folder, of_it)}"
    file, colon, builder = named.rpartition(":")
    return f"{_from(folder, file)}:{builder}" if colon else named


def _from(folder: str, file: str) -> str:
    elsewhere = os.path.join(folder, file)
    return elsewhere if folder and not os.path.exists(file) and os.path.exists(elsewhere) else file
