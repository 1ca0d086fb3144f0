"""Interpreters: maps of which parts of an image matter for a class, each with the attacker's model of it."""

from underfire.interpreters.cam import CAM, GradCAM
from underfire.interpreters.ensemble import Ensemble
from underfire.interpreters.grad import GRAD
from underfire.interpreters.input_gradients import FiniteDifferences, OneSidedDifferences, SmoothedReLU
from underfire.interpreters.integrated_gradients import IG, GaussLegendre, Midpoints
from underfire.interpreters.mask.attacker import Replay, Unrolled
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.protocol import Blind, Interpreter
from underfire.interpreters.relu_gates import LogisticGate, MonotoneGate, PaperGate
from underfire.interpreters.rts import RTS
from underfire.interpreters.smooth import Smooth

__all__ = [
    "CAM",
    "GRAD",
    "IG",
    "MASK",
    "RTS",
    "Blind",
    "Ensemble",
    "FiniteDifferences",
    "GaussLegendre",
    "GradCAM",
    "Interpreter",
    "LogisticGate",
    "Midpoints",
    "MonotoneGate",
    "OneSidedDifferences",
    "PaperGate",
    "Replay",
    "Smooth",
    "SmoothedReLU",
    "Unrolled",
]
