"""`torchvision:NAME`: torchvision's networks, with what their weights say of images.

loaded = from_torchvision("resnet50", "DEFAULT")
loaded = from_torchvision("resnet50", "weights.pth")
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from underfire.core.errors import UnderfireError
from underfire.models.loading import LoadedNetwork, as_its_file_says, said_of, with_state
from underfire.models.weights import Weights, read_weights, weight_file


def from_torchvision(name: str, weights: str | None) -> LoadedNetwork:
    """The network of that name with DEFAULT weights, those of another enum name or of a file."""
    builder = builder_named(name)
    if weights is None:
        raise UnderfireError(f"torchvision:{name} needs weights: --weights DEFAULT, another enum name, or a file.")
    file = weight_file(weights)
    return _with_enum(builder, name, weights) if file is None else _with_file(builder, name, read_weights(*file))


def builder_named(name: str) -> Callable[..., nn.Module]:
    """torchvision's own function of that name; UnderfireError if there is none."""
    from torchvision.models import get_model_builder

    try:
        builder: Callable[..., nn.Module] = get_model_builder(name)
    except ValueError:
        raise UnderfireError(
            f"torchvision has no model '{name}'; torchvision.models.list_models() lists them."
        ) from None
    return builder


def _with_file(builder: Callable[..., nn.Module], name: str, weights: Weights) -> LoadedNetwork:
    """The architecture as its own weights want it, and whatever the file says of itself."""
    for variant in variants(builder):
        with torch.device("meta"):
            names = variant().state_dict()
        state, part = weights.of(names)
        if set(names) <= set(state):
            break
    last = list(names)[-1]
    classes = len(state[last]) if last in state and state[last].ndim == names[last].ndim else len(names[last])
    net = with_state(variant(num_classes=classes), state, str(weights.path))
    loaded = replace(_as_its_own_weights(net, name), assumed=said_of(part, weights.path))
    if getattr(net, "transform_input", False):
        loaded = replace(loaded, assumed=(*loaded.assumed, f"input transformed as by torchvision's {name} weights"))
    return as_its_file_says(loaded, weights.path)


def variants(
    builder: Callable[..., nn.Module], aux: tuple[bool, ...] = (True, False)
) -> Iterator[Callable[..., nn.Module]]:
    """The builder with the options that its own weights are used with: some networks have auxiliary heads or none."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore", category=FutureWarning):
        known = inspect.signature(type(builder())).parameters
    options = {name: value for name, value in {"transform_input": True, "init_weights": False}.items() if name in known}
    if "aux_logits" not in known:
        yield partial(builder, **options)
        return
    for present in aux:
        yield partial(builder, **options, aux_logits=present)


def _as_its_own_weights(net: nn.Module, name: str) -> LoadedNetwork:
    """Normalisation and interpolation as torchvision's default weights of the architecture want them."""
    from torchvision.models import get_model_weights

    loaded, known = LoadedNetwork(net), get_model_weights(name)
    if not len(known):
        return loaded
    enum = known["DEFAULT"]
    wants = enum.transforms()
    if (tuple(wants.mean), tuple(wants.std)) != (loaded.mean, loaded.std):
        of_enum = f"that of torchvision's {enum.name} weights, assumed"
        loaded = replace(loaded, mean=tuple(wants.mean), std=tuple(wants.std), normalization=of_enum)
    return replace(loaded, interpolation=wants.interpolation.value)


def _with_enum(builder: Callable[..., nn.Module], name: str, weights: str) -> LoadedNetwork:
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    try:
        enum = known[weights]
    except KeyError:
        names = ", ".join(entry.name for entry in known)
        raise UnderfireError(f"torchvision:{name} has no weights '{weights}'; it has DEFAULT, {names}.") from None
    try:
        net = builder(weights=enum)
    except Exception as problem:  # of the network, the disk, or a damaged file in the cache
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(enum.url).name
        raise UnderfireError(
            f"The weights of torchvision:{name} could not be downloaded or read ({problem}); give a file with "
            f"--weights FILE, or put {enum.url} at {cached}, where torchvision looks first."
        ) from problem
    wants = enum.transforms()
    return LoadedNetwork(
        net,
        tuple(wants.mean),
        tuple(wants.std),
        f"that of torchvision's {enum.name} weights",
        wants.resize_size[0],
        wants.crop_size[0],
        tuple(enum.meta.get("categories", ())),
        wants.interpolation.value,
    )
