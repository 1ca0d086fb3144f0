"""Interpreters by name, as the command line and run.json write them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from underfire.core.types import UnderfireError
from underfire.interpreters.cam import CAM, GradCAM
from underfire.interpreters.grad import GRAD
from underfire.interpreters.integrated_gradients import IG
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.protocol import Interpreter
from underfire.interpreters.rts import RTS
from underfire.interpreters.smooth import Smooth


def _plain(build: Callable[[], Interpreter]) -> Callable[[str | None], Interpreter]:
    """An interpreter that is named without an argument."""

    def named(argument: str | None) -> Interpreter:
        if argument is not None:
            raise UnderfireError(f"Interpreter '{build().name}' takes no argument; leave out ':{argument}'.")
        return build()

    return named


def _smooth(argument: str | None) -> Interpreter:
    if argument is None:
        raise UnderfireError("Interpreter 'smooth' smooths another one; name it, as in smooth:cam or smooth:rts:FILE.")
    return Smooth(interpreter_named(argument))


INTERPRETERS: Mapping[str, Callable[[str | None], Interpreter]] = MappingProxyType(
    {
        "cam": _plain(CAM),
        "grad": _plain(GRAD),
        "grad-cam": _plain(GradCAM),
        "ig": _plain(IG),
        "mask": _plain(MASK),
        "rts": RTS.named,
        "smooth": _smooth,
    }
)


def interpreter_named(text: str) -> Interpreter:
    """NAME or NAME:ARGUMENT, as on the command line; UnderfireError says what is wrong with either."""
    name, colon, argument = text.partition(":")
    if name not in INTERPRETERS:
        raise UnderfireError(f"There is no interpreter '{name}'; there are {', '.join(INTERPRETERS)}.")
    return INTERPRETERS[name](argument if colon else None)
