"""underfire: if someone attacked this classifier, would its explanation have warned us?"""

from underfire.attacks.api import Attacker, Result, adv2, adv2_stadv, pgd, stadv
from underfire.attacks.target_classes import LeastLikelyClass, NextClass, OneClass, RandomClass, target_class_named
from underfire.attacks.target_maps import Patch, RandomClassMap, target_map_named
from underfire.core.types import UnderfireError
from underfire.detection.squeezers import BitDepth, Median, NonLocalMeans
from underfire.interpreters import (
    CAM,
    GRAD,
    IG,
    MASK,
    RTS,
    Ensemble,
    FiniteDifferences,
    GaussLegendre,
    GradCAM,
    LogisticGate,
    Midpoints,
    MonotoneGate,
    OneSidedDifferences,
    PaperGate,
    Replay,
    Smooth,
    SmoothedReLU,
    Unrolled,
)
from underfire.models.classifier import Classifier
from underfire.runs.folder import Run, open_run

__all__ = [
    "CAM",
    "GRAD",
    "IG",
    "MASK",
    "RTS",
    "Attacker",
    "BitDepth",
    "Classifier",
    "Ensemble",
    "FiniteDifferences",
    "GaussLegendre",
    "GradCAM",
    "LeastLikelyClass",
    "LogisticGate",
    "Median",
    "Midpoints",
    "MonotoneGate",
    "NextClass",
    "NonLocalMeans",
    "OneClass",
    "OneSidedDifferences",
    "PaperGate",
    "Patch",
    "RandomClass",
    "RandomClassMap",
    "Replay",
    "Result",
    "Run",
    "Smooth",
    "SmoothedReLU",
    "UnderfireError",
    "Unrolled",
    "adv2",
    "adv2_stadv",
    "open_run",
    "pgd",
    "stadv",
    "target_class_named",
    "target_map_named",
]
