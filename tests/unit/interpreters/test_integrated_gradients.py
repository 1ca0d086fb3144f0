"""IG: its quadratures, completeness, the map of networks one can see through, and independence of the batch."""

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import NETWORKS, SMOOTH, classifier, images
from underfire.interpreters import GRAD, IG, GaussLegendre, Midpoints
from underfire.interpreters.grad import saliency
from underfire.interpreters.integrated_gradients import Quadrature, attributions, completeness_error
from underfire.models.classifier import Classifier

Y = torch.tensor([0, 3, 4])


def error(model: Classifier, x: Tensor, baseline: Tensor, quadrature: Quadrature) -> Tensor:
    shares = attributions(model, x, baseline, Y, quadrature)
    return completeness_error(model, x, baseline, Y, shares).abs()


# ------------------------------------------------------------------ quadrature


@pytest.mark.parametrize("rule", [Midpoints(5), GaussLegendre(5)], ids=str)
def test_weights_are_positive_and_sum_to_one(rule: Quadrature) -> None:
    places, weights = rule.nodes()
    assert places.dtype == weights.dtype == torch.float64
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert 0 < places.min() < places.max() < 1


def test_midpoints_integrate_lines_exactly_and_squares_to_a_twelfth_of_the_step_squared() -> None:
    places, weights = Midpoints(4).nodes()
    assert places.tolist() == [0.125, 0.375, 0.625, 0.875]
    assert float((weights * places).sum()) == 0.5
    assert float((weights * places**2).sum()) == pytest.approx(1 / 3 - 1 / (12 * 16))


def test_gauss_legendre_integrates_polynomials_of_degree_2n_minus_1_exactly() -> None:
    places, weights = GaussLegendre(3).nodes()
    moments = [float((weights * places**degree).sum()) for degree in range(7)]
    assert moments[:6] == pytest.approx([1 / (degree + 1) for degree in range(6)], abs=1e-15)
    assert moments[6] != pytest.approx(1 / 7, abs=1e-5)


# ------------------------------------------------------------------ completeness


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize("rule", [Midpoints(200), GaussLegendre(24)], ids=str)
def test_attributions_are_complete_on_smooth_networks(net: str, rule: Quadrature) -> None:
    """From black and from another image, to 1e-3 of a probability."""
    model, x = classifier(net), images(3)
    for baseline in (torch.zeros_like(x), images(3, seed=1)):
        assert error(model, x, baseline, rule).max() < 1e-3


@pytest.mark.parametrize("net", SMOOTH)
def test_the_error_of_midpoints_falls_with_the_square_of_their_number(net: str) -> None:
    model, x = classifier(net, torch.float64), images(3, dtype=torch.float64)
    coarse, fine = (error(model, x, torch.zeros_like(x), Midpoints(n)) for n in (100, 200))
    torch.testing.assert_close(fine, coarse / 4, rtol=0.1, atol=1e-7)


@pytest.mark.parametrize("net", ["tanh", "softplus"])
def test_attributions_are_the_integral_of_the_probability_s_own_gradient(net: str) -> None:
    """Against plain autograd of p at each node."""
    model, x, total = classifier(net, torch.float64), images(3, dtype=torch.float64), torch.zeros(3, 3, 16, 16).double()
    for t, weight in zip(*GaussLegendre(4).nodes(), strict=True):
        leaf = (t * x).requires_grad_()
        p = model(leaf).softmax(1).gather(1, Y[:, None]).sum()
        total += weight * torch.autograd.grad(p, leaf)[0]
    shares = attributions(model, x, torch.zeros_like(x), Y, GaussLegendre(4))
    torch.testing.assert_close(shares, x * total, rtol=1e-9, atol=1e-14)


def test_an_image_that_is_its_own_baseline_has_no_attributions() -> None:
    model, x = classifier("resnet"), images(3)
    shares = attributions(model, x, x, Y, Midpoints(2))
    assert torch.equal(shares, torch.zeros_like(x))
    assert torch.equal(completeness_error(model, x, x, Y, shares), torch.zeros(3))


# ------------------------------------------------------------------ the map


class Windows(nn.Module):
    """Logits (gain w . x + offset, 0)."""

    def __init__(self, weight: Tensor, gain: float, offset: float) -> None:
        super().__init__()
        self.weight, self.gain, self.offset = nn.Parameter(weight), gain, offset

    def forward(self, x: Tensor) -> Tensor:
        first = self.gain * (x * self.weight).sum((1, 2, 3)) + self.offset
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize(("gain", "offset"), [(1e-3, 0.0), (0.1, 0.0), (0.1, 30.0), (0.1, -60.0)])
@pytest.mark.parametrize("y", [0, 1])
def test_map_of_a_linear_network_is_its_weight_times_the_image(gain: float, offset: float, y: int) -> None:
    """However sure it is, also where p or 1 - p is 1e-26 all the way."""
    weight, x = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)), images(2)
    model = Classifier(Windows(weight, gain, offset), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    target = torch.tensor([y, y])
    maps = IG(Midpoints(3)).explain(model, x, target, target)
    torch.testing.assert_close(maps, saliency(weight * x), rtol=0, atol=1e-5)


def test_a_black_image_has_a_blank_map_from_black_and_none_from_grey() -> None:
    model, black = classifier("resnet"), torch.zeros(3, 3, 16, 16)
    assert torch.equal(IG(Midpoints(2)).explain(model, black, Y, Y), torch.zeros(3, 8, 8))
    assert (IG(Midpoints(2), level=0.5).explain(model, black, Y, Y).amax((1, 2)) == 1).all()


@pytest.mark.parametrize("net", NETWORKS)
def test_the_number_of_nodes_in_a_pass_changes_nothing_but_rounding(net: str) -> None:
    model, x = classifier(net, torch.float64), images(3, dtype=torch.float64)
    one, all_five = (
        IG(GaussLegendre(5), internal_batch_size=internal_batch_size).explain(model, x, Y, Y)
        for internal_batch_size in (1, 5)
    )
    torch.testing.assert_close(one, all_five, rtol=0, atol=1e-12)
    assert IG(internal_batch_size=1) == IG(internal_batch_size=5), "it is not part of what is computed"


def test_ig_is_not_grad() -> None:
    model, x = classifier("resnet"), images(3)
    assert (IG().explain(model, x, Y, Y) - GRAD().explain(model, x, Y, Y)).abs().mean() > 0.02
