"""Terms that hide an attack from feature squeezing: values by hand, what they do in an attack, and Algorithm 2."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tiny_attacks import a_goal, attack, differing_fields
from tiny_networks import classifier, images
from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.evasion import Likeness, SqueezeConsistency
from underfire.attacks.perturbations import Flow, Levels, Pixels
from underfire.attacks.steps import SignStep
from underfire.core import rows
from underfire.core.schedules import Constant
from underfire.core.types import Goal, Row
from underfire.detection.scores import FeatureSqueezing, look
from underfire.detection.squeezers import BitDepth, Median, Squeezer
from underfire.interpreters import CAM, Blind
from underfire.interpreters.protocol import reading

SQUEEZERS = (BitDepth(2), Median(3))


def value(term: Any, goal: Goal) -> Row:
    """A term at the benign images."""
    model = classifier("resnet", torch.float64)
    logits, step = model(goal.image), torch.zeros_like(goal.key)
    seen = reading(logits, goal.image.new_zeros(len(goal.key), 1, 1), goal.target)
    result: Row = term(model, seen, goal.image, goal, step)
    return result


def the_goal(n: int = 3, dtype: torch.dtype = torch.float64) -> Goal:
    return a_goal(classifier("resnet", dtype), CAM(), images(n, dtype=dtype))


@pytest.mark.parametrize("squeezer", SQUEEZERS, ids=lambda each: each.name)
def test_agreement_is_the_cross_entropy_of_both_predictions(squeezer: Squeezer) -> None:
    goal, model = the_goal(), classifier("resnet", torch.float64)
    before, after = (model(x).softmax(1) for x in (goal.image, squeezer(goal.image)))
    by_hand = torch.stack(
        [-sum(p * q.log() for p, q in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
    )
    torch.testing.assert_close(value(SqueezeConsistency(squeezer), goal), by_hand)


def test_likeness_is_the_distance_to_the_anchor() -> None:
    goal, model = the_goal(), classifier("resnet", torch.float64)
    own = model(goal.image).softmax(1)
    assert value(Likeness(), replace(goal, anchor=own)).tolist() == [0.0] * 3
    anchor = own.roll(1, 0)
    torch.testing.assert_close(value(Likeness(), replace(goal, anchor=anchor)), (own - anchor).abs().sum(1))


@pytest.mark.parametrize("squeezer", SQUEEZERS, ids=lambda each: each.name)
def test_an_attack_that_evades_scores_lower_than_one_that_does_not(squeezer: Squeezer) -> None:
    model, goal = classifier("resnet"), the_goal(6, torch.float32)
    term = SqueezeConsistency(squeezer)
    far: dict[str, Any] = {
        "perturbation": Pixels(0.4),
        "rule": SignStep(Constant(0.02)),
        "rungs": (40,),
        "warm_start": None,
    }
    ways = [attack(Blind(), **far), attack(Blind(), **far, extra_terms=(term,))]
    basic, evading = (engine.run(each, model, goal, batch_size=3) for each in ways)
    fooled = basic.success & evading.success
    assert int(fooled.sum()) >= 3
    scores = [
        FeatureSqueezing(squeezer).scores(model, look(model, each.image, goal.key))[fooled].mean()
        for each in (basic, evading)
    ]
    assert float(scores[1]) < 0.5 * float(scores[0])


def test_with_weight_zero_nothing_is_evaded() -> None:
    model, goal = classifier("resnet"), the_goal(3, torch.float32)
    terms = tuple(SqueezeConsistency(each) for each in SQUEEZERS)
    nothing = {term.name: Constant(0.0) for term in terms}
    ways = [attack(CAM()), attack(CAM(), extra_terms=terms, weights=dict(attack(CAM()).weights) | nothing)]
    basic, evading = (engine.run(each, model, goal, batch_size=3) for each in ways)
    assert differing_fields(basic, evading) == []


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_levels_are_those_that_images_of_the_ball_are_squeezed_to(bits: int) -> None:
    x0, levels, squeeze = images(4, dtype=torch.float64), Levels(bits, 8 / 255), BitDepth(bits)
    numbers = torch.Generator().manual_seed(bits)
    theta = levels.project(x0, torch.rand(x0.shape, generator=numbers, dtype=torch.float64) - 0.5)
    x = levels.decode(x0, theta)
    assert bool((theta != 0).any())
    torch.testing.assert_close(squeeze(x), x)
    around = torch.stack([squeeze((x0 + change).clamp(0, 1)) for change in torch.linspace(-8 / 255, 8 / 255, 101)])
    assert bool(((around - x).abs() < 1e-9).any(0).all()), "an image of the ball has this squeezed copy"
    assert float(levels.project(x0, theta).sub(theta).abs().max()) < 1e-12


def test_the_first_stage_of_algorithm_2_stays_on_the_squeezed_grid_and_moves() -> None:
    model, goal = classifier("resnet"), the_goal(4, torch.float32)
    first = solvers.adv2(CAM(), recipe="paper", evade=(BitDepth(2),)).anchor
    assert first is not None
    outcome = engine.run(replace(first, rungs=(20,)), model, goal, batch_size=2)
    grid = BitDepth(2)
    torch.testing.assert_close(grid(outcome.image), outcome.image)
    assert bool((outcome.image != grid(goal.image)).flatten(1).any(1).all())
    start = model(grid(goal.image)).softmax(1).gather(1, goal.target[:, None])[:, 0]
    assert bool((outcome.confidence > start).all())


def test_an_attack_with_an_anchor_is_the_same_in_other_company() -> None:
    model, goal = classifier("resnet"), the_goal(5, torch.float32)
    first = Attack("squeezed", Blind(), Levels(2), SignStep(Constant(1 / 4)), rungs=(4,))
    evading = attack(CAM(), extra_terms=(Likeness(), SqueezeConsistency(Median(3))), anchor=first)
    order = torch.tensor([3, 0, 4, 1, 2])
    together, reordered = (engine.run(evading, model, each, batch_size=3) for each in (goal, rows.take(goal, order)))
    assert differing_fields(rows.take(together, order), reordered) == []


def test_a_likeness_draws_the_prediction_to_the_anchors() -> None:
    model, goal = classifier("resnet"), the_goal(4, torch.float32)
    first = Attack("squeezed", Blind(), Levels(2), SignStep(Constant(1 / 4)), rungs=(10,))
    anchor = engine.run(first, model, goal, batch_size=4).probabilities
    strong = {"likeness": Constant(20.0)}
    ways = [
        attack(Blind(), rungs=(40,)),
        attack(Blind(), rungs=(40,), extra_terms=(Likeness(),), anchor=first, weights=strong),
    ]
    far, near = (
        (engine.run(each, model, goal, batch_size=4).probabilities - anchor).abs().sum(1).mean() for each in ways
    )
    assert float(near) < float(far)


# ------------------------------------------------------------------ recipes


def test_the_paper_meets_bit_depth_by_algorithm_2_and_smoothing_by_agreement() -> None:
    evading = solvers.adv2(CAM(), recipe="paper", evade=(BitDepth(3), Median(3), BitDepth(2)))
    assert evading.extra_terms == (SqueezeConsistency(Median(3)), Likeness())
    first = evading.anchor
    assert first is not None
    assert (first.interpreter, first.perturbation, first.steps) == (Blind(), Levels(2, 0.031), 400)
    assert first.rule == SignStep(Constant(1 / 4))
    assert solvers.adv2(CAM(), recipe="paper", evade=(Median(3),)).anchor is None


def test_ours_meets_every_squeezer_by_agreement() -> None:
    evading = solvers.adv2(CAM(), evade=SQUEEZERS)
    assert evading.extra_terms == tuple(SqueezeConsistency(each) for each in SQUEEZERS)
    assert evading.anchor is None
    basic = solvers.adv2(CAM())
    assert replace(evading, extra_terms=(), weights=basic.weights) == basic


def test_levels_of_a_flow_are_those_of_the_usual_ball() -> None:
    first = solvers.adv2_stadv(CAM(), recipe="paper", evade=(BitDepth(2),)).anchor
    assert first is not None
    assert first.perturbation == Levels(2, Pixels().eps)
    assert isinstance(solvers.adv2_stadv(CAM(), recipe="paper").perturbation, Flow)
