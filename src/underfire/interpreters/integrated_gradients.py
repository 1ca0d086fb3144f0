"""IG: how much of a probability each pixel brought in on the way from a baseline (Sundararajan et al. 2017; Eq. 11).

    a_i = (x_i - b_i) * integral over t in (0, 1) of dp_y/dx_i at b + t (x - b),    sum_i a_i = p_y(x) - p_y(b)

    m = mm( average pool( max over channels |a| ) )

The integral is a weighted sum over a few nodes; how far the attributions then are from complete, `completeness_error`
tells. With o = log p_y / (1 - p_y), dp_y/dx = p_y (1 - p_y) do/dx: at every node the attacker differentiates do/dx as
for GRAD (see `underfire.interpreters.input_gradients`).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underfire.core.losses import confidence
from underfire.core.types import Images, Keys, Labels, Maps, Reading, Row
from underfire.interpreters.grad import saliency
from underfire.interpreters.input_gradients import FiniteDifferences, InputGradient, exact_gradient
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading
from underfire.models.classifier import Classifier

Nodes = Float[Tensor, " nodes"]


@runtime_checkable
class Quadrature(Protocol):
    """Places t in (0, 1) and their weights, which sum to 1; float64."""

    def nodes(self) -> tuple[Nodes, Nodes]: ...


@dataclass(frozen=True)
class Midpoints:
    """The Riemann sum over the midpoints of n equal parts; its error falls with n^-2."""

    n: int = 32

    def nodes(self) -> tuple[Nodes, Nodes]:
        places = (torch.arange(self.n, dtype=torch.float64) + 0.5) / self.n
        return places, torch.full_like(places, 1 / self.n)


@dataclass(frozen=True)
class GaussLegendre:
    """n nodes that integrate polynomials of degree 2 n - 1 exactly: the better rule on smooth networks."""

    n: int = 16

    def nodes(self) -> tuple[Nodes, Nodes]:
        places, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(self.n))
        return (1 + places) / 2, weights / 2


@dataclass(frozen=True)
class IG(ClosedForm):
    """Integrated gradients from a plain baseline, black by default, at 1/4 of the input side (1/2 below 64 pixels).

    `level` is the baseline's pixel value; `attributions` takes any baseline. `input_gradient` is the attacker's way to
    differentiate the gradient; the deployed map never uses it. `internal_batch_size` nodes share a pass.
    """

    draws: ClassVar[bool] = False

    quadrature: Quadrature = field(default_factory=Midpoints)
    level: float = 0.0
    input_gradient: InputGradient = field(default_factory=FiniteDifferences)
    internal_batch_size: int = field(default=4, compare=False)

    @property
    def name(self) -> str:
        return "ig"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.no_grad():
            return self._maps(classifier, x, y, exact_gradient)

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(classifier(x), self._maps(classifier, x, y, self.input_gradient), y)

    def _maps(self, classifier: Classifier, x: Images, y: Labels, input_gradient: InputGradient) -> Maps:
        baseline = torch.full_like(x, self.level)
        shares = attributions(classifier, x, baseline, y, self.quadrature, input_gradient, self.internal_batch_size)
        largest = shares.detach().abs().amax((1, 2, 3), keepdim=True)  # mm undoes it; its floor would hide small p
        return saliency(shares / largest.clamp_min(torch.finfo(x.dtype).tiny))


def attributions(
    classifier: Classifier,
    x: Images,
    baseline: Images,
    y: Labels,
    quadrature: Quadrature,
    input_gradient: InputGradient = exact_gradient,
    internal_batch_size: int = 4,
) -> Images:
    """a of Eq. 11 for class y and a baseline of each image, signed, N3HW; `internal_batch_size` nodes share a pass."""
    places, weights = (values.to(x) for values in quadrature.nodes())
    change, integral = x - baseline, torch.zeros_like(x)
    for t, weight in zip(
        torch.split(places, internal_batch_size), torch.split(weights, internal_batch_size), strict=True
    ):
        points = (baseline + t.view(-1, 1, 1, 1, 1) * change).flatten(0, 1)
        _, odds, gradient = input_gradient(classifier, points, y.repeat(len(t)))
        slope = (F.logsigmoid(odds) + F.logsigmoid(-odds)).exp().view(len(t), -1)  # p (1 - p)
        factors = (weight[:, None] * slope).view(len(t), -1, 1, 1, 1)
        integral = integral + (factors * gradient.view(len(t), *x.shape)).sum(0)
    return change * integral


def completeness_error(classifier: Classifier, x: Images, baseline: Images, y: Labels, shares: Images) -> Row:
    """sum_i a_i - (p_y(x) - p_y(b)): what the sum over nodes missed."""
    with torch.no_grad():
        p, p_baseline = (confidence(classifier(images), y) for images in (x, baseline))
    return shares.sum((1, 2, 3)) - (p - p_baseline)
