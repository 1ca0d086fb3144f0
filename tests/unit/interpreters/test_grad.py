"""GRAD: its post-processing by hand, its independence of saturation, and the map of a network one can see through."""

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import NETWORKS, classifier, images
from underfire.core.image_ops import block_mean, normalise_map
from underfire.interpreters import GRAD
from underfire.interpreters.grad import saliency
from underfire.models.classifier import Classifier

Y = torch.tensor([0, 3, 4])


def worked_example() -> Tensor:
    gradient = torch.zeros(3, 8, 8)
    gradient[0, :4, :4] = -1
    gradient[0, 0, 0] = 3
    gradient[1, :4, 4:] = 2
    gradient[2, 4:, :4] = 0.5
    return gradient


def test_post_processing_of_the_worked_example() -> None:
    expected = torch.tensor([[0.5625, 1], [0.25, 0]])
    assert torch.equal(normalise_map(block_mean(worked_example().abs().amax(0)[None], 4))[0], expected)


def test_saliency_averages_4_by_4_pixels_of_large_images() -> None:
    """The worked example in the corner of 64 by 64 pixels."""
    gradient = torch.zeros(1, 3, 64, 64)
    gradient[0, :, :8, :8] = worked_example()
    expected = torch.zeros(16, 16)
    expected[:2, :2] = torch.tensor([[0.5625, 1], [0.25, 0]])
    assert torch.equal(saliency(gradient)[0], expected)


def test_saliency_averages_2_by_2_pixels_of_small_images() -> None:
    expected = torch.tensor([[1.5, 1, 2, 2], [1, 1, 2, 2], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]]) / 2
    assert torch.equal(saliency(worked_example()[None])[0], expected)


def test_saliency_takes_the_largest_channel_and_not_their_sum() -> None:
    gradient = torch.zeros(1, 3, 4, 4)
    gradient[0, :, :2, :2] = torch.tensor([-4.0, 0.0, 0.0]).view(3, 1, 1)
    gradient[0, :, :2, 2:] = torch.tensor([1.0, -2.0, 2.0]).view(3, 1, 1)
    assert saliency(gradient).tolist() == [[[1, 0.5], [0, 0]]]


@pytest.mark.parametrize(("size", "grid"), [((224, 224), (56, 56)), ((32, 32), (16, 16)), ((64, 96), (16, 24))])
def test_maps_are_a_quarter_of_large_and_half_of_small_images(size: tuple[int, int], grid: tuple[int, int]) -> None:
    gradient = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert saliency(gradient).shape == (2, *grid)


@pytest.mark.parametrize("net", NETWORKS)
def test_map_is_that_of_the_gradient_of_the_probability_itself(net: str) -> None:
    """dp/dx = p (1 - p) do/dx: the factor goes in the normalisation (float64, where p is far from rounding to 1)."""
    model, x = classifier(net, torch.float64), images(3, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    p = model(leaf).softmax(1).gather(1, Y[:, None]).sum()
    (gradient,) = torch.autograd.grad(p, leaf)
    torch.testing.assert_close(GRAD().explain(model, x, Y, Y), saliency(gradient), rtol=0, atol=1e-10)


class Windows(nn.Module):
    """Logits (g w . x, 0): the input gradient of the log-odds is g w everywhere."""

    def __init__(self, weight: Tensor, gain: float) -> None:
        super().__init__()
        self.weight, self.gain = nn.Parameter(weight), gain

    def forward(self, x: Tensor) -> Tensor:
        first = self.gain * (x * self.weight).sum((1, 2, 3))
        return torch.stack([first, torch.zeros_like(first)], 1)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("y", [0, 1])
def test_map_of_a_linear_network_is_its_weight_however_sure_it_is(gain: float, y: int) -> None:
    weight = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = Classifier(Windows(weight, gain), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x, target = images(2), torch.tensor([y, y])
    if gain == 100:
        p = model(x).softmax(1)[:, 0]
        assert torch.equal(p, torch.ones(2)), "must saturate"
    maps = GRAD().explain(model, x, target, target)
    torch.testing.assert_close(maps, saliency(weight[None]).expand(2, -1, -1), rtol=0, atol=1e-5)
