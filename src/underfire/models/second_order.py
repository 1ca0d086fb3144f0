"""Have a network computed by operations that can be differentiated twice, with the same values.

    with twice_differentiable():
        logits = network(x)

Fused attention and the hard sigmoid of MobileNetV3 have a first derivative only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """For the time of a forward pass."""
    with sdpa_kernel(SDPBackend.MATH), _Composed():
        yield


class _Composed(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_hard_sigmoid if func is F.hardsigmoid else func)(*args, **(kwargs or {}))


def _hard_sigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return F.hardtanh(input / 6 + 0.5, 0.0, 1.0)
