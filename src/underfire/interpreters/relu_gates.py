"""Smooth gates in place of ReLU's derivative, in every eager spelling of ReLU, without touching the network.

    with smoothed_relu(network, PaperGate()):
        ...                               # forward values exact, backward multiplies by h(z)

ReLU6 is ReLU(z) - ReLU(z - 6), hence its gate h(z) - h(z - 6).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from underfire.core.errors import UnderfireError
from underfire.interpreters.frozen_convolution import frozen_conv2d


@runtime_checkable
class Gate(Protocol):
    """h(z), a smooth stand-in for the derivative of ReLU, and its own derivative h'(z)."""

    def __call__(self, z: Tensor) -> Tensor: ...

    def derivative(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PaperGate:
    """Section 3.2 as printed: 1 + z/sqrt(z^2 + tau) below zero, z/sqrt(z^2 + tau) from zero on (it jumps there)."""

    tau: float = 1e-4

    def __call__(self, z: Tensor) -> Tensor:
        return _inverse_root(z, self.tau).mul_(z).add_(z < 0)

    def derivative(self, z: Tensor) -> Tensor:
        return _inverse_root(z, self.tau).pow_(3).mul_(self.tau)


@dataclass(frozen=True)
class MonotoneGate:
    """(1 + z/sqrt(z^2 + tau)) / 2: rises from 0 to 1 without a jump."""

    tau: float = 1e-2

    def __call__(self, z: Tensor) -> Tensor:
        return _inverse_root(z, self.tau).mul_(z).add_(1).div_(2)

    def derivative(self, z: Tensor) -> Tensor:
        return _inverse_root(z, self.tau).pow_(3).mul_(self.tau / 2)


@dataclass(frozen=True)
class LogisticGate:
    """The derivative of softplus: 1 / (1 + exp(-slope z))."""

    slope: float = 3.0

    def __call__(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.slope * z)

    def derivative(self, z: Tensor) -> Tensor:
        h = self(z)
        return h * (1 - h) * self.slope


def _inverse_root(z: Tensor, tau: float) -> Tensor:
    return (z * z).add_(tau).rsqrt_()


@contextmanager
def smoothed_relu(network: nn.Module, gate: Gate) -> Iterator[None]:
    """Within this context ReLU and ReLU6 keep their values and differentiate as `gate` says; weights are constants.

    UnderfireError for TorchScript modules, whose calls cannot be seen; use FiniteDifferences there.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise UnderfireError(
            "ReLUs inside TorchScript modules cannot be smoothed; use GRAD(FiniteDifferences()) or the eager model."
        )
    with _SmoothedReLU(gate):
        yield


_IN_PLACE = frozenset(
    {F.relu_, torch.relu_, Tensor.relu_, torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_}
    | {torch.clamp_min_, Tensor.clamp_min_, F.hardtanh_}
)
_RELU = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
_RELU6 = frozenset({F.relu6})
_HARDTANH = frozenset({F.hardtanh, F.hardtanh_})
_CLAMP = frozenset(
    {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_}
)
_CLAMP_MIN = frozenset({torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_})


class _SmoothedReLU(TorchFunctionMode):
    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            return frozen_conv2d(*args, **kwargs)
        ceiling = _ceiling(func, args, kwargs)
        if ceiling is None:
            return func(*args, **kwargs)
        z = args[0] if args else kwargs["input"]
        if func in _IN_PLACE or kwargs.get("inplace", False):
            return z.copy_(_smoothed(z.clone(), self._gate, ceiling))
        return _smoothed(z, self._gate, ceiling)


def _ceiling(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | None:
    """6 for a spelling of ReLU6, infinity for a spelling of ReLU, None for anything else."""
    if func in _RELU:
        return torch.inf
    if func in _RELU6:
        return 6.0
    if func in _HARDTANH:
        bounds = (*args[1:3], *(kwargs[k] for k in ("min_val", "max_val") if k in kwargs))
    elif func in _CLAMP:
        bounds = (*args[1:3], *(kwargs.get(k) for k in ("min", "max")[len(args) - 1 :]))
    elif func in _CLAMP_MIN:
        bounds = (args[1] if len(args) > 1 else kwargs.get("min"), None)
    else:
        return None
    return {(0, None): torch.inf, (0, 6): 6.0}.get(tuple(bounds)) if _plain(bounds) else None


def _plain(bounds: tuple[Any, ...]) -> bool:
    return all(b is None or isinstance(b, int | float) for b in bounds)


def _smoothed(z: Tensor, gate: Gate, ceiling: float) -> Tensor:
    return cast(Tensor, _GatedClamp.apply(z, gate, ceiling))


class _GatedClamp(torch.autograd.Function):
    """clamp(z, 0, ceiling) whose derivative is h(z) - h(z - ceiling)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, gate: Gate, ceiling: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.gate, ctx.ceiling = gate, ceiling
        return z.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return cast(Tensor, _Gated.apply(gradient, z, ctx.gate, ctx.ceiling)), None, None


class _Gated(torch.autograd.Function):
    """gradient * (h(z) - h(z - ceiling)), differentiable in both once more."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, z: Tensor, gate: Gate, ceiling: float) -> Tensor:
        ctx.save_for_backward(gradient, z)
        ctx.gate, ctx.ceiling = gate, ceiling
        return gradient * _between(gate, z, ceiling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gradient, z = ctx.saved_tensors
        slope = _between(ctx.gate, z, ctx.ceiling)
        return u * slope, u * gradient * _between(ctx.gate.derivative, z, ctx.ceiling), None, None


def _between(function: Callable[[Tensor], Tensor], z: Tensor, ceiling: float) -> Tensor:
    return function(z) if ceiling == torch.inf else function(z) - function(z - ceiling)
