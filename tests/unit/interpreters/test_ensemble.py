"""Several interpreters at once: the loss is the weighted mean of the members', and the attack deceives all of them."""

import pytest
import torch

from tiny_attacks import FIXED, a_goal
from tiny_maskers import tiny_rts
from tiny_networks import classifier, images
from underfire.attacks import recipes, solvers
from underfire.attacks.api import adv2
from underfire.core.errors import UnderfireError
from underfire.core.losses import map_distance
from underfire.core.rng import image_keys
from underfire.data.demo import demo_images
from underfire.interpreters import CAM, GRAD, MASK, Ensemble, Interpreter, Unrolled
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier

MEMBERS: tuple[Interpreter, ...] = (CAM(), FIXED["mask-unrolled"], GRAD())


def test_the_distance_is_the_weighted_mean_of_the_members() -> None:
    model, x = classifier("resnet", torch.float64), images(3, dtype=torch.float64)
    weights = (3.0, 1.0, 2.0)
    ensemble = Ensemble(MEMBERS, weights)
    goals = [a_goal(model, each, x) for each in MEMBERS]
    goal = a_goal(model, ensemble, x)

    def distance(interpreter: Interpreter, target: torch.Tensor) -> torch.Tensor:
        belief = interpreter.begin(model, x, goal.target, goal.key)
        reading = interpreter.read(model, interpreter.advance(model, belief, x, goal.target), x, goal.target)
        return map_distance(reading.maps, target)

    parts = [distance(each, own.target_map) for each, own in zip(MEMBERS, goals, strict=True)]
    expected = sum(weight / max(weights) * part / 3 for weight, part in zip(weights, parts, strict=True))
    torch.testing.assert_close(distance(ensemble, goal.target_map), expected)


def test_terms_of_the_members_are_its_own() -> None:
    model, x = classifier("resnet"), images(2)
    rts = tiny_rts(model)
    ensemble, y, keys = Ensemble((CAM(), rts), (1.0, 1.0)), torch.tensor([0, 1]), image_keys(["a", "b"])
    own = rts.read(model, rts.begin(model, x, y, keys), x, y).terms["encoder"]
    both = ensemble.read(model, ensemble.begin(model, x, y, keys), x, y).terms["encoder"]
    torch.testing.assert_close(both, own)


def test_one_member_is_no_ensemble() -> None:
    with pytest.raises(UnderfireError, match="two interpreters or more"):
        Ensemble((CAM(),), (1.0,))
    with pytest.raises(UnderfireError, match="a weight for each"):
        Ensemble((CAM(), GRAD()), (1.0,))


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_recipes_take_weights_steps_and_models_from_the_members(recipe: str) -> None:
    attack = solvers.adv2(Ensemble((CAM(), MASK()), (1.0, 1.0)), recipe=recipe)
    alone = [solvers.adv2(each, recipe=recipe) for each in (CAM(), MASK())]
    assert attack.steps == max(each.steps for each in alone)
    assert isinstance(attack.interpreter, Ensemble)
    assert attack.interpreter.members == tuple(each.interpreter for each in alone)
    last = torch.tensor([attack.steps])
    weights = [float(each.weights["map"](last + each.steps)) for each in alone]
    assert attack.interpreter.weights == pytest.approx(weights)
    assert float(attack.weights["map"](last)) == pytest.approx(2 * max(weights))
    assert "prediction" not in attack.weights, "its steps do not search for a floor"
    assert isinstance(attack.interpreter.members[1], MASK)
    assert isinstance(attack.interpreter.members[1].attacker, Unrolled) == recipe.startswith("paper")


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_member_keeps_the_weights_of_its_further_terms(recipe: str) -> None:
    """Those of 0, too: a term that is not named would count in full."""
    rts = tiny_rts(classifier("resnet"))
    alone, attack = (solvers.adv2(each, recipe=recipe) for each in (rts, Ensemble((CAM(), rts), (1.0, 1.0))))
    assert attack.weights["encoder"] == alone.weights["encoder"]


@pytest.mark.extended
def test_all_members_are_deceived_by_one_image() -> None:
    demo = Classifier.load("demo")
    members = (CAM(), GRAD())
    x = torch.stack([demo_images(4).read(i) for i in range(4)])
    both = adv2(demo, Ensemble(members, (1.0, 1.0)), eps=0.1, steps=40)(x)
    alone = adv2(demo, CAM(), eps=0.1, steps=40)(x, target=both.target)
    labels, keys = demo(x).argmax(1), image_keys(map(str, range(4)))

    def moved(image: torch.Tensor, g: Interpreter) -> float:
        return float(map_l1(g.explain(demo, image, both.target, keys), g.explain(demo, x, labels, keys)).mean())

    assert bool(both.success.all())
    assert moved(both.adversarial, GRAD()) < 0.5 * moved(alone.adversarial, GRAD())
    assert moved(both.adversarial, CAM()) < 0.1
