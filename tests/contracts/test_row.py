"""Law 1, Row: an image's outcome, and its score, depend on no other image, on no order and on no slot."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from law_cases import ON_TRANSFORMERS, pairs
from tiny_attacks import BENT, INTERPRETERS, RULES, SHORT, a_goal, attack, differing_fields, interpreter_of
from tiny_networks import NETWORKS, classifier, images
from tiny_scorers import score, scorers_of
from underfire.attacks import engine
from underfire.attacks.attack import Attack
from underfire.core import rows
from underfire.core.rng import image_keys, uniform
from underfire.core.types import Goal, Outcome
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier

IMAGES, BATCH_SIZE = 7, 3

ON_FLOWS = " on flows"  # ends the names of attacks that bend
IN_L2 = " in L2"  # and of those that stay within a ball of L2, and a region
CASES = [
    *pairs(NETWORKS, INTERPRETERS),
    *(("resnet", name + ON_FLOWS) for name in INTERPRETERS),
    ("densenet", "cam" + ON_FLOWS),
    ("resnet", "cam" + IN_L2),
    ("densenet", "queried-cam"),
    *((net, name + ON_FLOWS) for net, name in ON_TRANSFORMERS),
]
pytestmark = pytest.mark.parametrize(("net", "name"), CASES, ids=lambda part: part)


def explainer(name: str, model: Classifier) -> Interpreter:
    return interpreter_of(name.removesuffix(ON_FLOWS).removesuffix(IN_L2), model)


@cache
def staggered(net: str, name: str, dtype: torch.dtype) -> tuple[Classifier, Goal, Attack]:
    """More images than slots, and two rungs, of which the half whose targets are met from the start needs one."""
    model = classifier(net, dtype)
    interpreter = explainer(name, model)
    goal = a_goal(model, interpreter, images(IMAGES, dtype=dtype))
    changes = BENT if name.endswith(ON_FLOWS) else RULES.get(name, {})
    if name.endswith(IN_L2):
        changes, goal = (
            SHORT,
            replace(goal, region=uniform(0, "inside", goal.key, goal.key, 256).view(-1, 16, 16) < 0.5),
        )
    with torch.no_grad():
        reported = model(goal.image).argmax(1)
    target = torch.where(torch.arange(IMAGES) % 2 == 0, reported, goal.target)
    ladder = attack(interpreter, **changes, rungs=(4, 2), confidence=0.0, settled=1.0)
    return model, replace(goal, target=target), ladder


@cache
def all_at_once(net: str, name: str) -> Outcome:
    model, goal, staggered_attack = staggered(net, name, torch.float32)
    outcome = engine.run(staggered_attack, model, goal, BATCH_SIZE)
    assert len(set(outcome.steps.tolist())) > 1, "slots must be refilled at different times"
    return outcome


def test_order_changes_no_bit(net: str, name: str) -> None:
    model, goal, staggered_attack = staggered(net, name, torch.float32)
    order = torch.tensor([4, 2, 6, 0, 5, 1, 3])
    reordered = engine.run(staggered_attack, model, rows.take(goal, order), BATCH_SIZE)
    assert differing_fields(rows.take(all_at_once(net, name), order), reordered) == []


def test_neighbours_refills_and_idle_seats_change_no_bit(net: str, name: str) -> None:
    model, goal, staggered_attack = staggered(net, name, torch.float32)
    together = all_at_once(net, name)
    for index in ([int(together.steps.argmin())], [6, int(together.steps.argmax())]):
        few = engine.run(staggered_attack, model, rows.take(goal, torch.tensor(index)), BATCH_SIZE)
        assert differing_fields(rows.take(together, torch.tensor(index)), few) == []


def test_width_changes_nothing_but_rounding(net: str, name: str) -> None:
    """Kernels round differently at other widths; a single flipped sign would move a pixel by 1e-4 or more.

    Adam's steps follow the rounded gradients themselves.
    """
    model, goal, staggered_attack = staggered(net, name, torch.float64)
    narrow, wide = (engine.run(staggered_attack, model, goal, batch_size) for batch_size in (2, IMAGES))
    image, p = (1e-10, 1e-10) if name.endswith(ON_FLOWS) else (1e-15, 1e-13)
    torch.testing.assert_close(narrow.image, wide.image, atol=image, rtol=0)
    torch.testing.assert_close(narrow.confidence, wide.confidence, atol=p, rtol=0)
    assert torch.equal(narrow.steps, wide.steps)


def test_maps_of_an_image_are_its_own(net: str, name: str) -> None:
    model, goal, _ = staggered(net, name, torch.float32)
    order = torch.arange(IMAGES).flip(0)
    maps, reordered = (
        explainer(name, model).explain(model, g.image, g.target, g.key) for g in (goal, rows.take(goal, order))
    )
    assert torch.equal(maps[order], reordered)


def test_scores_of_an_image_are_its_own(net: str, name: str) -> None:
    """In another order to the bit; without its neighbours, to the rounding of another width."""
    model, x = classifier(net, torch.float64), images(4, dtype=torch.float64)
    keys, order = image_keys(f"image {i}" for i in range(4)), torch.tensor([2, 0, 3, 1])
    for scorer in scorers_of(name.removesuffix(ON_FLOWS).removesuffix(IN_L2), model):
        scores = score(scorer, model, x, keys)
        assert torch.equal(scores[order], score(scorer, model, x[order], keys[order])), scorer.name
        alone = torch.cat([score(scorer, model, x[i : i + 1], keys[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(scores, alone, atol=1e-9, rtol=0, msg=scorer.name)
