"""Find a network's last convolutional block and its head by watching one forward pass.

CAM needs the features a (N, D, h', w') whose spatial mean the network turns into logits, and the
weights that do it. Averages are compared numerically, so modules, functional calls, shared and
in-place ReLUs all count.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.types import Features, Labels, Logits, Maps
from underfire.models.outputs import two_sided


@dataclass(frozen=True)
class Head:
    """What turns features into logits: logit_y = mean over cells of sum_k weight[y, k] a_k, plus a bias.

    weight is None where the features already are the class maps (class convolution, then pool).
    """

    weight: Tensor | None

    def class_maps(self, features: Features, y: Labels) -> Maps:
        """Sum_k w[y, k] a_k(i, j) for each image's own class, raw."""
        if self.weight is None:
            return features[torch.arange(len(y), device=y.device), y]
        return torch.einsum("nk,nkij->nij", self.weight[y], features)


@dataclass(frozen=True)
class Located:
    """A layer whose output is the features, and the head behind it (None where it is unknown)."""

    layer: str
    rectified: bool  # the network applies a functional ReLU to the layer's output before it pools
    head: Head | None


Record = Callable[[str, nn.Module, tuple[Any, ...], Any], None]  # of a layer's name, itself, its inputs and output


def named_layers(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer inside the network, by name; those in TorchScript cannot be watched."""
    modules = network.named_modules()
    return ((name, module) for name, module in modules if name and not isinstance(module, torch.jit.ScriptModule))


@contextmanager
def watching(layers: Iterable[tuple[str, nn.Module]], record: Record) -> Iterator[None]:
    """Tell `record` of every call of these layers; no hook outlives the context."""
    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: record(name, m, i, o)) for name, module in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(
    network: nn.Module, forward: Callable[[], Logits], only: str | None = None
) -> tuple[Located | None, list[str]]:
    """The last layer (or the layer `only`) whose spatial mean feeds the last linear layer or is the logits.

    `forward` runs the network once on one image. Where nothing fits, the second value names candidates.
    """
    outputs: dict[str, Tensor] = {}
    linears: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            outputs.pop(name, None)
            outputs[name] = output
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            linears.append((module, inputs[0], output))

    with watching(named_layers(network), record), torch.no_grad():
        logits = forward()
    heads = [(logits, Head(None))]
    for layer, v, out in linears:
        if v.ndim == 2 and same(centred(two_sided(out)), centred(logits)):
            heads.append((v, Head(layer.weight if len(layer.weight) > 1 else two_sided(layer.weight.T).T)))
    chosen = {name: output for name, output in outputs.items() if only in (None, name)}
    for name, output in reversed(chosen.items()):
        for pooled, head in heads:
            if same(output.mean((2, 3)), pooled):
                return Located(name, False, head), []
            if same(output.relu().mean((2, 3)), pooled):
                return Located(name, True, head), []
    return None, list(outputs)[-8:]


def centred(logits: Logits) -> Logits:
    """Up to what no probability depends on."""
    return logits - logits.mean(1, keepdim=True)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)
