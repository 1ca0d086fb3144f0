"""conv2d with constant weights, twice differentiable in its input at the price of the input alone.

Autograd's second derivative of a convolution also works out the weight's share, group by group, even
for frozen weights: several times the cost of a whole pass on depthwise convolutions.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


def frozen_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch.conv2d that passes gradients to its input only; padding given as a word is left to torch."""
    if isinstance(padding, str):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return cast(Tensor, _Convolution.apply(input, weight, bias, stride, padding, dilation, groups))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, geometry
        return F.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        back = cast(Tensor, _Transposed.apply(gradient, *ctx.saved_tensors, ctx.shape, *ctx.geometry))
        return back, None, None, None, None, None, None


class _Transposed(torch.autograd.Function):
    """The transpose of the convolution, linear like it; its derivative is the convolution again."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, shape: torch.Size, *geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.geometry = geometry
        return cast(Tensor, conv2d_input(shape, weight, gradient, *geometry))  # type: ignore[no-untyped-call]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        return F.conv2d(u, weight, None, *ctx.geometry), None, None, None, None, None, None
