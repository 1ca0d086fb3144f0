"""Proposition 1 on random networks, where its sides meet, and where they part."""

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import DenseNetShaped, MobileNetShaped, ResNetShaped, classifier, images, seeded
from underfire.interpreters import GaussLegendre, Midpoints
from underfire.interpreters.proposition import both_sides
from underfire.models.classifier import Classifier

BUILDS = (
    lambda: ResNetShaped(nn.Tanh()),
    lambda: ResNetShaped(nn.SiLU()),
    lambda: ResNetShaped(nn.ReLU()),
    lambda: DenseNetShaped(inplace=True),
    MobileNetShaped,
)
SMOOTH = 2  # the first of them
Y = torch.tensor([0, 3, 4])


def moved(x: Tensor, reach: float, seed: int) -> Tensor:
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    return (x + reach * (2 * noise - 1)).clamp(0, 1)


@pytest.mark.parametrize("seed", range(100))
def test_the_bound_holds_on_100_random_networks(seed: int) -> None:
    """Near and far from the benign image; up to 1e-3 on smooth networks, on others up to the quadrature's error."""
    model = classifier(seeded(BUILDS[seed % len(BUILDS)], seed), torch.float64)
    x0 = images(3, seed=seed, dtype=torch.float64)
    for reach in (0.03, 1.0):
        sides = both_sides(model, moved(x0, reach, seed), x0, Y, GaussLegendre(48))
        error = sides.completeness_error
        assert (sides.prediction_loss + error <= sides.interpretation_loss + 1e-12).all()
        if seed % len(BUILDS) < SMOOTH:
            assert error.abs().max() < 1e-3
            assert (sides.prediction_loss <= sides.interpretation_loss + 1e-3).all()
        assert sides.interpretation_loss.min() > 0


def test_both_sides_are_0_at_the_benign_image() -> None:
    x = images(3)
    sides = both_sides(classifier("resnet"), x, x, Y, Midpoints(4))
    for side in vars(sides).values():
        assert torch.equal(side, torch.zeros(3))


class Linear(nn.Module):
    """Logits (w . x, 0)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        first = (x * self.weight).sum((1, 2, 3))
        return torch.stack([first, torch.zeros_like(first)], 1)


def linear(seed: int = 0) -> tuple[Classifier, Tensor]:
    weight = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / 16
    return Classifier(Linear(weight), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), weight


def test_the_sides_meet_where_every_pixel_moves_the_way_the_probability_rises() -> None:
    model, weight = linear()
    x0 = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    sides = both_sides(model, x0 + 0.1 * weight.sign(), x0, torch.tensor([0]), GaussLegendre(12))
    assert sides.prediction_loss.item() > 0.1
    torch.testing.assert_close(sides.prediction_loss, sides.interpretation_loss, rtol=1e-6, atol=0)


def test_they_part_where_pixels_work_against_each_other() -> None:
    """A move across the gradient changes nothing that is predicted."""
    model, weight = linear()
    x0 = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    across = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    across -= weight * (across * weight).sum() / weight.square().sum()
    sides = both_sides(model, x0 + 0.1 * across, x0, torch.tensor([0]), GaussLegendre(12))
    assert sides.prediction_loss.abs().item() < 1e-9
    assert sides.interpretation_loss.item() > 0.1


def test_a_falling_probability_is_a_negative_prediction_loss() -> None:
    model, weight = linear()
    x0 = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    sides = both_sides(model, x0 - 0.1 * weight.sign(), x0, torch.tensor([0]), GaussLegendre(12))
    torch.testing.assert_close(sides.prediction_loss, -sides.interpretation_loss, rtol=1e-6, atol=0)
