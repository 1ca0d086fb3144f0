"""Terms that hide an attack from feature squeezing: values by hand, what they do in an attack, and Algorithm 2."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tiny_attacks import a_goal, attack, differing_fields
from tiny_networks import classifier, images
from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.evasion import Likeness, MapConsistency, SqueezeConsistency
from underfire.attacks.perturbations import Flow, Levels, Pixels
from underfire.attacks.steps import SignStep
from underfire.core import rng, rows
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant
from underfire.core.types import Goal, Row
from underfire.data.corruptions import CHANGES, JPEG, Blur, Crop, Noise
from underfire.detection.scores import Consistency, FeatureSqueezing, look
from underfire.detection.squeezers import BitDepth, Median, Squeezer
from underfire.interpreters import CAM, GRAD, MASK, Blind
from underfire.interpreters.protocol import Interpreter, NoBelief, reading

SQUEEZERS = (BitDepth(2), Median(3))


def value(term: Any, goal: Goal) -> Row:
    """A term at the benign images."""
    model = classifier("resnet", torch.float64)
    logits, step = model(goal.image), torch.zeros_like(goal.key)
    seen = reading(logits, goal.image.new_zeros(len(goal.key), 1, 1), goal.target)
    result: Row = term(model, NoBelief(), seen, goal.image, goal, step)
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
    ways = [attack(CAM()), attack(CAM(), extra_terms=tuple(SqueezeConsistency(each, 0.0) for each in SQUEEZERS))]
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
    ways = [
        attack(Blind(), rungs=(40,)),
        attack(Blind(), rungs=(40,), extra_terms=(Likeness(weight=20.0),), anchor=first),
    ]
    far, near = (
        (engine.run(each, model, goal, batch_size=4).probabilities - anchor).abs().sum(1).mean() for each in ways
    )
    assert float(near) < float(far)


# ------------------------------------------------------------------ self-consistency


def test_consistency_of_maps_is_their_mean_squared_distance_after_each_change() -> None:
    goal, model, cam = the_goal(), classifier("resnet", torch.float64), CAM()
    maps = cam.explain(model, goal.image, goal.target, goal.key)
    by_hand = torch.stack(
        [
            (cam.explain(model, change(goal.image, goal.key), goal.target, goal.key) - change.moved(maps)).square()
            for change in (JPEG(), Crop())
        ]
    ).mean((0, 2, 3))
    torch.testing.assert_close(value(MapConsistency(cam, (JPEG(), Crop())), goal), by_hand)


def test_what_a_change_draws_is_drawn_anew_for_each_image_and_step() -> None:
    goal, model, term = the_goal(2), classifier("resnet", torch.float64), MapConsistency(CAM(), (Noise(),))
    seen = reading(model(goal.image), goal.image.new_zeros(2, 1, 1), goal.target)
    first, second, again = (
        term(model, NoBelief(), seen, goal.image, goal, torch.full_like(goal.key, step)) for step in (0, 1, 0)
    )
    assert torch.equal(first, again)
    assert bool((first != second).all())
    scores = Consistency(CAM(), Noise()).scores(model, look(model, goal.image, goal.key, (CAM(),)))
    assert bool((scores != first).all()), "the detector keeps its own dice"
    keys = rng.derived(goal.key, "attacker's noise", torch.zeros_like(goal.key))
    changed = CAM().explain(model, Noise()(goal.image, keys), goal.target, keys)
    maps = CAM().explain(model, goal.image, goal.target, keys)
    torch.testing.assert_close(first, (changed - maps).square().mean((1, 2)))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_image_can_follow_every_change(change: Any) -> None:
    x = images(2).requires_grad_()
    (gradient,) = torch.autograd.grad((change(x, rng.image_keys(["a", "b"])) * torch.linspace(1, 2, 16)).sum(), x)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


@pytest.mark.parametrize(
    "change", [JPEG(), pytest.param(Blur(), marks=pytest.mark.extended)], ids=lambda each: each.name
)
def test_an_attack_that_evades_consistency_scores_lower_than_one_that_does_not(change: Any) -> None:
    model, goal, cam = classifier("resnet"), the_goal(6, torch.float32), CAM()
    far: dict[str, Any] = {"perturbation": Pixels(0.4), "rule": SignStep(Constant(0.02)), "rungs": (60,)}
    far["weights"] = {"map": Constant(1.0)}
    ways = [attack(cam, **far), attack(cam, **far, extra_terms=(MapConsistency(cam, (change,), weight=10.0),))]
    basic, evading = (engine.run(each, model, goal, batch_size=3) for each in ways)
    fooled = basic.success & evading.success
    assert int(fooled.sum()) >= 3
    scores = [
        Consistency(cam, change).scores(model, look(model, each.image, goal.key, (cam,)))[fooled].mean()
        for each in (basic, evading)
    ]
    assert float(scores[1]) < 0.6 * float(scores[0])


def test_terms_of_one_interpreter_are_one_and_weigh_as_much_as_its_map() -> None:
    scores = tuple(Consistency(CAM(), change) for change in (JPEG(), Blur()))
    evading = solvers.adv2(CAM(), evade=(Median(3), *scores))
    of_map = float(evading.weights["map"](torch.tensor([0])))
    assert evading.extra_terms == (
        SqueezeConsistency(Median(3), 0.1),
        MapConsistency(CAM(), (JPEG(), Blur()), weight=of_map),
    )


def test_the_consistency_of_mask_is_evaded_by_an_attack_on_mask_alone() -> None:
    asked = Consistency(MASK(), Blur())
    assert solvers.adv2(MASK(), evade=(asked,)).extra_terms == (MapConsistency(MASK(), (Blur(),), weight=2.5),)
    with pytest.raises(UnderfireError, match="consistency of 'mask' can be evaded only by an attack on 'mask'"):
        solvers.adv2(CAM(), evade=(asked,))


# ------------------------------------------------------------------ recipes


def test_the_paper_meets_bit_depth_by_algorithm_2_and_smoothing_by_agreement() -> None:
    evading = solvers.adv2(CAM(), recipe="paper", evade=(BitDepth(3), Median(3), BitDepth(2)))
    assert evading.extra_terms == (SqueezeConsistency(Median(3)), Likeness())
    first = evading.anchor
    assert first is not None
    assert (first.interpreter, first.perturbation, first.steps) == (Blind(), Levels(2, 0.031), 400)
    assert first.rule == SignStep(Constant(1 / 4))
    assert solvers.adv2(CAM(), recipe="paper", evade=(Median(3),)).anchor is None


@pytest.mark.parametrize("interpreter", [CAM(), GRAD()], ids=lambda each: each.name)
def test_what_hides_by_the_papers_recipe_is_judged_as_well(interpreter: Interpreter) -> None:
    model = classifier("resnet")
    evading = solvers.adv2(interpreter, recipe="paper", evade=(BitDepth(2), Median(3)), steps=3)
    outcome = engine.run(evading, model, a_goal(model, interpreter, images(2)), batch_size=2)
    assert bool(outcome.closest.isfinite().all())


def test_ours_meets_every_squeezer_by_agreement() -> None:
    evading = solvers.adv2(CAM(), evade=SQUEEZERS)
    assert evading.extra_terms == tuple(SqueezeConsistency(each, weight=0.1) for each in SQUEEZERS)
    assert evading.anchor is None
    basic = solvers.adv2(CAM())
    assert replace(evading, extra_terms=()) == basic


def test_levels_of_a_flow_are_those_of_the_usual_ball() -> None:
    first = solvers.adv2_stadv(CAM(), recipe="paper", evade=(BitDepth(2),)).anchor
    assert first is not None
    assert first.perturbation == Levels(2, Pixels().eps)
    assert isinstance(solvers.adv2_stadv(CAM(), recipe="paper").perturbation, Flow)
