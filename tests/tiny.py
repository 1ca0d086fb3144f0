"""A network small enough to be attacked in a second: it says which colour dominates a picture."""

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """Classes blue, green, red; features after a rectified convolution, global average pool, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def build() -> nn.Module:
    """The network with the same weights every time: each class looks for its own channel, and grey is a tie."""
    network, numbers = Tiny(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.03 * torch.randn(parameter.shape, generator=numbers))
        convolution, head = network.features[0], network.head
        for label, channel in enumerate((2, 1, 0)):
            convolution.weight[label, channel, 1, 1] += 1
            convolution.bias[label] -= 0.35
            head.weight[label, label] += 300
        head.bias -= network(torch.full((1, 3, 16, 16), 0.48))[0]
    return network
