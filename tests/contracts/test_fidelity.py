"""Law 8, Fidelity: the recipes "paper…" are the paper's parameter tables, row by row and column by column."""

from dataclasses import fields
from functools import partial
from typing import get_args

import pytest
import torch

from tiny_maskers import tiny_rts
from tiny_networks import classifier
from underfire.attacks import recipes, solvers
from underfire.attacks.attack import Attack, CrossEntropy, SmoothedCrossEntropy
from underfire.attacks.names import EFFORTS, RECIPES, SOLVERS, AttackSolver
from underfire.attacks.perturbations import Flow, Pixels
from underfire.attacks.solvers import map_aware
from underfire.attacks.steps import AdamStep, MomentumSignStep, SignStep, TwoPhaseStep
from underfire.core.schedules import Constant
from underfire.interpreters import (
    CAM,
    GRAD,
    MASK,
    Blind,
    GradCAM,
    Interpreter,
    PaperGate,
    Replay,
    SmoothedReLU,
    Unrolled,
)
from underfire.interpreters.mask.solver import Solver
from underfire.runs.attack_settings import RecipeName

ALPHA, EPSILON, PLAIN_STEPS, WARM_STEPS = 1 / 255, 0.031, 1000, 400
TABLE = [
    # interpreter, steps after the warm start, lambda of the sum over the map, cells of the map at 224 pixels
    (GRAD(), 800, 0.007, 56 * 56),
    (CAM(), 1200, 0.204, 7 * 7),
]
FLOW_TABLE = [
    # interpreter, steps, c: lambda of the sum times the cells at 224 pixels (MASK: of the mean over cells), tau
    (GRAD(), 800, 0.023 * 56 * 56, 0.0005),
    (CAM(), 600, 0.653 * 7 * 7, 0.0005),
    (MASK(Solver(seed=3)), 1000, 500, 0.004),
]
whatever_the_interpreter = pytest.mark.parametrize(
    "interpreter", [GRAD(), CAM(), GradCAM(), MASK()], ids=lambda g: g.name
)


def step_sizes(attack: Attack) -> set[float]:
    assert isinstance(attack.rule, SignStep)
    return set(attack.rule.alpha(torch.arange(attack.steps)).tolist())


def budget(attack: Attack) -> float:
    assert isinstance(attack.perturbation, Pixels)
    return attack.perturbation.eps


def exactly(value: float) -> float:
    """As a float32 holds it."""
    return float(torch.tensor(value))


@whatever_the_interpreter
def test_warm_start_is_400_steps_of_plain_pgd(interpreter: Interpreter) -> None:
    for attack in (solvers.pgd(recipe="paper"), solvers.adv2(interpreter, recipe="paper")):
        warm_start = attack.warm_start
        assert warm_start is not None
        assert (warm_start.steps, warm_start.interpreter, warm_start.prediction) == (
            WARM_STEPS,
            Blind(),
            CrossEntropy(),
        )
        assert warm_start.rungs == (WARM_STEPS,)
        assert warm_start.warm_start is None
        assert step_sizes(warm_start) == {exactly(ALPHA)}
        assert budget(warm_start) == EPSILON


def test_warm_start_is_shared_by_all() -> None:
    attacks = [
        solvers.pgd(recipe="paper"),
        *(solvers.adv2(g, recipe="paper") for g in (CAM(), GRAD(), GradCAM(), MASK())),
    ]
    assert [a.warm_start for a in attacks] == [attacks[0].warm_start] * 5


def test_pgd_row() -> None:
    attack = solvers.pgd(recipe="paper")
    assert attack.interpreter == Blind()
    assert attack.prediction == CrossEntropy()
    assert attack.steps + WARM_STEPS == PLAIN_STEPS
    assert len(attack.rungs) == 1, "all of its 1,000 iterations are taken"
    assert step_sizes(attack) == {exactly(ALPHA)}
    assert budget(attack) == EPSILON


