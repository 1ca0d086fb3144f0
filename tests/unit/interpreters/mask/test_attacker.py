"""How the attacker follows MASK's solver: rows, restarts, and how the map moves with the image."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import CLASSES, SMOOTH, classifier, images
from underfire.core import rows
from underfire.core.rng import image_keys
from underfire.interpreters import MASK, Replay, Unrolled
from underfire.interpreters.mask.attacker import PURPOSE
from underfire.interpreters.mask.solver import Solution, Solver, at_rest
from underfire.models.classifier import Classifier

KEYS = image_keys(["a", "b"])
Y = torch.tensor([1, 3])
SOLVER = Solver(steps=3)
SMALLEST = torch.finfo(torch.float32).tiny
both = pytest.mark.parametrize("attacker", [Replay(follow=2), Unrolled(follow=2, lookahead=2)], ids=str)


class Indifferent(nn.Module):
    """The same logits whatever the image."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.mean((1, 2, 3)).view(-1, 1) + torch.arange(CLASSES)


@pytest.fixture(params=SMOOTH)
def model(request: pytest.FixtureRequest) -> Classifier:
    return classifier(request.param, torch.float64)


def doubles(n: int = 2) -> Tensor:
    return images(n, dtype=torch.float64)


def random_like(x: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def midway(model: Classifier, x: Tensor) -> Solution:
    """A belief with moments of its own, whose mask nowhere touches 0 or 1."""
    start = at_rest(0.5 + 0.05 * random_like(x[:, 0, :4, :4]).clamp(-1, 1), KEYS)
    belief = SOLVER.descend(model, start, SOLVER.delete(x), Y, 2, PURPOSE)
    assert 0.1 < belief.mask.min() <= belief.mask.max() < 0.9
    return belief


# ------------------------------------------------------------------ unrolled


def test_unrolling_begins_at_the_deployed_map_with_adam_at_rest(model: Classifier) -> None:
    belief = Unrolled().begin(SOLVER, model, doubles(), Y, KEYS)
    assert torch.equal(1 - belief.mask, MASK(SOLVER).explain(model, doubles(), Y, KEYS))
    assert not any(leaf.any() for leaf in (belief.mean, belief.square, belief.step, belief.drawn))


def test_unrolling_follows_and_looks_ahead_by_the_solvers_own_iterations(model: Classifier) -> None:
    x, attacker = doubles(), Unrolled(follow=3, lookahead=4)
    start = midway(model, x)
    belief = attacker.advance(SOLVER, model, start, x, Y)
    assert torch.equal(belief.mask, SOLVER.descend(model, start, SOLVER.delete(x), Y, 3, PURPOSE).mask)
    assert belief.step.tolist() == belief.drawn.tolist() == [5, 5]
    views = attacker.read(SOLVER, model, belief, x, Y).maps
    assert views.shape[1] == 4
    for k in range(4):
        ahead = SOLVER.descend(model, belief, SOLVER.delete(x), Y, k + 1, PURPOSE)
        torch.testing.assert_close(1 - views[:, k].detach(), ahead.mask, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lookahead", [1, 6])
def test_the_unrolled_gradient_is_that_of_finite_differences(model: Classifier, lookahead: int) -> None:
    """Along random directions, through all iterations, from moments that are not zero."""
    x, attacker = doubles(), Unrolled(lookahead=lookahead)
    belief = midway(model, x)

    def loss(x: Tensor) -> Tensor:
        maps = attacker.read(SOLVER, model, belief, x, Y).maps
        return (maps * random_like(maps, 1)).sum((1, 2, 3))

    leaf, h = x.clone().requires_grad_(), 1e-6
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    for seed in range(4):
        v = random_like(x, 2 + seed)
        numeric = (loss(x + h * v) - loss(x - h * v)).detach() / (2 * h)
        assert numeric.abs().min() > 1e-4
        torch.testing.assert_close((gradient * v).sum((1, 2, 3)), numeric, rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------ replay


def test_a_replay_begins_where_the_solver_does(model: Classifier) -> None:
    belief = Replay().begin(SOLVER, model, doubles(), Y, KEYS)
    assert torch.equal(belief.mask, torch.full((2, 4, 4), 0.5, dtype=torch.float64))
    assert belief.step.tolist() == [0, 0]


def test_a_replay_starts_again_after_its_horizon_row_by_row(model: Classifier) -> None:
    """Its jitter is drawn on: the counter of draws never starts again."""
    x, attacker = doubles(), Replay(follow=2, horizon=4)
    young = attacker.advance(SOLVER, model, attacker.begin(SOLVER, model, x, Y, KEYS), x, Y)
    old = attacker.advance(SOLVER, model, young, x, Y)
    assert (young.step.tolist(), old.step.tolist()) == ([2, 2], [4, 4])
    mixed = attacker.advance(SOLVER, model, rows.where(torch.tensor([True, False]), young, old), x, Y)
    assert (mixed.step.tolist(), mixed.drawn.tolist()) == ([4, 2], [4, 6])
    again = replace(attacker.begin(SOLVER, model, x, Y, KEYS), drawn=old.drawn)
    again = SOLVER.descend(model, again, SOLVER.delete(x), Y, 2, PURPOSE)
    assert torch.equal(mixed.mask, torch.stack([old.mask[0], again.mask[1]]))


def test_a_replay_reads_its_mask_and_the_exact_prediction(model: Classifier) -> None:
    belief = midway(model, doubles())
    reading = Replay().read(SOLVER, model, belief, doubles(), Y)
    assert torch.equal(reading.maps[:, 0], 1 - belief.mask)
    assert torch.equal(reading.logits, model(doubles()))


def pulled_back(attacker: Replay, model: Classifier, belief: Solution, u: Tensor) -> Tensor:
    """(dmap/dx)^T u."""
    x = images(2, dtype=u.dtype).requires_grad_()
    reading = attacker.read(SOLVER, model, belief, x, Y)
    return torch.autograd.grad(reading.maps, x, u[:, None])[0]


def energy_gradient(model: Classifier, belief: Solution, mask: Tensor) -> Tensor:
    """dE/dx under the jitter of the next iteration."""
    x = doubles().requires_grad_()
    deletion = SOLVER.delete(x)
    energy = SOLVER.energy(model, deletion, mask, Y, SOLVER.offsets(belief, deletion, PURPOSE))
    return torch.autograd.grad(energy.sum(), x)[0]


def test_the_replayed_gradient_is_the_stated_difference(model: Classifier) -> None:
    """v = -u as the map is 1 - m'; r is 16 cells; max |h v| = delta in each row, whatever the size of v."""
    belief = midway(model, doubles())
    u = random_like(belief.mask) * torch.tensor([1e-6, 1e3], dtype=torch.float64).view(2, 1, 1)
    h = 0.02 / u.abs().amax((1, 2), keepdim=True)
    moved, here = (energy_gradient(model, belief, mask) for mask in (belief.mask + h * u, belief.mask))
    expected = 16 * (moved - here) / h[:, None]
    scale = expected.abs().amax((1, 2, 3), keepdim=True)
    assert (scale > 0).all()
    difference = pulled_back(Replay(delta=0.02), model, belief, u) - expected
    assert (difference / scale).abs().max() < 1e-9


def test_the_replayed_gradient_tends_to_the_mixed_derivative(model: Classifier) -> None:
    """r d/dx (dE/dm . u) by second-order autograd; the error of a one-sided difference halves with delta."""
    belief = midway(model, doubles())
    u = random_like(belief.mask)
    x, mask = doubles().requires_grad_(), belief.mask.clone().requires_grad_()
    deletion = SOLVER.delete(x)
    energy = SOLVER.energy(model, deletion, mask, Y, SOLVER.offsets(belief, deletion, PURPOSE))
    (slope,) = torch.autograd.grad(energy.sum(), mask, create_graph=True)
    (exact,) = torch.autograd.grad((16 * slope * u).sum(), x)
    errors = [(pulled_back(Replay(delta=delta), model, belief, u) - exact).abs().max() for delta in (2e-3, 1e-3, 1e-5)]
    assert errors[2] < 1e-3 * exact.abs().max()
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_rows_without_a_direction_do_not_move() -> None:
    model = classifier("resnet")
    belief = Replay(follow=2).advance(SOLVER, model, Replay().begin(SOLVER, model, images(2), Y, KEYS), images(2), Y)
    u = random_like(belief.mask)
    u[0] = 0
    gradient = pulled_back(Replay(), model, belief, u)
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))
    assert gradient[1].abs().max() > 0
    for tiny in (SMALLEST, 1e-42):
        assert pulled_back(Replay(), model, belief, u * tiny).isfinite().all()


# ------------------------------------------------------------------ both


@both
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_saturated_masks_have_finite_gradients(attacker: Replay | Unrolled, value: float) -> None:
    model, x = classifier("resnet"), images(2).requires_grad_()
    for belief in (
        at_rest(torch.full((2, 4, 4), value), KEYS),
        attacker.advance(SOLVER, model, at_rest(torch.full((2, 4, 4), value), KEYS), x.detach(), Y),
    ):
        reading = attacker.read(SOLVER, model, belief, x, Y)
        assert 0 <= reading.maps.min() <= reading.maps.max() <= 1
        (gradient,) = torch.autograd.grad(reading.maps.square().sum() + reading.log_prob.sum(), x)
        assert gradient.isfinite().all()


@both
def test_constant_logits_move_nothing_and_are_no_nan(attacker: Replay | Unrolled) -> None:
    model, x = Classifier(Indifferent()), images(2).requires_grad_()
    belief = attacker.advance(SOLVER, model, attacker.begin(SOLVER, model, x.detach(), Y, KEYS), x.detach(), Y)
    maps = attacker.read(SOLVER, model, belief, x, Y).maps
    (gradient,) = torch.autograd.grad(maps.square().sum(), x)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@both
def test_what_the_attacker_remembers_has_no_graph(attacker: Replay | Unrolled) -> None:
    model, x = classifier("resnet"), images(2).requires_grad_()
    belief = attacker.begin(SOLVER, model, x, Y, KEYS)
    for _ in range(2):
        belief = attacker.advance(SOLVER, model, belief, x, Y)
        assert not any(leaf.requires_grad for leaf in vars(belief).values())
