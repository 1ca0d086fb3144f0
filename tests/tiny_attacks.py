"""Every interpreter, and short attacks that use every moving part of the loop.

goal = a_goal(model, CAM(), images(3))
outcome = engine.run(attack(CAM()), model, goal, batch_size=3)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_maskers import tiny_rts
from underfire.attacks.attack import Attack, SmoothedCrossEntropy
from underfire.attacks.perturbations import Flow, L2Ball, Pixels
from underfire.attacks.queries import Queried
from underfire.attacks.result import Result
from underfire.attacks.square import Square
from underfire.attacks.steps import AdamStep, MomentumSignStep, SignStep, TwoPhaseStep, UnitStep
from underfire.attacks.target_classes import random_class
from underfire.core.rng import image_keys
from underfire.core.schedules import Constant, Cosine, Linear
from underfire.core.types import Goal, Images, Labels, Outcome, Reading, Row
from underfire.interpreters import (
    CAM,
    GRAD,
    IG,
    MASK,
    Blind,
    Ensemble,
    FiniteDifferences,
    GaussLegendre,
    GradCAM,
    GradRollout,
    Interpreter,
    OneSidedDifferences,
    Replay,
    Rollout,
    Smooth,
    SmoothedReLU,
    Unrolled,
)
from underfire.interpreters.mask.solver import Solver
from underfire.models.classifier import Classifier

FIXED: Mapping[str, Interpreter] = {
    "blind": Blind(),
    "grad-differences": GRAD(FiniteDifferences()),
    "grad-one-sided": GRAD(OneSidedDifferences()),
    "grad-smoothed": GRAD(SmoothedReLU()),
    "cam": CAM(),
    "grad-cam": GradCAM(),
    "ig": IG(GaussLegendre(3), internal_batch_size=2),
    "mask": MASK(Solver(steps=2), Replay(follow=1, horizon=2)),
    "smooth-cam": Smooth(CAM(), copies=3),
    "smooth-mask": Smooth(MASK(Solver(steps=2), Replay(follow=1, horizon=2)), copies=1),
    "mask-unrolled": MASK(Solver(steps=2), Unrolled(follow=1, lookahead=2)),
    "ensemble": Ensemble((CAM(), GRAD(FiniteDifferences())), (2.0, 1.0)),
}
WITHOUT_GRADIENT: Mapping[str, Interpreter] = {"queried-cam": Queried(CAM())}  # laws on gradients are not theirs
OF_TRANSFORMERS: Mapping[str, Interpreter] = {"rollout": Rollout(), "grad-rollout": GradRollout()}
TRAINED: Mapping[str, Callable[[Classifier], Interpreter]] = {"rts": tiny_rts}
INTERPRETERS = (*FIXED, *TRAINED)
FEW = tuple(  # one of each kind; the others in the extended run
    pytest.param(name, marks=() if name in ("grad-differences", "cam", "mask", "rts") else pytest.mark.extended)
    for name in INTERPRETERS
)
ALGORITHM_1: Mapping[str, Any] = {
    "rule": TwoPhaseStep(Linear(0.08, 0.02, 6), floor=0.5, bisections=3),
    "weights": {"map": Constant(1.0), "prediction": Constant(0.0)},
}
MOMENTUM: Mapping[str, Any] = {"rule": MomentumSignStep(Cosine(2 / 255, 0.0, 6))}
RULES: Mapping[str, Mapping[str, Any]] = {  # where the plain sign step is not the usual one
    "cam": MOMENTUM,
    "rts": MOMENTUM,
    "mask-unrolled": ALGORITHM_1,
    "queried-cam": {"rule": Square(0.3)},
}
SHORT: Mapping[str, Any] = {  # the same attacks in a ball of L2
    "perturbation": L2Ball(0.5),
    "rule": UnitStep(Cosine(0.1, 0.0, 6)),
    "warm_start": Attack("warm-start", Blind(), L2Ball(0.5), UnitStep(Constant(0.1)), rungs=(2,)),
}
BENT: Mapping[str, Any] = {  # the same attacks on a flow
    "perturbation": Flow(),
    "rule": AdamStep(Cosine(0.1, 0.0, 6)),
    "weights": {"map": Linear(10.0, 20.0, 6), "cost": Constant(0.01)},
    "warm_start": Attack("warm-start", Blind(), Flow(), AdamStep(Constant(0.1)), {"cost": Constant(0.01)}, rungs=(2,)),
}


@dataclass(frozen=True)
class Redness:
    """An extra term: the mean of the red channel."""

    name: str = "redness"
    weight: float = 1.0
    settled: float = 0.0

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        return x[:, 0].mean((1, 2))


def interpreter_of(name: str, model: Classifier) -> Interpreter:
    """The interpreter of that name; one that is trained per classifier is made for this one."""
    fixed = FIXED | OF_TRANSFORMERS | WITHOUT_GRADIENT
    return fixed[name] if name in fixed else TRAINED[name](model)


def attack(interpreter: Interpreter, **changes: Any) -> Attack:
    """Six steps of falling size in three quanta after a warm start, with a rising map weight and label smoothing."""
    warm_start = Attack("warm-start", Blind(), rule=SignStep(Constant(1 / 255)), rungs=(2,))
    parameters: dict[str, Any] = {
        "perturbation": Pixels(8 / 255),
        "rule": SignStep(Cosine(2 / 255, 0.0, 6)),
        "weights": {"map": Linear(10.0, 20.0, 6)},
        "prediction": SmoothedCrossEntropy(Linear(0.05, 0.01, 6)),
        "rungs": (6,),
        "quantum": 2,
        "confidence": 0.5,
        "warm_start": warm_start,
    }
    return Attack("tiny", interpreter, **(parameters | changes))


def a_goal(model: Classifier, interpreter: Interpreter, x: Tensor) -> Goal:
    """A random other class for each image, and the benign map of its predicted class."""
    keys = image_keys(f"image {i}" for i in range(len(x)))
    with torch.no_grad():
        labels = model(x).argmax(1)
        classes = model(x).shape[1]
    maps = interpreter.explain(model, x, labels, keys)
    return Goal(keys, x, random_class(labels, classes, keys, seed=0), maps)


def differing_rows(a: Result, b: Result) -> list[str]:
    """Names of the tensors in which two results differ by as much as one bit; NaN is NaN."""
    rows = {name: value for name, value in vars(a).items() if isinstance(value, Tensor)}
    return [name for name, value in rows.items() if not torch.equal(value.nan_to_num(), vars(b)[name].nan_to_num())]


def differing_fields(a: Outcome, b: Outcome) -> list[str]:
    """Names of the fields in which two outcomes differ by as much as one bit."""
    return [f.name for f in fields(Outcome) if not torch.equal(getattr(a, f.name), getattr(b, f.name))]