@pytest.mark.parametrize(("interpreter", "steps", "weight", "cells"), TABLE, ids=["grad", "cam"])
def test_adv2_row(interpreter: Interpreter, steps: int, weight: float, cells: int) -> None:
    attack = solvers.adv2(interpreter, recipe="paper")
    assert attack.rungs == (steps,)
    assert step_sizes(attack) == {exactly(ALPHA)}
    assert budget(attack) == EPSILON
    assert set(attack.weights) == {"map"}
    c = weight * cells
    ramp = attack.weights["map"](torch.arange(steps + 1)).double()
    torch.testing.assert_close(ramp, torch.linspace(c / 2, c, steps + 1, dtype=torch.float64), rtol=1e-6, atol=0)


def test_rts_row() -> None:
    """A map of 56 × 56 cells, and 0.1 × the encoder's loss."""
    interpreter = tiny_rts(classifier("resnet"))
    attack = solvers.adv2(interpreter, recipe="paper")
    assert (attack.steps, attack.interpreter, attack.prediction) == (1200, interpreter, CrossEntropy())
    assert set(attack.weights) == {"map", "encoder"}
    ramp = attack.weights["map"](torch.tensor([0, 600, 1200]))
    torch.testing.assert_close(ramp, 0.002 * 56 * 56 * torch.tensor([0.5, 0.75, 1.0]))
    assert set(attack.weights["encoder"](torch.arange(1200)).tolist()) == {exactly(0.1)}


def test_mask_row() -> None:
    """Algorithm 1: 4 + 4 iterations a step, begun again every 50, no share of the prediction in the searched step."""
    solver = Solver(seed=3)
    attack = solvers.adv2(MASK(solver), recipe="paper")
    assert (attack.rungs, attack.quantum) == ((1000,), 50)
    assert attack.interpreter == MASK(solver, Unrolled(follow=4, lookahead=4))
    assert attack.rule == TwoPhaseStep(max_step=Constant(0.08), prediction_step=0.05, floor=0.95, bisections=12)
    assert attack.confidence == attack.rule.floor
    assert budget(attack) == EPSILON
    assert attack.prediction == CrossEntropy()
    assert set(attack.weights) == {"map", "prediction"}
    steps = torch.arange(1000)
    assert set(attack.weights["prediction"](steps).tolist()) == {0.0}
    assert attack.weights["map"](steps).min() > 0


def test_mask_solver() -> None:
    """Eq. 9 with the numbers of Fong and Vedaldi."""
    assert Solver() == Solver(area=1e-4, variation=1e-2, beta=3.0, steps=300, lr=0.1, geometry=None)
    assert MASK() == MASK(Solver(), Replay())


def test_grad_smooths_relus_and_labels() -> None:
    attack = solvers.adv2(GRAD(), recipe="paper", seed=7)
    assert attack.interpreter == GRAD(SmoothedReLU(PaperGate(tau=1e-4)))
    assert isinstance(attack.prediction, SmoothedCrossEntropy)
    assert attack.prediction.seed == 7
    rho = attack.prediction.rho(torch.tensor([0, 400, 800]))
    torch.testing.assert_close(rho, torch.tensor([0.05, 0.03, 0.01]))


def test_cam_is_attacked_as_it_is() -> None:
    attack = solvers.adv2(CAM(), recipe="paper")
    assert (attack.interpreter, attack.prediction) == (CAM(), CrossEntropy())


# ------------------------------------------------------------------ other columns of Tables 10 and 11

OTHER_COLUMNS = {
    # (recipe, solver, interpreter): last weight of the map and weights of further terms, where not the ResNet's
    ("paper-densenet", "pgd", "rts"): {"map": 0.008 * 56 * 56, "encoder": 0.1},
    ("paper-densenet", "stadv", "mask"): {"map": 500, "cost": 0.005},
    ("paper-densenet", "stadv", "rts"): {"map": 0.0612 * 56 * 56, "encoder": 0.1, "cost": 0.0005},
    ("paper-isic", "pgd", "cam"): {"map": 0.02 * 49},
    ("paper-isic", "pgd", "grad-cam"): {"map": 0.02 * 49},
    ("paper-isic", "pgd", "rts"): {"map": 0.006 * 56 * 56, "encoder": 0.0},  # Table 10 has a dash
}


