"""A classifier that has forgotten what it learned: model-parameter randomisation (Adebayo et al. 2018).

    randomized_model = randomized(model, DEPTHS["all"](model, x), seed=0)
    maps = rebind(interpreter, randomized_model).explain(randomized_model, x, y, keys)

A re-initialised layer is as before its training: weights from N(0, 2 / fan-in) (He et al. 2015), biases 0,
normalisation layers at scale 1, shift 0 and running statistics 0 and 1. Every tensor is drawn from (seed, its name).
"""

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys, uniform
from underfire.core.types import Images
from underfire.interpreters import RTS
from underfire.interpreters.protocol import Explainer
from underfire.models.classifier import Classifier
from underfire.models.tracing import named_layers, watching

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def head(classifier: Classifier, x: Images) -> tuple[str, ...]:
    """The layer with weights that is called last in a forward pass."""
    called = list[str]()

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        called.append(name)

    own = ((name, layer) for name, layer in named_layers(classifier.network) if _weights(layer))
    with watching(own, record), torch.no_grad():
        classifier(x[:1])
    if not called:
        raise UnderfireError("The model calls no layer that has weights, so none can be randomized.")
    return (called[-1],)


def every_layer(classifier: Classifier, x: Images) -> tuple[str, ...]:
    """All layers with weights of their own."""
    return tuple(name for name, layer in classifier.network.named_modules() if _weights(layer))


DEPTHS: Mapping[str, Callable[[Classifier, Images], tuple[str, ...]]] = MappingProxyType(
    {"head": head, "all": every_layer}
)


def randomized(classifier: Classifier, layers: tuple[str, ...], seed: int) -> Classifier:
    """A classifier of its own with these layers re-initialised and the same features; the one given stays as it is."""

    def change(network: nn.Module) -> None:
        for name in layers:
            _reinitialise(name, network.get_submodule(name), seed)

    return classifier.revised(change)


@singledispatch
def rebind(interpreter: Explainer, classifier: Classifier) -> Explainer:
    """The interpreter as it explains a classifier that it was not made for; most are made for none."""
    return interpreter


@rebind.register
def _(interpreter: RTS, classifier: Classifier) -> Explainer:
    return interpreter.rebind(classifier)


def _weights(layer: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(layer.named_parameters(recurse=False))


def _reinitialise(name: str, layer: nn.Module, seed: int) -> None:
    if isinstance(layer, _NORMS):
        layer.reset_parameters()
        return
    for own, weight in _weights(layer):
        weight.copy_(_kaiming(f"{name}.{own}", weight, seed) if weight.ndim > 1 else torch.zeros_like(weight))


def _kaiming(name: str, weight: Tensor, seed: int) -> Tensor:
    key = image_keys([name])
    numbers = torch.special.ndtri(uniform(seed, "weights", key, torch.zeros_like(key), weight.numel()))
    drawn: Tensor = numbers.view(weight.shape) * math.sqrt(2 / weight[0].numel())
    return drawn
