"""The input gradient of the log-odds as a function the attacker can differentiate.

GRAD's map is made of g(x) = do/dx, o = log p_y / (1 - p_y). Attacking it needs dg/dx, which exact
autograd does not give: in a ReLU network it sees no curvature at all. Two ways around that:

    FiniteDifferences  keep the network; in the backward pass replace the product of the Hessian with
                       the incoming direction u by (g(x + hu) - g(x - hu)) / 2h, |hu| = delta
    SmoothedReLU       forward exact, but ReLU's derivative in the backward pass becomes a smooth
                       gate h(z), whose own derivative autograd then sees (the paper's way)

Each returns (logits, o, g), all differentiable in x; logits and o always come from the exact network.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core.losses import log_odds
from underfire.core.types import Images, Labels, Logits, Row
from underfire.interpreters.relu_gates import Gate, PaperGate, smoothed_relu
from underfire.models.classifier import Classifier

Gradient = Float[Tensor, "n 3 h w"]


GradientAt = Callable[[Images], Gradient]


@runtime_checkable
class _Curvature(Protocol):
    def curvature(self, gradient_at: GradientAt, x: Images, u: Gradient, gradient: Gradient, /) -> Gradient: ...


@runtime_checkable
class InputGradient(Protocol):
    """g(x) = do/dx with some way to differentiate it in x."""

    def __call__(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Gradient]: ...


def exact_gradient(classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Gradient]:
    """(logits, o, g) as plain numbers, from one forward and one backward pass."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = classifier(x)
        odds = log_odds(logits, y)
        (gradient,) = torch.autograd.grad(odds.sum(), x)
    return logits.detach(), odds.detach(), gradient


@dataclass(frozen=True)
class FiniteDifferences:
    """Hessian-vector products from two exact gradients at x +- hu, where max |hu| = delta per image.

    Works with any activation, fused attention and compiled networks; the attacker's map is the deployed map.
    """

    delta: float = 0.1

    def __call__(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Gradient]:
        return _by_differences(x, y, classifier, self)

    def curvature(self, gradient_at: GradientAt, x: Images, u: Gradient, _gradient: Gradient) -> Gradient:
        """Central difference: H u = (g(x + hu) - g(x - hu)) / 2h."""
        h = step_size(u, self.delta)
        return (gradient_at(x + h * u) - gradient_at(x - h * u)) / (2 * h)


@dataclass(frozen=True)
class OneSidedDifferences:
    """Like FiniteDifferences with one extra gradient in place of two: H u = (g(x + hu) - g(x)) / h."""

    delta: float = 0.1

    def __call__(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Gradient]:
        return _by_differences(x, y, classifier, self)

    def curvature(self, gradient_at: GradientAt, x: Images, u: Gradient, gradient: Gradient) -> Gradient:
        h = step_size(u, self.delta)
        return (gradient_at(x + h * u) - gradient) / h


@dataclass(frozen=True)
class SmoothedReLU:
    """Second-order autograd through ReLUs whose backward pass is a smooth gate; a second, exact pass predicts."""

    gate: Gate = field(default_factory=PaperGate)

    def __call__(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Gradient]:
        followed = x.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad(), smoothed_relu(classifier.network, self.gate):
            leaf = x if followed else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_odds(classifier(leaf), y).sum(), leaf, create_graph=followed)
        logits = classifier(x)
        return logits, log_odds(logits, y), gradient


def step_size(u: Tensor, delta: float) -> Tensor:
    """h with max |hu| = delta, per image; a zero direction gives a step of no consequence."""
    return delta / u.abs().amax(tuple(range(1, u.ndim)), keepdim=True).clamp_min(torch.finfo(u.dtype).tiny * 1e6)


def _by_differences(x: Images, y: Labels, classifier: Classifier, scheme: _Curvature) -> tuple[Logits, Row, Gradient]:
    return _Differences.apply(x, y, classifier, scheme)  # type: ignore[no-any-return]


class _Differences(torch.autograd.Function):
    """(logits, o, g) at x; the backward pass of g asks `scheme` for Hessian-vector products."""

    @staticmethod
    def forward(
        ctx: Any, x: Images, y: Labels, classifier: Classifier, scheme: _Curvature
    ) -> tuple[Logits, Row, Gradient]:
        logits, odds, gradient = exact_gradient(classifier, x, y)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, gradient)
        ctx.classifier, ctx.scheme = classifier, scheme
        return logits, odds, gradient

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_logits: Logits | None, of_odds: Row | None, u: Gradient | None) -> Any:
        x, y, gradient = ctx.saved_tensors
        total = torch.zeros_like(x)
        if of_odds is not None:
            total = total + of_odds.view(-1, 1, 1, 1) * gradient
        if u is not None:
            total = total + ctx.scheme.curvature(
                lambda point: exact_gradient(ctx.classifier, point, y)[2], x, u, gradient
            )
        if of_logits is not None:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                total = total + torch.autograd.grad(ctx.classifier(leaf), leaf, of_logits)[0]
        return total, None, None, None
