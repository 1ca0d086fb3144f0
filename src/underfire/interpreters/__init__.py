"""Interpreters: maps of which parts of an image matter for a class, each with the attacker's model of it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from underfire.interpreters.cam import CAM, GradCAM
from underfire.interpreters.gates import LogisticGate, MonotoneGate, PaperGate
from underfire.interpreters.grad import GRAD
from underfire.interpreters.input_gradients import FiniteDifferences, OneSidedDifferences, SmoothedReLU
from underfire.interpreters.protocol import Blind, Interpreter

INTERPRETERS: Mapping[str, Callable[[], Interpreter]] = MappingProxyType(
    {"cam": CAM, "grad": GRAD, "grad-cam": GradCAM}
)

__all__ = [
    "CAM",
    "GRAD",
    "INTERPRETERS",
    "Blind",
    "FiniteDifferences",
    "GradCAM",
    "Interpreter",
    "LogisticGate",
    "MonotoneGate",
    "OneSidedDifferences",
    "PaperGate",
    "SmoothedReLU",
]
