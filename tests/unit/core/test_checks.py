"""Numbers within bounds: what is taken, and the sentences for what is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from underfire.attacks.attack import Attack, Margin, SmoothedCrossEntropy
from underfire.attacks.perturbations import Flow, Levels, Pixels
from underfire.attacks.steps import AdamStep, MomentumSignStep, SignStep, TwoPhaseStep
from underfire.core.checks import check_budget, check_count, check_number, check_seed
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant, Cosine, InTurn, Linear
from underfire.interpreters import CAM

NAN, INF = float("nan"), float("inf")


def test_numbers_of_any_kind_are_taken() -> None:
    for value in (0.25, np.float32(0.25), np.float64(0.25)):
        assert check_number("x", value, least=0.0, most=1.0) == 0.25
    for whole in (3, np.int64(3), np.uint8(3)):
        assert check_count("n", whole) == check_seed(whole) == 3
    assert check_seed(-7) == -7
    assert [check_budget(eps) for eps in (0, 8 / 255, 1)] == [0, 8 / 255, 1]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_infinite_numbers_are_within_no_bounds(value: float) -> None:
    with pytest.raises(UnderfireError, match=r"^x is -?(nan|inf); it must be a finite number\.$"):
        check_number("x", value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pixels(8),
        lambda: Pixels(-0.1),
        lambda: Pixels(NAN),
        lambda: Levels(2, 8),
        lambda: Levels(0),
        lambda: Flow(0.0),
        lambda: Flow(NAN),
        lambda: Constant(NAN),
        lambda: Constant("0.1"),
        lambda: Linear(0.0, INF, 3),
        lambda: Cosine(0.0, 1.0, -3),
        lambda: Cosine(0.0, 1.0, 2.5),
        lambda: SignStep(0.1),
        lambda: SignStep(Constant(-0.1)),
        lambda: MomentumSignStep(Constant(0.1), decay=1.0),
        lambda: MomentumSignStep(Constant(0.1), decay=-0.1),
        lambda: AdamStep(Linear(0.1, -0.1, 9)),
        lambda: AdamStep(Constant(0.1), decay=NAN),
        lambda: AdamStep(Constant(0.1), square_decay=1.0),
        lambda: AdamStep(Constant(0.1), floor=0.0),
        lambda: TwoPhaseStep(Constant(0.1), prediction_step=-1.0),
        lambda: TwoPhaseStep(Constant(0.1), floor=0.0),
        lambda: TwoPhaseStep(Constant(0.1), bisections=0),
        lambda: SmoothedCrossEntropy(Constant(-0.1)),
        lambda: SmoothedCrossEntropy(Constant(0.1), seed=0.5),
        lambda: Margin(confidence=1.0),
        lambda: Margin(slope=-1.0),
        lambda: Attack("a", CAM(), settled=-1.0),
        lambda: Attack("a", CAM(), settled=NAN),
        lambda: Attack("a", CAM(), rungs=(-1,)),
        lambda: Attack("a", CAM(), rungs=(2.0,)),
        lambda: Attack("a", CAM(), rungs=(2, 0)),
        lambda: Attack("a", CAM(), rungs=()),
        lambda: Attack("a", CAM(), rungs=2),
        lambda: InTurn((), ()),
        lambda: InTurn((Constant(1.0),), (1, 2)),
        lambda: Attack("a", CAM(), quantum=0),
        lambda: Attack("a", CAM(), confidence=NAN),
        lambda: Attack("a", CAM(), weights={"map": 3.0}),
        lambda: Attack("a", CAM(), weights={"map": lambda step: step * NAN}),
    ],
)
def test_every_part_of_an_attack_knows_its_bounds(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UnderfireError, match=r"must (be|keep) "):
        make()
