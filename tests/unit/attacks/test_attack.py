"""The objective is the weighted sum of its terms, and the rank puts confident successes first."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_attacks import Redness, a_goal, attack
from tiny_networks import classifier, images
from underfire.attacks.attack import Attack, CrossEntropy, Margin, SmoothedCrossEntropy
from underfire.attacks.perturbations import Pixels
from underfire.core.losses import map_distance, smoothed_cross_entropy
from underfire.core.rng import image_keys, uniform
from underfire.core.schedules import Constant, Linear
from underfire.core.types import Goal, Images, Labels, Reading, Row
from underfire.interpreters import CAM, Blind
from underfire.interpreters.protocol import NoBelief
from underfire.models.classifier import Classifier

N = 3


@dataclass(frozen=True)
class CAMWithATerm(CAM):
    """CAM whose reading carries a further loss: the mean of the image."""

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return replace(super().read(classifier, belief, x, y), terms={"brightness": x.mean((1, 2, 3))})


@dataclass(frozen=True)
class CostlyPixels(Pixels):
    def cost(self, theta: Tensor) -> Row:
        return theta.square().mean((1, 2, 3))


@pytest.fixture
def model() -> Classifier:
    return classifier("resnet", torch.float64)


@pytest.fixture
def goal(model: Classifier) -> Goal:
    return a_goal(model, CAM(), images(N, dtype=torch.float64))


def evaluate(an_attack: Attack, model: Classifier, goal: Goal, step: int) -> Any:
    theta = 0.01 * images(N, seed=5, dtype=torch.float64)
    return an_attack.objective(model, goal, NoBelief(), torch.full((N,), step))(theta)


def test_total_is_the_weighted_sum_of_all_terms_at_the_step(model: Classifier, goal: Goal) -> None:
    weights = {
        "prediction": Constant(0.5),
        "map": Linear(10.0, 20.0, 4),
        "cost": Constant(2.0),
        "brightness": Constant(-3.0),
    }
    full = Attack("full", CAMWithATerm(), CostlyPixels(), weights=weights, extra_terms=(Redness(weight=4.0),))
    terms = evaluate(full, model, goal, step=1)
    factors = {"prediction": 0.5, "map": 12.5, "cost": 2.0, "brightness": -3.0, "redness": 4.0}
    assert set(terms.parts) == set(factors)
    torch.testing.assert_close(terms.total, sum(factors[name] * part for name, part in terms.parts.items()))
    assert all(part.abs().min() > 1e-5 for part in terms.parts.values()), "every term must count"


def test_terms_are_what_their_names_say(model: Classifier, goal: Goal) -> None:
    terms = evaluate(Attack("full", CAMWithATerm(), CostlyPixels(), extra_terms=(Redness(),)), model, goal, step=0)
    theta = 0.01 * images(N, seed=5, dtype=torch.float64)
    x = goal.image + theta
    logits = model(x)
    maps = CAM().explain(model, x, goal.target, goal.key)
    expected = {
        "prediction": torch.nn.functional.cross_entropy(logits, goal.target, reduction="none"),
        "map": map_distance(maps[:, None], goal.target_map),
        "cost": theta.square().mean((1, 2, 3)),
        "brightness": x.mean((1, 2, 3)),
        "redness": x[:, 0].mean((1, 2)),
    }
    for name, part in terms.parts.items():
        torch.testing.assert_close(part, expected[name])
    torch.testing.assert_close(terms.logits, logits)
    torch.testing.assert_close(terms.total, sum(expected.values())), "a term that is not named has weight 1"


def test_plain_pgd_has_no_map_to_be_near(model: Classifier, goal: Goal) -> None:
    blind = evaluate(Attack("pgd", Blind()), model, replace(goal, target_map=torch.zeros(N, 1, 1)), step=0)
    assert torch.equal(blind.total, blind.parts["prediction"])


def test_label_smoothing_is_drawn_for_each_image_and_step(model: Classifier, goal: Goal) -> None:
    """q ~ U(1 - rho, 1), rho from .05 to .01, a function of (seed, image, step) alone."""
    smoothing = SmoothedCrossEntropy(Linear(0.05, 0.01, 4), seed=7)
    reading = CAM().read(model, NoBelief(), goal.image, goal.target)
    for step in ([0, 0, 0], [0, 2, 4]):
        steps = torch.tensor(step)
        rho = torch.tensor([0.05 - 0.01 * k for k in step], dtype=torch.float64)
        mass = 1 - rho * uniform(7, "label smoothing", goal.key, steps, 1)[:, 0]
        torch.testing.assert_close(
            smoothing(reading, goal, steps), smoothed_cross_entropy(reading.logits, goal.target, mass)
        )


def test_label_masses_fill_their_interval() -> None:
    """Two classes of equal logits and a weight on one: the loss tells q."""
    n = 2000
    keys = image_keys(map(str, range(n)))
    logits = torch.tensor([[0.0, -1.0]]).repeat(n, 1)
    target = torch.zeros(n, dtype=torch.int64)
    goal = Goal(keys, torch.zeros(n, 3, 1, 1), target, torch.zeros(n, 1, 1))
    reading = Reading(logits, logits[:, 0], torch.zeros(n, 1, 1, 1))
    loss = SmoothedCrossEntropy(Constant(0.05))(reading, goal, torch.zeros(n, dtype=torch.int64))
    log_p = logits[0].log_softmax(0)
    q = (-loss - log_p[1]) / (log_p[0] - log_p[1])
    assert q.min() >= 0.95
    assert q.max() <= 1
    torch.testing.assert_close(q.mean(), torch.tensor(0.975), rtol=0, atol=4 * 0.05 / 12**0.5 / n**0.5)
    assert q.max() - q.min() > 0.0499, "2000 draws leave no wider gap"


def test_a_margin_pulls_below_its_confidence_and_is_silent_above() -> None:
    """Log-odds 0, of .9, of .98 and of .999 against those of .98."""
    odds = torch.tensor([0.5, 0.9, 0.98, 0.999], dtype=torch.float64).logit().requires_grad_()
    logits = torch.stack([odds, torch.zeros_like(odds)], 1)
    goal = Goal(torch.zeros(4).long(), torch.zeros(4, 3, 1, 1), torch.zeros(4).long(), torch.zeros(4, 1, 1))
    loss = Margin(0.98, slope=0.3)(Reading(logits, logits[:, 0], torch.zeros(4, 1, 1, 1)), goal, goal.key)
    expected = 0.3 * torch.tensor([math.log(49), math.log(49 / 9), 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss[[0, 1, 3]].sum(), odds)
    torch.testing.assert_close(gradient, torch.tensor([-0.3, -0.3, 0.0, 0.0], dtype=torch.float64))


def test_cross_entropy_reads_the_probability_of_the_reading(model: Classifier, goal: Goal) -> None:
    reading = CAM().read(model, NoBelief(), goal.image, goal.target)
    assert torch.equal(CrossEntropy()(reading, goal, torch.zeros(N, dtype=torch.int64)), -reading.log_prob)


def logits_of(p: float, target_wins: bool) -> list[float]:
    """Logits of three classes with p on class 0, the rest on class 1, or shared so that class 0 wins."""
    rest = 1 - p
    shares = [rest / 2, rest / 2] if target_wins else [rest, 0.0]
    return torch.tensor([p, *shares]).clamp_min(1e-30).log().tolist()


def test_rank_puts_confident_successes_before_successes_before_failures() -> None:
    """Nearer maps first among either kind of success, higher p among failures."""
    iterates = [
        (logits_of(0.96, True), 0.0),
        (logits_of(0.999, True), 0.3),
        (logits_of(0.95, True), 0.9),
        (logits_of(0.94, True), 0.0),
        (logits_of(0.40, True), 0.2),
        (logits_of(0.60, True), 0.9),
        (logits_of(0.49, False), 0.0),
        (logits_of(0.20, False), 0.0),
        (logits_of(0.00, False), 1.0),
    ]
    logits = torch.tensor([row for row, _ in iterates], dtype=torch.float64)
    distances = torch.tensor([distance for _, distance in iterates], dtype=torch.float64)
    target = torch.zeros(len(iterates), dtype=torch.int64)
    ranks = attack(CAM(), confidence=0.95 - 1e-9).rank(logits, distances, target)
    assert (ranks.diff() > 0).all()


def test_what_gives_an_iterate_away_is_what_the_loss_weighs_at_the_end() -> None:
    parts = {"map": torch.tensor([0.02, 0.5, 3.0]), "redness": torch.tensor([0.3, 0.5, 3.0])}
    weights = {"map": Linear(0.0, 6.0, 4)}
    hiding = attack(CAM(), weights=weights, rungs=(4,), extra_terms=(Redness(weight=1.5),))
    at_the_end = 4.5  # the map's weight on step 3 of 4
    by_hand = (at_the_end * 0.02 + 1.5 * 0.3) / (at_the_end + 1.5)
    torch.testing.assert_close(hiding.exposure(parts), torch.tensor([by_hand, 0.5, 1.0]))
    assert torch.equal(attack(CAM()).exposure(parts), parts["map"])
    assert torch.equal(attack(CAM(), extra_terms=(Redness(weight=0.0),)).exposure(parts), parts["map"])


def test_an_iterate_that_is_not_a_number_ranks_last() -> None:
    logits = torch.tensor([[torch.nan, 0.0], [9.0, 0.0], [0.0, 9.0]])
    ranks = attack(CAM()).rank(logits, torch.tensor([0.0, torch.nan, 1.0]), torch.zeros(3, dtype=torch.int64))
    assert ranks[2] < 3
    assert ranks[:2].tolist() == [torch.inf, torch.inf]
