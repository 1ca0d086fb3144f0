"""How an attacker follows an explanation that is not ours: the attributions as a function it can differentiate.

ClosedFormGraph       autograd reaches the image through the explanation itself
SymmetricDifferences  the attributions are an input gradient: products with its Jacobian from two of them
Queries               nothing can be differentiated: antithetic random directions on a coarse grid of the image
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from underfire.core import rng
from underfire.core.image_ops import resize
from underfire.core.types import Images, Keys, Labels
from underfire.interpreters.adapters.raw import Attributions
from underfire.interpreters.input_gradients import step_size

RawAt = Callable[[Images], Attributions]  # of the same images at other pixels, without a graph unless they ask for one


@dataclass(frozen=True)
class Looked:
    """Row record: the image's identity, and how often the attacker has looked at it."""

    keys: Keys
    step: Labels


@runtime_checkable
class Follow(Protocol):
    """Attributions at x, differentiable in x; the verdict of a probe that finds them so, and why it works."""

    verdict: ClassVar[str]
    why: ClassVar[str]

    def __call__(self, raw_at: RawAt, x: Images, belief: Looked) -> Attributions: ...


@dataclass(frozen=True)
class ClosedFormGraph:
    """The explanation's own graph."""

    verdict: ClassVar[str] = "closed form"
    why: ClassVar[str] = "autograd goes through it"

    def __call__(self, raw_at: RawAt, x: Images, belief: Looked) -> Attributions:
        return raw_at(x)


@dataclass(frozen=True)
class SymmetricDifferences:
    """J'u = Ju = (a(x + hu) - a(x - hu)) / 2h with max |hu| = delta, where the Jacobian J of a is symmetric."""

    verdict: ClassVar[str] = "input gradient"
    why: ClassVar[str] = "it is one or a mean of them, whose derivative is taken by differences"

    delta: float = 0.1

    def __call__(self, raw_at: RawAt, x: Images, belief: Looked) -> Attributions:
        def transposed(u: Attributions) -> Images:
            h = step_size(u, self.delta)
            return (raw_at(x.detach() + h * u) - raw_at(x.detach() - h * u)) / (2 * h)

        return _followed(raw_at, x, transposed)


@dataclass(frozen=True)
class Queries:
    """J'u = mean over random d of d (u . a(x + hd) - u . a(x - hd)) / 2h; d is of normal numbers on cells x cells."""

    verdict: ClassVar[str] = "queries only"
    why: ClassVar[str] = "its derivative is estimated"

    directions: int = 8
    cells: int = 8
    h: float = 0.02
    seed: int = 0

    def __call__(self, raw_at: RawAt, x: Images, belief: Looked) -> Attributions:
        def transposed(u: Attributions) -> Images:
            total = torch.zeros_like(x)
            for k in range(self.directions):
                d = self._direction(x, belief, k)
                change = raw_at(x.detach() + self.h * d) - raw_at(x.detach() - self.h * d)
                total = total + (u * change).sum((1, 2, 3)).view(-1, 1, 1, 1) / (2 * self.h) * d
            return total / self.directions

        return _followed(raw_at, x, transposed)

    def _direction(self, x: Images, belief: Looked, k: int) -> Images:
        cells = min(self.cells, *x.shape[2:])
        numbers = rng.normal(self.seed, f"query {k}", belief.keys, belief.step, x.shape[1] * cells**2)
        return resize(numbers.view(len(x), -1, cells, cells).to(x), x.shape[2], x.shape[3])


def _followed(raw_at: RawAt, x: Images, transposed: Callable[[Tensor], Images]) -> Attributions:
    return cast(Tensor, _Followed.apply(x, raw_at, transposed))


class _Followed(torch.autograd.Function):
    """Attributions whose backward pass asks for the product of the transposed Jacobian with a direction."""

    @staticmethod
    def forward(ctx: Any, x: Images, raw_at: RawAt, transposed: Callable[[Tensor], Images]) -> Tensor:
        ctx.transposed = transposed
        return raw_at(x.detach()).detach().clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, u: Tensor) -> Any:
        return ctx.transposed(u), None, None