@pytest.mark.parametrize("recipe", ["paper-densenet", "paper-isic"])
@pytest.mark.parametrize("solver", ["pgd", "stadv"])
def test_other_columns_differ_from_the_resnets_where_the_paper_does(recipe: str, solver: str) -> None:
    """And nowhere else: warm start, steps, rules, models of the interpreter, the attack that ignores the map."""
    of_resnet, of_other = (partial(map_aware, SOLVERS[solver], recipe=each) for each in ("paper", recipe))
    everything_else = [f.name for f in fields(Attack) if f.name != "weights"]
    for interpreter in (GRAD(), CAM(), GradCAM(), MASK(), tiny_rts(classifier("resnet"))):
        before, after = of_resnet(interpreter), of_other(interpreter)
        assert all(getattr(before, name) == getattr(after, name) for name in everything_else)
        ends = [{name: float(w(torch.tensor([a.steps]))) for name, w in a.weights.items()} for a in (before, after)]
        assert ends[1] == pytest.approx(OTHER_COLUMNS.get((recipe, solver, interpreter.name), ends[0]))
        start = float(after.weights["map"](torch.tensor([0])))
        assert start == pytest.approx(ends[1]["map"] / 2)
    plain = [solvers.plain(SOLVERS[solver], recipe=each) for each in ("paper", recipe)]
    assert plain[0] == plain[1]


def test_recipes_are_named_as_they_are_offered() -> None:
    """By the command line, in the settings, and of every solver as far as it has them."""
    assert list(recipes.RECIPES) == list(RECIPES)
    assert all(set(solver.recipes()) <= set(RECIPES) for solver in SOLVERS.values())
    assert set(get_args(RecipeName)) == set(RECIPES)


@whatever_the_interpreter
@pytest.mark.parametrize("effort", EFFORTS)
def test_annealed_steps_fall_to_nothing_on_every_rung(interpreter: Interpreter, effort: str) -> None:
    """Ours: 40 to 60 steps of warm start, then rungs of steps whose size falls from 2/255 to 0."""
    for attack in (solvers.pgd(), solvers.adv2(interpreter, effort=effort)):
        assert attack.warm_start is not None
        assert 40 <= attack.warm_start.steps <= 60
        assert step_sizes(attack.warm_start) == {exactly(1 / 255)}
        assert isinstance(attack.rule, SignStep | MomentumSignStep)
        assert falls_on_every_rung(attack) == exactly(2 / 255)
        assert budget(attack) == budget(attack.warm_start) == 8 / 255


@whatever_the_interpreter
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_more_effort_is_more_rungs(solver: AttackSolver, interpreter: Interpreter) -> None:
    quick, standard, thorough = (map_aware(solver, interpreter, effort=effort).rungs for effort in EFFORTS)
    assert quick == standard[: len(quick)]
    assert standard == thorough[: len(standard)]
    assert len(quick) < len(standard) < len(thorough)
    assert map_aware(solver, interpreter).rungs == standard
    assert map_aware(solver, interpreter, steps=7).rungs == (7,)


def falls_on_every_rung(attack: Attack) -> float:
    """The size of the first step of each rung; the last one is next to nothing."""
    first = set()
    for place, steps in enumerate(attack.rungs):
        begin = sum(attack.rungs[:place])
        alpha = attack.rule.alpha(torch.arange(begin, begin + steps))
        assert bool((alpha.diff() < 0).all())
        assert float(alpha[-1]) < 0.01 * float(alpha[0])
        first.add(float(alpha[0]))
    (size,) = first
    return size


