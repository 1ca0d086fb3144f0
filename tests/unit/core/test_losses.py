"""Losses: exact where p saturates, minimal where they should be, one number per image."""

import math

import pytest
import torch
from torch import Tensor

from underfire.core.losses import (
    confidence,
    cross_entropy,
    log_odds,
    map_distance,
    mask_terms,
    roughness,
    smoothed_cross_entropy,
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGET = torch.tensor([4, 0, 2])


def test_log_odds_are_the_logit_of_the_probability() -> None:
    logits = random(3, 5)
    p = logits.softmax(1).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(log_odds(logits, TARGET), (p / (1 - p)).log())
    torch.testing.assert_close(confidence(logits, TARGET), p)


def test_two_classes_have_the_difference_of_their_logits() -> None:
    torch.testing.assert_close(log_odds(torch.tensor([[3.0, -4.0]]), torch.tensor([0])), torch.tensor([7.0]))


@pytest.mark.parametrize("gap", [-1e4, -100.0, 100.0, 1e4])
def test_log_odds_are_exact_where_p_rounds_to_0_or_1(gap: float) -> None:
    """In float32 the gradient is that of float64, and nowhere zero; log p itself would have none above."""
    logits = torch.tensor([[gap, 0.0, -1.0]])
    values, gradients = {}, {}
    for dtype in (torch.float32, torch.float64):
        leaf = logits.to(dtype, copy=True).requires_grad_()
        odds = log_odds(leaf, torch.tensor([0]))
        (gradient,) = torch.autograd.grad(odds.sum(), leaf)
        values[dtype], gradients[dtype] = odds.detach().double(), gradient.double()
    torch.testing.assert_close(values[torch.float32], values[torch.float64], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients[torch.float32], gradients[torch.float64], rtol=1e-6, atol=0)
    assert (gradients[torch.float32] != 0).all()
    expected = torch.tensor([[1, -1 / (1 + math.exp(-1)), -1 / (1 + math.exp(1))]], dtype=torch.float64)
    torch.testing.assert_close(gradients[torch.float64], expected)


def test_cross_entropy_is_minus_log_p() -> None:
    logits = random(3, 5)
    log_p = logits.log_softmax(1).gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(
        cross_entropy(log_p), torch.nn.functional.cross_entropy(logits, TARGET, reduction="none")
    )


@pytest.mark.parametrize("mass", [0.5, 0.95, 0.99, 1.0])
def test_smoothed_cross_entropy_is_torchs_with_soft_labels(mass: float) -> None:
    logits = random(3, 5)
    soft = torch.full_like(logits, (1 - mass) / 4).scatter_(1, TARGET[:, None], mass)
    expected = torch.nn.functional.cross_entropy(logits, soft, reduction="none")
    own = smoothed_cross_entropy(logits, TARGET, torch.full((3,), mass, dtype=torch.float64))
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("q", [0.6, 0.95])
def test_smoothed_cross_entropy_is_minimal_where_p_is_the_mass(q: float) -> None:
    """It exceeds the entropy of the labels by the divergence of p from them: zero there, positive elsewhere."""
    p = torch.tensor([[q, *[(1 - q) / 9] * 9]], dtype=torch.float64)
    logits, mass, target = p.log().requires_grad_(), torch.tensor([q], dtype=torch.float64), torch.tensor([0])
    least = smoothed_cross_entropy(logits, target, mass)
    (gradient,) = torch.autograd.grad(least.sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-15)
    torch.testing.assert_close(least.detach(), -(p * p.log()).sum(1))
    others = logits.detach() + 0.1 * random(20, 10)
    assert (smoothed_cross_entropy(others, target.repeat(20), mass.repeat(20)) > least).all()


@pytest.mark.parametrize("q", [0.1, 0.95, 1.0])
def test_smoothed_cross_entropy_of_the_uniform_prediction(q: float) -> None:
    own = smoothed_cross_entropy(torch.zeros(1, 10), torch.tensor([3]), torch.tensor([q]))
    torch.testing.assert_close(own, torch.tensor([math.log(10)]))


def test_map_distance_is_the_mean_over_cells_and_views() -> None:
    views = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]], [[1.0, 1.0], [1.0, 1.0]]]])
    target = torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    by_hand = ((0 + 1 + 0 + 0.25) / 4 + (1 + 1 + 0.25 + 0) / 4) / 2
    torch.testing.assert_close(map_distance(views, target), torch.tensor([by_hand]))


def test_a_blank_map_of_one_cell_is_compared_with_every_cell() -> None:
    target = torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    torch.testing.assert_close(map_distance(torch.zeros(1, 1, 1, 1), target), torch.tensor([1.25 / 4]))


def test_roughness_is_the_mean_square_of_steps_between_neighbours() -> None:
    """One cell of height 2 in the interior of 4 × 5 has two steps down and two along; a constant has none."""
    masks = torch.zeros(2, 4, 5)
    masks[0, 1, 2] = 2
    masks[1] = 0.7
    torch.testing.assert_close(roughness(masks), torch.tensor([2 * 4 / 15 + 2 * 4 / 16, 0.0]))


def test_terms_of_eq_8() -> None:
    masks, kept, removed = random(3, 4, 4).sigmoid(), random(3, 5, seed=1), random(3, 5, seed=2)
    terms = mask_terms(masks, kept, removed, TARGET, exponent=0.3)
    p_kept, p_removed = (z.softmax(1).gather(1, TARGET[:, None])[:, 0] for z in (kept, removed))
    assert list(terms) == ["roughness", "area", "kept", "removed"]
    torch.testing.assert_close(terms["roughness"], roughness(masks))
    torch.testing.assert_close(terms["area"], masks.mean((1, 2)))
    torch.testing.assert_close(terms["kept"], -p_kept.log())
    torch.testing.assert_close(terms["removed"], p_removed**0.3)


def test_the_removed_part_has_a_gradient_where_its_confidence_is_gone() -> None:
    """p^0.3 itself has an infinite slope at p = 0."""
    removed = torch.tensor([[-200.0, 0.0]], requires_grad=True)
    term = mask_terms(torch.zeros(1, 2, 2), torch.zeros(1, 2), removed, torch.tensor([0]), 0.3)["removed"]
    (gradient,) = torch.autograd.grad(term.sum(), removed)
    assert gradient.isfinite().all()
