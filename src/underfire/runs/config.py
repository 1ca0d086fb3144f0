"""What a run used, as a file of options that --config takes: runs/NAME/config.toml repeats the run elsewhere.

    write_config(Path("runs/x/config.toml"), settings, batch=16)
    options = found_options(read_config(path))      # its files named so that they are found from here

A line for each option that decides the results, as it would be typed, defaults among them. Where it is computed and by
how many processes is left out; how many images at a time is not, since last bits depend on it. Relative paths start in
`folder`, in which the command ran, where they are not found from the working folder.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from underfire.core.errors import UnderfireError
from underfire.runs.paths import found
from underfire.runs.settings import Settings, option_name, options_of

CONFIG = "config.toml"
FOLDER = "folder"


def write_config(path: Path, *settings: Settings, **further: str | int | None) -> None:
    """Write the options of these settings, and further ones, in one move."""
    from underfire.core.io import write_bytes

    options = {FOLDER: str(Path.cwd()), **dict(_given(settings)), **further}
    lines = [f"{name} = {_toml(value)}\n" for name, value in options.items() if value not in (None, (), [])]
    write_bytes(path, "".join(lines).encode())


def read_config(path: Path) -> Mapping[str, Any]:
    """What a file says; UnderfireError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UnderfireError(f"{path} cannot be read as TOML: {reason}.") from None


def found_options(fields: Mapping[str, Any], folder: object) -> dict[str, Any]:
    """Options by the names of their fields, with files named from `folder` where they are not found from here.

    UnderfireError says so of a folder that is no text.
    """
    if not isinstance(folder, str):
        raise UnderfireError(f"'{FOLDER}' is where relative paths start; give it a text.")
    return found(fields, folder)


def _given(settings: tuple[Settings, ...]) -> Iterator[tuple[str, Any]]:
    for each in settings:
        for name, field in options_of(type(each)).items():
            yield option_name(name, field), getattr(each, name)


def _toml(value: Any) -> str:
    """A text, number or list of them; a JSON text is a TOML text as well, but for the character DEL."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
