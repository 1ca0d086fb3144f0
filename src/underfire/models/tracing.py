"""Find a network's last spatial layer and its head by watching one forward pass.

CAM needs the features a (N, D, h', w') whose spatial mean the network turns into logits, and the
weights that do it. Averages are compared numerically, so modules, functional calls, shared and
in-place ReLUs all count. Grad-CAM needs no head: the last layer will do of which cells still matter.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.types import Features, Images, Labels, Logits, Maps
from underfire.models.layout import LAYOUTS, Sides, layouts_of
from underfire.models.outputs import two_sided

NO_FEATURES = (nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d)
FEWEST_CELLS = 2  # that must matter to the logits: the class token alone is none


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
    """A layer whose output holds the features, in which layout, and the head behind it (None where it is unknown)."""

    layer: str
    head: Head | None = None
    rectified: bool = False  # the network applies a functional ReLU to the layer's output before it pools
    layout: str = "channels-first"
    obstacle: str = ""  # what CAM needs and does not find, where there is no head

    def grid(self, output: Tensor, sides: Sides) -> Features | None:
        """What the layer gave of images of these sides, as NDhw; None where it is of another form."""
        return LAYOUTS[self.layout](output, sides)

    def features(self, output: Tensor, sides: Sides) -> Features | None:
        """The same as the head reads it."""
        grid = self.grid(output, sides)
        return None if grid is None else self.as_read(grid)

    def as_read(self, grid: Features) -> Features:
        """What the head makes of the grid before it pools."""
        return grid.relu() if self.rectified else grid


@dataclass(frozen=True)
class Watched:
    """What a layer was last given and gave, and the channels of the weights called last before and next after that.

    A layer with weights of its own is its own neighbour.
    """

    name: str
    layer: nn.Module
    input: Any
    output: Tensor
    channels: list[int]

    def layouts(self, sides: Sides) -> list[str]:
        """The layouts that the output may have."""
        return list(layouts_of(self.output, self.channels, sides))


@dataclass(frozen=True)
class Trace:
    """One forward pass of one image: its logits, the outputs that may be spatial in order, and the linear layers."""

    sides: Sides
    logits: Logits
    outputs: Sequence[Watched]
    linears: Sequence[tuple[nn.Linear, Tensor, Tensor]]

    def named(self, name: str) -> "Trace":
        """The same with that layer's output alone."""
        return replace(self, outputs=[each for each in self.outputs if each.name == name])


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


@dataclass
class _Recorder:
    """Fills what a `Trace` consists of."""

    images: int
    outputs: dict[str, Watched] = field(default_factory=dict)
    linears: list[tuple[nn.Linear, Tensor, Tensor]] = field(default_factory=list)
    last: tuple[int, ...] = ()
    unread: list[list[int]] = field(default_factory=list)  # channels of outputs that no weights have read yet

    def __call__(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if weight := _weight(module):
            self.last = weight
            for channels in self.unread:
                channels.extend(weight)
            self.unread.clear()
        if isinstance(output, Tensor) and output.ndim in (3, 4) and len(output) == self.images:
            channels = list(self.last)
            self.outputs.pop(name, None)
            self.outputs[name] = Watched(name, module, inputs[0] if inputs else None, output, channels)
            self.unread.append(channels)
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            self.linears.append((module, inputs[0], output))


def trace(network: nn.Module, forward: Callable[[Images], Logits], x: Images) -> Trace:
    """What happens in `forward`, which runs the network once on x."""
    recorder = _Recorder(len(x))
    with watching(named_layers(network), recorder):
        logits = forward(x)
    return Trace((x.shape[2], x.shape[3]), logits, list(recorder.outputs.values()), recorder.linears)


def find_head(traced: Trace) -> Located | None:
    """The last layer whose spatial mean feeds the last linear layer or is the logits."""
    heads = _heads(traced)
    for each in reversed(traced.outputs):
        for layout in LAYOUTS:
            for pooled, head in heads:
                for rectified in (False, True):
                    located = Located(each.name, head, rectified, layout)
                    features = located.features(each.output, traced.sides)
                    if features is None or features.shape[2:].numel() == 1:
                        continue
                    if same(features.mean((2, 3)), pooled):
                        return located
    return None


def find_last_spatial(traced: Trace) -> Located | None:
    """The last layer with a grid of which several cells matter to the logits; the trace must hold a graph.

    What is linear and no more is passed over, for queries, keys and values are no features; so are pools.
    """
    spatial = [
        (each, layouts[0])
        for each in traced.outputs
        if each.output.requires_grad
        and not isinstance(each.layer, NO_FEATURES)
        and (layouts := each.layouts(traced.sides))
    ]
    largest = traced.logits.amax(1).sum()
    gradients = torch.autograd.grad(largest, [each.output for each, _ in spatial], allow_unused=True)
    for (each, layout), gradient in reversed(list(zip(spatial, gradients, strict=True))):
        located = Located(each.name, layout=layout)
        cells = None if gradient is None else located.features(gradient, traced.sides)
        if cells is not None and int((cells != 0).any(1).sum()) >= FEWEST_CELLS:
            return located
    return None


def ends_in_one_cell(traced: Trace) -> bool:
    """Whether what the head reads is one cell, to which weights and no pool have brought it."""
    single = [each for each in traced.outputs if _cells(each.output) == 1 < _cells(each.input) and _has_weights(each)]
    return any(same(each.output.flatten(1), pooled) for each in single for pooled, _ in _heads(traced))


def _heads(traced: Trace) -> list[tuple[Tensor, Head]]:
    """What may be a mean over cells, and the head that reads it."""
    heads = [(traced.logits, Head(None))]
    for layer, v, out in traced.linears:
        if v.ndim == 2 and same(centred(two_sided(out)), centred(traced.logits)):
            heads.append((v, Head(layer.weight if len(layer.weight) > 1 else two_sided(layer.weight.T).T)))
    return heads


def layers_to_name(traced: Trace, most: int = 8) -> list[str]:
    """The last of the layers whose output is spatial, each with its grid."""
    found = [(each, layouts[0]) for each in traced.outputs if (layouts := each.layouts(traced.sides))]
    return [f"{each.name} ({_grid(each, layout, traced.sides)})" for each, layout in found[-most:]]


def _cells(value: Any) -> int:
    """Of a tensor NDhw; 0 of anything else."""
    return value.shape[2:].numel() if isinstance(value, Tensor) and value.ndim == 4 else 0


def _has_weights(each: Watched) -> bool:
    return next(each.layer.parameters(), None) is not None


def _grid(each: Watched, layout: str, sides: Sides) -> str:
    features = LAYOUTS[layout](each.output, sides)
    return "" if features is None else f"{features.shape[2]} × {features.shape[3]}"


def _weight(layer: nn.Module) -> tuple[int, ...]:
    """Of a layer with a weight of its own the numbers of channels that go in and out; () of any other."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or not weight.ndim:
        return ()
    read = (weight.shape[1] * getattr(layer, "groups", 1),) if weight.ndim > 1 else ()
    return (weight.shape[0], *read)


def centred(logits: Logits) -> Logits:
    """Up to what no probability depends on."""
    return logits - logits.mean(1, keepdim=True)


def same(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)
