"""What can be asked of a recipe: another budget, length or map weight; the numbers are the fidelity law's."""

from functools import partial
from typing import Any

import pytest
import torch

from tiny_maskers import tiny_rts
from tiny_networks import classifier
from underfire.attacks import recipes, solvers
from underfire.attacks.names import SOLVERS, AttackSolver
from underfire.attacks.perturbations import Pixels
from underfire.attacks.steps import AdamStep, TwoPhaseStep
from underfire.core.errors import UnderfireError
from underfire.interpreters import CAM, GRAD, MASK, Blind, FiniteDifferences, GradCAM, Replay, Unrolled
from underfire.interpreters.mask.solver import Solver

every_recipe = pytest.mark.parametrize("recipe", recipes.RECIPES)


@every_recipe
def test_a_budget_binds_the_warm_start_too(recipe: str) -> None:
    for attack in (solvers.pgd(eps=0.02, recipe=recipe), solvers.adv2(CAM(), eps=0.02, recipe=recipe)):
        assert attack.warm_start is not None
        assert attack.perturbation == attack.warm_start.perturbation == Pixels(0.02)


@every_recipe
def test_zero_is_a_value_and_not_the_default(recipe: str) -> None:
    for attack in (solvers.pgd(eps=0.0, steps=0, recipe=recipe), solvers.adv2(CAM(), eps=0.0, steps=0, recipe=recipe)):
        assert (attack.perturbation, attack.steps) == (Pixels(0.0), 0)
    without_map = solvers.adv2(CAM(), map_weight=0.0, recipe=recipe)
    assert without_map.weights["map"](torch.tensor([0, 1])).tolist() == [0, 0]


@every_recipe
def test_schedules_stretch_over_the_steps_asked_for(recipe: str) -> None:
    short, long = (solvers.adv2(CAM(), recipe=recipe, steps=steps, map_weight=10.0) for steps in (10, 1000))
    tenths = torch.arange(11)
    for schedule in ("weight", "alpha"):
        a, b = (x.weights["map"] if schedule == "weight" else x.rule.alpha for x in (short, long))
        torch.testing.assert_close(a(tenths), b(tenths * 100))


def test_the_interpreter_of_the_annealed_recipe_is_the_given_one() -> None:
    interpreter = GRAD(FiniteDifferences(0.05))
    assert solvers.adv2(interpreter).interpreter == interpreter
    assert solvers.pgd().interpreter == Blind()


@every_recipe
def test_interpreters_without_a_row_of_their_own_are_attacked_like_cam(recipe: str) -> None:
    of_cam, of_grad_cam = (solvers.adv2(interpreter, recipe=recipe) for interpreter in (CAM(), GradCAM()))
    assert of_grad_cam.interpreter == GradCAM()
    assert vars(of_grad_cam) | {"interpreter": CAM()} == vars(of_cam)


@every_recipe
def test_rts_has_an_encoder_term_of_constant_weight(recipe: str) -> None:
    """None on skin lesions, where Table 10 has a dash."""
    attack = solvers.adv2(tiny_rts(classifier("resnet")), recipe=recipe)
    weight = 0.0 if recipe == "paper-isic" else 0.1
    assert set(attack.weights) == {"map", "encoder"}
    torch.testing.assert_close(attack.weights["encoder"](torch.tensor([0, 500])), torch.tensor([weight, weight]))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"effort": "heroic"}, "no effort 'heroic'; the efforts are quick, standard, thorough"),
        ({"effort": "quick", "steps": 5}, "give one of the two"),
        ({"effort": "quick", "recipe": "paper"}, "recipe 'paper' has the paper's steps and no other effort"),
    ],
)
@pytest.mark.parametrize("solver", ["pgd", "stadv"])
def test_efforts_that_there_are_not(solver: str, given: dict[str, Any], told: str) -> None:
    with pytest.raises(UnderfireError, match=told):
        solvers.map_aware(SOLVERS[solver], CAM(), **given)
    assert solvers.map_aware(SOLVERS[solver], CAM(), recipe="paper", effort="standard").rungs[1:] == ()


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_unknown_recipe(solver: AttackSolver) -> None:
    for make in (partial(solvers.plain, solver), partial(solvers.map_aware, solver, CAM())):
        with pytest.raises(
            UnderfireError, match=f"Solver '{solver.name}' has no recipe 'best'; it has {', '.join(solver.recipes())}"
        ):
            make(recipe="best")


def test_the_attacks_of_a_solver_move_images_alike() -> None:
    """And bear names of their own; a weight that holds for all of them holds in the warm start too."""
    names = dict[str, None]()
    for solver, recipe in [(each, recipe) for each in SOLVERS.values() for recipe in each.recipes()]:
        plain = solvers.plain(solver, recipe=recipe, steps=7)
        dual = solvers.map_aware(solver, CAM(), recipe=recipe, steps=7)
        names |= dict.fromkeys([plain.name, dual.name])
        assert plain.warm_start == dual.warm_start
        assert plain.perturbation == dual.perturbation
        assert plain.weights == {k: v for k, v in dual.weights.items() if k != "map"}
        if solver.name != "square":  # which begins at the benign image
            assert plain.warm_start is not None
            assert plain.warm_start.perturbation == plain.perturbation
            assert plain.warm_start.weights == plain.weights
        assert (plain.steps, dual.steps) == (7, 7)
    assert list(names) == ["pgd", "adv2", "pgd-l2", "adv2-l2", "stadv", "adv2-stadv", "square", "adv2-square"]


@pytest.mark.parametrize("recipe", recipes.FLOW_RECIPES)
def test_interpreters_without_a_row_of_their_own_are_bent_for_like_cam(recipe: str) -> None:
    of_cam, of_grad_cam = (solvers.adv2_stadv(interpreter, recipe=recipe) for interpreter in (CAM(), GradCAM()))
    assert vars(of_grad_cam) | {"interpreter": CAM()} == vars(of_cam)


def test_mask_is_replayed_on_stadv_too_and_nothing_is_searched() -> None:
    ours, papers = (solvers.adv2_stadv(MASK(), recipe=recipe) for recipe in ("annealed", "paper"))
    assert ours.interpreter == MASK(attacker=Replay())
    assert papers.interpreter == MASK(attacker=Unrolled())
    assert all(isinstance(each.rule, AdamStep) for each in (ours, papers))
    assert "prediction" not in papers.weights
    assert ours.quantum > Replay().horizon // Replay().follow


def test_mask_is_replayed_unless_the_paper_is_followed() -> None:
    """Solver and seed are the user's in both recipes, and a length or a weight can be asked for."""
    interpreter = MASK(Solver(steps=50, seed=3))
    ours = solvers.adv2(interpreter, steps=30, map_weight=7.0)
    assert ours.interpreter == interpreter
    assert isinstance(interpreter.attacker, Replay)
    assert (ours.steps, ours.weights["map"](torch.tensor([0, 30])).tolist()) == (30, [7.0, 7.0])
    assert ours.quantum > interpreter.attacker.horizon // interpreter.attacker.follow, (
        "every replay must come to its end"
    )
    papers = solvers.adv2(interpreter, recipe="paper", steps=30)
    assert papers.interpreter == MASK(interpreter.solver, Unrolled())
    assert isinstance(papers.rule, TwoPhaseStep)
