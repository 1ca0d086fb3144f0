"""Our own networks: the tiny classifier of the demo.

    model = Classifier(demo_classifier(), DEMO_MEAN, DEMO_STD)

It has the anatomy of its large relatives (convolutional stem, residual blocks with batch
normalisation, global average pool, one linear layer), so every interpreter applies to it.
"""

from importlib.resources import files

from jaxtyping import Float
from safetensors.torch import load
from torch import Tensor, nn

from underfire.core.types import Features, Logits

DEMO_MEAN, DEMO_STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

Normalised = Float[Tensor, "n 3 h w"]


class DemoClassifier(nn.Module):
    """Ten classes of scenes from 64 × 64 images, normalised; its features are 8 × 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.blocks = nn.Sequential(
            ResidualBlock(24, 24), ResidualBlock(24, 48, stride=2), ResidualBlock(48, 80, stride=2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(80, 10)

    def forward(self, x: Normalised) -> Logits:
        logits: Logits = self.head(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + two 3 × 3 convolutions of x); the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU()

    def forward(self, x: Features) -> Float[Tensor, "n outputs rows columns"]:
        result: Tensor = self.relu(self.shortcut(x) + self.body(x))
        return result


def demo_classifier() -> nn.Module:
    """The demo's classifier with the weights that come with the package, in evaluation mode."""
    network = DemoClassifier()
    weights = files("underfire.models") / "weights" / "demo-classifier.safetensors"
    network.load_state_dict(load(weights.read_bytes()))
    return network.eval()
