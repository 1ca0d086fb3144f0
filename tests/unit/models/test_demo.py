"""The demo classifier: its anatomy, its size, and what its shipped weights know."""

from importlib.resources import files

import pytest
import torch
from torch import nn

from underfire.data.scenes import CLASSES, scenes
from underfire.models.demo import DemoClassifier, ResidualBlock, demo_classifier
from underfire.training.demo import accuracy, normalise


@pytest.fixture(scope="module")
def shipped() -> nn.Module:
    return demo_classifier()


def test_features_are_8_by_8_and_feed_pool_and_head() -> None:
    network = DemoClassifier().eval()
    x = torch.rand(2, 3, 64, 64)
    features = network.blocks(network.stem(x))
    assert features.shape == (2, 80, 8, 8)
    assert features.min() >= 0
    logits = features.mean((2, 3)) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(x), logits)
    assert logits.shape == (2, len(CLASSES))


@pytest.mark.parametrize(("outputs", "stride", "shape"), [(8, 1, (2, 8, 6, 6)), (12, 2, (2, 12, 3, 3))])
def test_residual_block_adds_its_shortcut(outputs: int, stride: int, shape: tuple[int, ...]) -> None:
    block = ResidualBlock(8, outputs, stride).eval()
    x = torch.randn(2, 8, 6, 6)
    assert block(x).shape == shape
    torch.testing.assert_close(block(x), (block.shortcut(x) + block.body(x)).relu())


def test_weights_are_small_and_in_evaluation_mode(shipped: nn.Module) -> None:
    weights = files("underfire.models") / "weights" / "demo-classifier.safetensors"
    assert len(weights.read_bytes()) < 1_000_000
    assert sum(p.numel() for p in shipped.parameters()) <= 250_000
    assert not any(module.training for module in shipped.modules())


def test_shipped_weights_classify_scenes_never_seen(shipped: nn.Module) -> None:
    assert accuracy(shipped, scenes(500, seed=4321).samples) >= 0.97


def test_shipped_confidences_are_neither_flat_nor_saturated(shipped: nn.Module) -> None:
    with torch.no_grad():
        probabilities = shipped(normalise(scenes(200, seed=4321).samples.images)).softmax(1)
    assert 0.8 < probabilities.amax(1).median() < 0.999
