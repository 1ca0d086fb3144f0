"""How parameters theta become an image: x = decode(x0, theta).

All clamping happens in `project`, never in `decode`, so that no gradient is cut.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.types import Images, Row


@runtime_checkable
class Perturbation(Protocol):
    """A family of images around x0, indexed by row parameters theta."""

    def init(self, x0: Images) -> Tensor:
        """The parameters that leave x0 as it is."""
        ...

    def decode(self, x0: Images, theta: Tensor) -> Images:
        """The image, differentiable in theta."""
        ...

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        """The nearest allowed parameters."""
        ...

    def cost(self, theta: Tensor) -> Row:
        """The perturbation's own loss term, differentiable."""
        ...

    def size(self, theta: Tensor) -> Row:
        """How large the perturbation is, in its own unit."""
        ...


@dataclass(frozen=True)
class Pixels:
    """x = x0 + theta with |theta| <= eps in every pixel and x in [0, 1]."""

    eps: float = 8 / 255

    def init(self, x0: Images) -> Tensor:
        return torch.zeros_like(x0)

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return x0 + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        return (x0 + theta.clamp(-self.eps, self.eps)).clamp(0, 1) - x0

    def cost(self, theta: Tensor) -> Row:
        return theta.new_zeros(len(theta))

    def size(self, theta: Tensor) -> Row:
        return theta.abs().flatten(1).amax(1)
