"""underfire: if someone attacked this classifier, would its explanation have warned us?"""

from underfire.api import Attacker, Result, adv2, pgd
from underfire.classifiers import Classifier
from underfire.interpreters import (
    CAM,
    GRAD,
    MASK,
    RTS,
    FiniteDifferences,
    GradCAM,
    LogisticGate,
    MonotoneGate,
    OneSidedDifferences,
    PaperGate,
    Replay,
    SmoothedReLU,
    Unrolled,
)
from underfire.store import Run, open_run
from underfire.types import UnderfireError

__all__ = [
    "CAM",
    "GRAD",
    "MASK",
    "RTS",
    "Attacker",
    "Classifier",
    "FiniteDifferences",
    "GradCAM",
    "LogisticGate",
    "MonotoneGate",
    "OneSidedDifferences",
    "PaperGate",
    "Replay",
    "Result",
    "Run",
    "SmoothedReLU",
    "UnderfireError",
    "Unrolled",
    "adv2",
    "open_run",
    "pgd",
]
