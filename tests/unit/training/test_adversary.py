"""AID's parts: losses against their definitions and finite differences, turns, and an adversary that is ADV2."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tiny_crew import Staff
from tiny_maskers import tiny_masker, tiny_rts
from tiny_networks import classifier, images
from underfire.attacks import solvers
from underfire.attacks.api import adv2
from underfire.core.image_ops import cell_grid
from underfire.core.losses import map_distance
from underfire.core.rng import image_keys
from underfire.metrics.maps import map_l1
from underfire.training.adversary import Adversary, Alternation, Turn, distillation, excess_drift, rank

KEYS = image_keys(map(str, range(4)))


def random(seed: int) -> Tensor:
    return torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------ losses


def test_distance_counts_up_to_the_margin() -> None:
    a, b = random(0), random(1)
    distances = map_l1(a, b)
    assert torch.equal(distillation(a, b, 1.0), -distances)
    margin = distances.median().item()
    assert torch.equal(distillation(a, b, margin), -distances.clamp(max=margin))


def test_beyond_the_margin_nothing_pulls() -> None:
    a, b = random(0).requires_grad_(), random(1)
    margin = map_l1(a, b).median().item()
    (gradient,) = torch.autograd.grad(distillation(a, b, margin).sum(), a)
    distances = map_l1(a, b).detach()
    assert gradient[distances > margin].abs().max() == 0
    assert gradient[distances < margin].abs().min() > 0


def test_drift_costs_what_exceeds_the_allowance() -> None:
    a, b = random(0), random(1)
    allowed = map_l1(a, b).median().item()
    assert torch.equal(excess_drift(a, b, 0.0), map_l1(a, b))
    assert torch.equal(excess_drift(a, b, allowed) > 0, map_l1(a, b) > allowed)
    assert excess_drift(a, b, 1.0).max() == 0


def test_gradient_in_the_weights_is_that_of_finite_differences() -> None:
    """l_aid + 3 l_fid through a whole masker on a smooth classifier, along ten directions in all its weights."""
    model = classifier("tanh", torch.float64)
    manifest, network = tiny_masker(model)
    network, x = network.double(), images(4, dtype=torch.float64)
    attacked = (x + 0.1 * images(4, seed=7, dtype=torch.float64)).clamp(0, 1)
    y, target = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 3, 0, 1])
    with torch.no_grad():
        benign, other = (model.tap(each, manifest.encoder.layers)[1] for each in (x, attacked))
    grid, original = cell_grid(x), random(3)

    def loss() -> Tensor:
        maps, moved = network(benign, y, *grid), network(other, target, *grid)
        return (distillation(maps, moved, 0.3) + 3 * excess_drift(maps, original, 0.05)).sum()

    weights = list(network.parameters())
    gradient = torch.autograd.grad(loss(), weights)
    h, generator = 1e-7, torch.Generator().manual_seed(0)
    for _ in range(10):
        direction = [torch.randn(w.shape, generator=generator, dtype=torch.float64) for w in weights]
        analytic = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        values = []
        with torch.no_grad():
            for factor in (h, -2 * h):
                for weight, d in zip(weights, direction, strict=True):
                    weight.add_(factor * d)
                values.append(loss())
            for weight, d in zip(weights, direction, strict=True):
                weight.add_(h * d)
        torch.testing.assert_close(analytic, (values[0] - values[1]) / (2 * h), rtol=1e-5, atol=1e-6)


def test_the_largest_separation_within_the_allowed_drift_ranks_first() -> None:
    better_first = [(0.05, 0.3), (0.01, 0.2), (0.0, 0.0), (0.06, 0.1), (0.2, 0.9)]
    ranks = [rank(drift, separation, 0.05) for drift, separation in better_first]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)


# ------------------------------------------------------------------ turns


@pytest.mark.parametrize(("plain", "defending"), [(1, 1), (3, 1), (1, 2), (0, 1), (2, 3)])
def test_turns_come_in_the_ratio_and_are_counted(plain: int, defending: int) -> None:
    turns = [Alternation(plain, defending)(step) for step in range(4 * (plain + defending))]
    assert [turn.defends for turn in turns] == 4 * (plain * [False] + defending * [True])
    for kind, each in ((False, plain), (True, defending)):
        assert [turn.count for turn in turns if turn.defends is kind] == list(range(4 * each))
    assert Alternation()(3) == Turn(True, 1)


# ------------------------------------------------------------------ the adversary


def test_the_adversary_is_adv2_after_its_warm_start() -> None:
    """Images of the public attack are keyed by their place, as here."""
    model = classifier("resnet")
    interpreter, adversary = tiny_rts(model), Adversary(model, eps=6 / 255, seed=3)
    batch = adversary.batch_of(images(4), KEYS)
    assert (batch.target != batch.label).all()
    outcome = adversary.attack(interpreter, batch, 5, adversary.warm_up(batch))
    expected = adv2(model, interpreter, eps=6 / 255, steps=5, seed=3, batch=4)(images(4), batch.target)
    assert torch.equal(outcome.image, expected.adversarial)
    assert torch.equal(adversary.decode(batch, outcome.theta), outcome.image)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_crew_changes_no_bit(at_once: int) -> None:
    """Parts of a size that does not divide the batch, by two workers or by this process."""
    model = classifier("resnet")
    crew = Staff(2, model)
    outcomes = []
    for who in (None, crew):
        adversary = Adversary(model, seed=3, at_once=at_once, crew=who)
        batch = adversary.batch_of(images(4), KEYS)
        outcomes.append(adversary.attack(tiny_rts(model), batch, 3, adversary.warm_up(batch)))
    assert crew.most == 2
    alone, shared = outcomes
    assert all(torch.equal(value, vars(shared)[name]) for name, value in vars(alone).items())


def test_an_attack_goes_on_from_where_it_stopped() -> None:
    """The first iterate counts too: where the masker is the same, no image is shown worse than before."""
    model = classifier("tanh")
    interpreter, adversary = tiny_rts(model), Adversary(model, eps=32 / 255)
    batch = adversary.batch_of(images(4), KEYS)
    benign = interpreter.explain(model, batch.image, batch.label, KEYS)
    start, ranks = adversary.warm_up(batch), []
    for _ in range(3):
        with torch.no_grad():
            outcome = adversary.attack(interpreter, batch, 5, start)
            maps = interpreter.explain(model, outcome.image, batch.target, KEYS)
            distances = map_distance(maps[:, None], benign)
            ranks.append(solvers.adv2(interpreter).rank(model(outcome.image), distances, batch.target))
        start = outcome.theta
    for sooner, later in pairwise(ranks):
        assert (later <= sooner).all()
        assert later.mean() < sooner.mean()
