"""Small networks with the anatomy of the large ones: random weights, the same in every run.

model = classifier("resnet")             # 16 × 16 images, 5 classes, features of 4 × 4 cells
x, goal = images(3), a_goal(model, CAM(), images(3))
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underfire.models.classifier import Classifier

CLASSES = 5
MEAN, STD = (0.45, 0.5, 0.55), (0.2, 0.25, 0.3)


class SqueezeNetShaped(nn.Module):
    """Class convolution, ReLU, global pool: logits are never negative and no linear layer exists."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
        self.squeeze, self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(12, CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.squeeze(self.features(x)))
        x = torch.cat([self.activation(self.left(x)), self.activation(self.right(x))], 1)
        return self.classifier(x).flatten(1)


class ResNetShaped(nn.Module):
    """A residual block and a linear head; one activation module serves every place."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.stem, self.bn1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv, self.bn2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12)
        self.body, self.bn3 = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.relu = activation
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.stem(x)))
        x = self.relu(self.bn2(self.conv(x)))
        x = self.relu(x + self.bn3(self.body(x)))
        return self.fc(self.avgpool(x).flatten(1))


class DenseNetShaped(nn.Module):
    """Concatenated features, then a functional ReLU, in place or not, right before the functional pool."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.AvgPool2d(2), _Grow(8), _Grow(12), nn.BatchNorm2d(16)
        )
        self.inplace, self.classifier = inplace, nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=self.inplace)
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


class _Grow(nn.Module):
    """x and four new channels made of it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class MobileNetShaped(nn.Module):
    """Depthwise convolution, ReLU6, functional pool, dropout before the linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class VGGShaped(nn.Module):
    """No global pool: CAM does not apply; the last ReLU of `features` serves Grad-CAM."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU()
        )
        self.classifier = nn.Sequential(nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class TransformerShaped(nn.Module):
    """Convolutions make 4 × 4 tokens of 16 × 16 pixels; behind a class token they look at each other twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.GELU(), nn.Conv2d(8, 12, 2, 2))
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 17, 12) / 2)
        self.layers = nn.Sequential(*(_layer() for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.layers(tokens))[:, 0])


def _layer() -> nn.Module:
    return nn.TransformerEncoderLayer(12, 2, 24, activation="gelu", batch_first=True, norm_first=True)


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "squeezenet": SqueezeNetShaped,
    "resnet": lambda: ResNetShaped(nn.ReLU(inplace=True)),
    "densenet": lambda: DenseNetShaped(inplace=True),
    "densenet-copying": lambda: DenseNetShaped(inplace=False),
    "mobilenet": MobileNetShaped,
}
SMOOTH: Mapping[str, Callable[[], nn.Module]] = {
    "tanh": lambda: ResNetShaped(nn.Tanh()),
    "softplus": lambda: ResNetShaped(nn.Softplus()),
    "silu": lambda: ResNetShaped(nn.SiLU()),
}


TRANSFORMERS: Mapping[str, Callable[[], nn.Module]] = {"transformer": TransformerShaped}


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network that `build` makes, in evaluation mode, with every bias and statistic random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build().eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.2, 0.6)
                nn.init.uniform_(module.weight, 0.7, 1.3)
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, mean=0.2, std=0.3)
    return net


def network(name: str) -> nn.Module:
    return seeded((NETWORKS | SMOOTH | TRANSFORMERS)[name])


def classifier(net: str | nn.Module, dtype: torch.dtype = torch.float32) -> Classifier:
    return Classifier((network(net) if isinstance(net, str) else net).to(dtype), MEAN, STD)


def images(n: int, side: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Coarse random blobs under fine noise, so that neither maps nor logits are alike; pixels reach 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator, dtype=torch.float64)
    fine = torch.rand(n, 3, side, side, generator=generator, dtype=torch.float64)
    blobs = F.interpolate(coarse, size=(side, side), mode="nearest")
    return (1.2 * (0.7 * blobs + 0.3 * fine) - 0.1).clamp(0, 1).to(dtype)
