"""The input gradient of the log-odds, and the two ways to differentiate it once more."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import NETWORKS, SMOOTH, classifier, images, seeded
from underfire.core.losses import log_odds
from underfire.interpreters import FiniteDifferences, OneSidedDifferences, SmoothedReLU
from underfire.interpreters.input_gradients import InputGradient, exact_gradient
from underfire.models.classifier import Classifier

Y = torch.tensor([1, 3])
SCHEMES = [FiniteDifferences(), OneSidedDifferences(), SmoothedReLU()]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
differences = pytest.mark.parametrize("scheme", SCHEMES[:2], ids=lambda s: type(s).__name__)
every_network = pytest.mark.parametrize("net", [*NETWORKS, *SMOOTH])


def random_like(x: Tensor, seed: int) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


@every_network
def test_exact_gradient_is_autograds(net: str) -> None:
    model, x = classifier(net), images(2).requires_grad_()
    logits, odds, gradient = exact_gradient(model, x, Y)
    p = model(x).double().softmax(1).gather(1, Y[:, None])[:, 0]
    torch.testing.assert_close(odds.double(), torch.logit(p).detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(gradient, torch.autograd.grad(log_odds(model(x), Y).sum(), x)[0])
    assert not any(value.requires_grad for value in (logits, odds, gradient))
    with torch.no_grad():
        assert torch.equal(exact_gradient(model, x, Y)[2], gradient)


@every_network
@differences
def test_differences_leave_the_gradient_itself_exact(net: str, scheme: InputGradient) -> None:
    model, x = classifier(net), images(2)
    for own, exact in zip(scheme(model, x.clone().requires_grad_(), Y), exact_gradient(model, x, Y), strict=True):
        assert torch.equal(own.detach(), exact)


@every_scheme
def test_whoever_follows_no_gradient_reads_the_same(scheme: InputGradient) -> None:
    model, x = classifier("resnet"), images(2)
    followed = scheme(model, x.clone().requires_grad_(), Y)
    with torch.no_grad():
        for own, same in zip(scheme(model, x, Y), followed, strict=True):
            assert torch.equal(own, same.detach())
            assert not own.requires_grad


@every_network
@every_scheme
def test_losses_of_logits_and_odds_are_differentiated_through_the_exact_network(
    net: str, scheme: InputGradient
) -> None:
    """Label smoothing reads the logits, cross-entropy the log-odds; only the order of summation differs."""
    model, x = classifier(net, torch.float64), images(2, dtype=torch.float64).requires_grad_()
    logits, odds, _ = scheme(model, x, Y)
    (gradient,) = torch.autograd.grad(logits.cos().sum() + odds.square().sum(), x)
    exact = model(x)
    (expected,) = torch.autograd.grad(exact.cos().sum() + log_odds(exact, Y).square().sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize(("kind", "order"), [(FiniteDifferences, 2), (OneSidedDifferences, 1)])
def test_error_falls_with_the_order_of_the_scheme(net: str, kind: type, order: int) -> None:
    """Halving delta divides the error by 2 or by 4; the next term of the series is within 10 % at delta = 1e-3."""
    model, x = classifier(net, torch.float64), images(2, dtype=torch.float64).requires_grad_()
    u = random_like(x, 0)
    (gradient,) = torch.autograd.grad(log_odds(model(x), Y).sum(), x, create_graph=True)
    (exact,) = torch.autograd.grad(gradient, x, u)
    errors = []
    for delta in (1e-3, 5e-4):
        (estimate,) = torch.autograd.grad(kind(delta)(model, x, Y)[2], x, u)
        errors.append((estimate - exact).abs().amax((1, 2, 3)))
    torch.testing.assert_close(errors[0] / errors[1], torch.full((2,), 2.0**order, dtype=x.dtype), rtol=0.1, atol=0)


@pytest.mark.parametrize("delta", [0.01, 0.1])
def test_differences_of_squares_are_known(delta: float) -> None:
    """g = x^2: the central difference is 2xu exactly, the one-sided one is off by h u^2, max |hu| = delta."""
    x = images(3, dtype=torch.float64)
    u = random_like(x, 0) * torch.tensor([1e-8, 1.0, 1e8], dtype=x.dtype).view(3, 1, 1, 1)
    h = delta / u.abs().amax((1, 2, 3), keepdim=True)
    central = FiniteDifferences(delta).curvature(torch.square, x, u, x.square())
    one_sided = OneSidedDifferences(delta).curvature(torch.square, x, u, x.square())
    scale = u.abs().amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(central / scale, 2 * x * u / scale, rtol=0, atol=1e-13)
    torch.testing.assert_close(one_sided / scale, (2 * x * u + h * u.square()) / scale, rtol=0, atol=1e-13)


@differences
def test_steps_reach_delta_in_every_image_and_no_further(scheme: FiniteDifferences) -> None:
    x = images(3, dtype=torch.float64)
    u = random_like(x, 0) * torch.tensor([1e-8, 1.0, 1e8], dtype=x.dtype).view(3, 1, 1, 1)
    reached: list[Tensor] = []

    def gradient_at(point: Tensor) -> Tensor:
        reached.append((point - x).abs().amax((1, 2, 3)))
        return point

    scheme.curvature(gradient_at, x, u, x)
    assert len(reached) == (2 if isinstance(scheme, FiniteDifferences) else 1)
    for distance in reached:
        torch.testing.assert_close(distance, torch.full_like(distance, scheme.delta), rtol=1e-12, atol=0)


@differences
def test_an_image_without_a_direction_gets_no_curvature(scheme: FiniteDifferences) -> None:
    """Zero where the map's gradient is zero, finite where it is almost zero: never NaN."""
    x = images(3)
    u = random_like(x, 0) * torch.tensor([0.0, 1e-42, 1.0]).view(3, 1, 1, 1)
    curvature = scheme.curvature(torch.square, x, u, x.square())
    assert torch.equal(curvature[0], torch.zeros_like(x[0]))
    assert curvature.isfinite().all()
    assert curvature[2].abs().max() > 0.1