# ------------------------------------------------------------------ StAdv, Table 11


def adam_of_the_paper(attack: Attack) -> bool:
    return (attack.rule, attack.perturbation) == (AdamStep(Constant(0.01), 0.9, 0.999), Flow())


def test_every_stadv_attack_starts_from_400_plain_steps_on_the_flow() -> None:
    attacks = [
        solvers.stadv(recipe="paper"),
        *(solvers.adv2_stadv(row[0], recipe="paper") for row in FLOW_TABLE),
        solvers.adv2_stadv(tiny_rts(classifier("resnet")), recipe="paper"),
    ]
    warm_start = attacks[0].warm_start
    assert warm_start is not None
    assert [a.warm_start for a in attacks] == [warm_start] * 5
    assert (warm_start.steps, warm_start.interpreter, warm_start.prediction) == (400, Blind(), CrossEntropy())
    assert warm_start.weights == {"cost": Constant(0.0005)}
    assert all(adam_of_the_paper(a) for a in (warm_start, *attacks))


def test_stadv_row() -> None:
    attack = solvers.stadv(recipe="paper")
    assert (attack.interpreter, attack.prediction, attack.steps + 400) == (Blind(), CrossEntropy(), PLAIN_STEPS)
    assert len(attack.rungs) == 1
    assert attack.weights == {"cost": Constant(0.0005)}


@pytest.mark.parametrize(("interpreter", "steps", "c", "tau"), FLOW_TABLE, ids=["grad", "cam", "mask"])
def test_adv2_stadv_row(interpreter: Interpreter, steps: int, c: float, tau: float) -> None:
    attack = solvers.adv2_stadv(interpreter, recipe="paper", seed=7)
    on_pixels = solvers.adv2(interpreter, recipe="paper", seed=7)
    assert (attack.rungs, attack.quantum) == ((steps,), 50)
    assert attack.interpreter == on_pixels.interpreter
    assert set(attack.weights) == {"map", "cost"}
    ramp = attack.weights["map"](torch.arange(steps + 1)).double()
    torch.testing.assert_close(ramp, torch.linspace(c / 2, c, steps + 1, dtype=torch.float64), rtol=1e-6, atol=0)
    assert set(attack.weights["cost"](torch.arange(steps)).tolist()) == {exactly(tau)}
    smoothed = isinstance(attack.prediction, SmoothedCrossEntropy)
    assert smoothed == (interpreter == GRAD())
    assert type(attack.prediction) is type(on_pixels.prediction)


def test_rts_row_on_stadv() -> None:
    interpreter = tiny_rts(classifier("resnet"))
    attack = solvers.adv2_stadv(interpreter, recipe="paper")
    assert (attack.steps, attack.interpreter, attack.prediction) == (600, interpreter, CrossEntropy())
    ramp = attack.weights["map"](torch.tensor([0, 300, 600]))
    torch.testing.assert_close(ramp, 0.0408 * 56 * 56 * torch.tensor([0.5, 0.75, 1.0]))
    assert {name: attack.weights[name] for name in ("encoder", "cost")} == {
        "encoder": Constant(0.1),
        "cost": Constant(0.0005),
    }


@whatever_the_interpreter
@pytest.mark.parametrize("effort", EFFORTS)
def test_annealed_steps_on_stadv_fall_to_nothing_on_every_rung(interpreter: Interpreter, effort: str) -> None:
    """Ours: a short warm start, then Adam, whose size falls to 0 on each rung; Table 11's tau."""
    attacks = (solvers.stadv(), solvers.adv2_stadv(interpreter, effort=effort))
    assert attacks[0].warm_start == attacks[1].warm_start
    for attack in attacks:
        assert isinstance(attack.rule, AdamStep)
        assert falls_on_every_rung(attack) == exactly(0.1)
        assert attack.weights["cost"] == Constant(0.0005)
        assert attack.perturbation == Flow()
