"""Interpreters by name, as the command line and run.json write them."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING

from underfire import interpreters
from underfire.core.errors import UnderfireError

if TYPE_CHECKING:
    from underfire.interpreters import Interpreter


def _plain(kind: str) -> "Callable[[str | None], Interpreter]":
    """An interpreter that is named without an argument, by its class, which is imported when it is needed."""

    def named(argument: str | None) -> "Interpreter":
        interpreter: Interpreter = getattr(interpreters, kind)()
        if argument is not None:
            raise UnderfireError(f"Interpreter '{interpreter.name}' takes no argument; leave out ':{argument}'.")
        return interpreter

    return named


def _rts(argument: str | None) -> "Interpreter":
    return interpreters.RTS.named(argument)


def _smooth(argument: str | None) -> "Interpreter":
    if argument is None:
        raise UnderfireError("Interpreter 'smooth' smooths another one; name it, as in smooth:cam or smooth:rts:FILE.")
    return interpreters.Smooth(interpreter_named(argument))


INTERPRETERS: "Mapping[str, Callable[[str | None], Interpreter]]" = MappingProxyType(
    {
        "cam": _plain("CAM"),
        "grad": _plain("GRAD"),
        "grad-cam": _plain("GradCAM"),
        "grad-rollout": _plain("GradRollout"),
        "ig": _plain("IG"),
        "mask": _plain("MASK"),
        "rollout": _plain("Rollout"),
        "rts": _rts,
        "smooth": _smooth,
    }
)


LIBRARIES = ("captum", "gradcam", "zennit")  # whose explanations are named LIBRARY:METHOD


def foreign(text: str) -> tuple[str, str] | None:
    """Of LIBRARY:METHOD and file.py:function both parts; None of our own interpreters."""
    library, _, method = text.rpartition(":")
    ours = _bare(text.partition(":")[0]) in map(_bare, INTERPRETERS)
    return (library, method) if library in LIBRARIES or (library.endswith(".py") and not ours) else None


def canonical(text: str) -> str:
    """NAME or NAME:ARGUMENT with the name as we write it: CAM, Grad-CAM and gradcam are ours, too.

    UnderfireError, with what may have been meant, if there is no such interpreter.
    """
    if foreign(text):
        return text
    given, colon, argument = text.partition(":")
    names = {_bare(name): name for name in INTERPRETERS}
    if _bare(given) not in names:
        close = get_close_matches(_bare(given), names, n=1)
        meant = f" (did you mean {names[close[0]]}?)" if close else ""
        raise UnderfireError(f"There is no interpreter '{given}'{meant}; there are {', '.join(INTERPRETERS)}.")
    name = names[_bare(given)]
    return f"{name}:{canonical(argument) if name == 'smooth' else argument}" if colon else name


def interpreter_named(text: str) -> "Interpreter":
    """NAME or NAME:ARGUMENT, as on the command line; UnderfireError says what is wrong with either."""
    if named := foreign(text):
        from underfire.interpreters.adapters.adapter import adapter_named

        return adapter_named(*named)
    name, colon, argument = canonical(text).partition(":")
    return INTERPRETERS[name](argument if colon else None)


def _bare(name: str) -> str:
    """A name without what writers differ in: case, spaces, hyphens, underscores."""
    return re.sub(r"[\s_-]", "", name).lower()