class Convolution(nn.Module):
    """One convolution of any geometry, tanh, pool, linear: smooth, and without a ReLU."""

    def __init__(self, **geometry: Any) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 3, **geometry)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(self.stem(x).tanh()).tanh().mean((2, 3)))


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"bias": False},
        {"stride": 2, "padding": 1},
        {"stride": (3, 1), "padding": (0, 2)},
        {"dilation": 2, "padding": "same"},
        {"padding": "valid"},
        {"padding": 1, "padding_mode": "reflect"},
        {"groups": 4, "stride": 2},
        {"groups": 2, "dilation": (1, 3)},
    ],
    ids=str,
)
def test_smoothing_takes_the_second_derivative_of_every_convolution(geometry: dict[str, Any]) -> None:
    """Without a ReLU it is plain second-order autograd, summed in another order."""
    model = classifier(seeded(lambda: Convolution(**geometry)), torch.float64)
    x = images(2, dtype=torch.float64).requires_grad_()
    y = torch.tensor([1, 3])
    u = random_like(x, 0)
    (exact,) = torch.autograd.grad(log_odds(model(x), y).sum(), x, create_graph=True)
    smoothed = SmoothedReLU()(model, x, y)[2]
    torch.testing.assert_close(smoothed, exact, rtol=1e-10, atol=1e-13)
    curvatures = [torch.autograd.grad(gradient, x, u)[0] for gradient in (smoothed, exact)]
    torch.testing.assert_close(*curvatures, rtol=1e-10, atol=1e-13)
    assert curvatures[0].abs().max() > 1e-5


class TwoColours(nn.Module):
    """Logits (g r, -g r) of the mean red r: log-odds of 2 g r, as sure of itself as one likes."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        red = self.gain * x[:, 0].mean((1, 2))
        return torch.stack([red, -red], 1)


@pytest.mark.parametrize("gain", [1.0, 1e4])
@every_scheme
def test_the_gradient_survives_saturation(gain: float, scheme: InputGradient) -> None:
    """do/dx = 2 g / cells in red and 0 elsewhere, although p rounds to 1 at the larger gain."""
    model = Classifier(TwoColours(gain), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x = images(2).requires_grad_()
    gradient = scheme(model, x, torch.tensor([0, 0]))[2].detach()
    expected = torch.zeros_like(gradient)
    expected[:, 0] = 2 * gain / 16**2
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("net", NETWORKS)
@every_scheme
def test_having_looked_for_features_changes_no_derivative(net: str, scheme: InputGradient) -> None:
    """An attack on GRAD after one on CAM with the same classifier is the same attack."""
    x = images(2).requires_grad_()
    before, after = classifier(net), classifier(net)
    after.locate_features(x)
    results = []
    for model in (before, after):
        gradient = scheme(model, x, Y)[2]
        results.append((gradient.detach(), *torch.autograd.grad(gradient.square().sum(), x)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
