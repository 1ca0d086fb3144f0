"""How parameters theta become an image: x = decode(x0, theta).

All clamping happens in `project`, never in `decode`, so that no gradient is cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.core.checks import check_budget, check_number
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import sample
from underfire.core.types import Flows, Images, Row
from underfire.detection.squeezers import BitDepth

ROUNDING = 1e-4  # in steps of 8 bits, by which a bound may miss the step that it means


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

    def measures(self, theta: Tensor) -> Mapping[str, Row]:
        """What a table should hold of it beside the change of the pixels, by column."""
        ...


class Added:
    """What perturbations share whose theta is added to an image: it begins at 0, costs nothing and has a peak."""

    def init(self, x0: Images) -> Tensor:
        return torch.zeros_like(x0)

    def cost(self, theta: Tensor) -> Row:
        return theta.new_zeros(len(theta))

    def size(self, theta: Tensor) -> Row:
        return theta.abs().flatten(1).amax(1)

    def measures(self, theta: Tensor) -> Mapping[str, Row]:
        return {}


@dataclass(frozen=True)
class Pixels(Added):
    """x = x0 + theta with |theta| <= eps in every pixel and x in [0, 1]."""

    eps: float = 8 / 255

    def __post_init__(self) -> None:
        check_budget(self.eps)

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return x0 + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        return (x0 + theta.clamp(-self.eps, self.eps)).clamp(0, 1) - x0


@dataclass(frozen=True)
class GridPixels(Pixels):
    """The images of `Pixels` that 8 bits hold: every value is k / 255, the nearest to x0 + theta within the ball.

    Rounding lets the gradient through. UnderfireError for an eps that leaves some values no such k.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if round(255 * self.eps, 6) < 0.5:
            raise UnderfireError(
                f"eps is {self.eps:g}, less than half a step of 8 bits; leave out on_grid (--on-grid)."
            )

    def decode(self, x0: Images, theta: Tensor) -> Images:
        x = x0 + theta
        return x + ((255 * x).round() / 255 - x).detach()

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        low = (255 * (x0 - self.eps).clamp_min(0) - ROUNDING).ceil() / 255
        high = (255 * (x0 + self.eps).clamp_max(1) + ROUNDING).floor() / 255
        return (x0 + theta).clamp(low, high) - x0


@dataclass(frozen=True)
class L2Ball(Added):
    """x = x0 + theta with |theta|_2 <= eps over all values of an image, and x in [0, 1].

    What leaves the ball is shortened, then cut to [0, 1], which moves no value further from x0.
    """

    eps: float = 1.0

    def __post_init__(self) -> None:
        check_number("eps", self.eps, least=0.0)

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return x0 + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        shorter = (self.eps / self.size(theta).clamp_min(torch.finfo(theta.dtype).tiny)).clamp_max(1)
        return (x0 + theta * shorter.view(-1, 1, 1, 1)).clamp(0, 1) - x0

    def size(self, theta: Tensor) -> Row:
        length: Tensor = theta.flatten(1).norm(dim=1)
        return length


@dataclass(frozen=True)
class Levels(Added):
    """x = psi(x0) + theta, every value one of 2^bits levels that psi(x') takes for some x' within eps of x0 (Alg. 2).

    A step of more than half the distance of two levels, such as 1 / 2^bits, moves a value by one level.
    """

    bits: int
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        BitDepth(self.bits)
        check_budget(self.eps)

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return self._nearest(x0) + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        squeezed = self._nearest(x0)
        low, high = (self._nearest((x0 + change).clamp(0, 1)) for change in (-self.eps, self.eps))
        return self._nearest(squeezed + theta).clamp(low, high) - squeezed

    def _nearest(self, images: Images) -> Images:
        return BitDepth(self.bits)(images)


@dataclass(frozen=True)
class Flow:
    """Every pixel i is taken from i + r_i, bilinear (StAdv, Xiao et al. 2018); theta = r in pixels, within the image.

    The image is a mix of the pixels of x0, so it needs no bound. The cost keeps neighbours together:

        l_flow = sum over i and j in N(i) of sqrt(|r_i - r_j|^2 + floor^2) - floor                         (Eq. 14)

    N(i) are the 4 adjacent pixels, so each pair counts twice. The floor, in pixels, is far below a step of the
    attack; it makes the root differentiable where neighbours agree, and taken off again it leaves a rigid flow free.
    """

    floor: float = 1e-4

    def __post_init__(self) -> None:
        check_number("The floor of a flow's cost", self.floor, above=0.0)

    def init(self, x0: Images) -> Flows:
        return torch.zeros_like(x0[:, :2])

    def decode(self, x0: Images, theta: Flows) -> Images:
        return sample(x0, theta)

    def project(self, x0: Images, theta: Flows) -> Flows:
        height, width = x0.shape[2:]
        down, along = theta.unbind(1)
        row = torch.arange(height, device=x0.device, dtype=theta.dtype)[:, None]
        column = torch.arange(width, device=x0.device, dtype=theta.dtype)
        return torch.stack([down.clamp(-row, height - 1 - row), along.clamp(-column, width - 1 - column)], 1)

    def cost(self, theta: Flows) -> Row:
        pairs = [theta.diff(dim=axis).square().sum(1).flatten(1) for axis in (2, 3)]
        squared = torch.cat(pairs, 1)
        lengths: Tensor = 2 * squared / ((squared + self.floor**2).sqrt() + self.floor)  # the same, without cancelling
        return lengths.sum(1)

    def size(self, theta: Flows) -> Row:
        """Mean distance, in pixels, over which a pixel is taken."""
        return theta.square().sum(1).sqrt().flatten(1).mean(1)

    def measures(self, theta: Flows) -> Mapping[str, Row]:
        return {"flow_mean": self.size(theta), "flow_smoothness": self.cost(theta)}
