"""A private copy of a network, whatever it is made of, and a hash of all that it holds.

    private = private_copy(net, torch.device("cpu"))

What only stands around a network (torch.compile, DataParallel) is taken off. Tensors inside a graph, such as
activations that a network keeps or the weights of the old weight_norm, are copied without it.
"""

import copy
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from underfire.core.errors import UnderfireError, first_line

AROUND = ("_orig_mod", "module")  # where torch.compile and DataParallel keep the network itself


def private_copy(net: nn.Module, device: torch.device) -> nn.Module:
    """The network in evaluation mode, frozen, on the device; UnderfireError names what cannot be copied and why."""
    if not isinstance(net, nn.Module):
        raise UnderfireError(f"A model must be a torch.nn.Module, not {type(net).__name__}.")
    net = _unwrapped(net)
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    if lazy := [name for name, value in tensors.items() if is_lazy(value)]:
        raise UnderfireError(f"The model's {lazy[0]} has no size yet; run the lazy network on one image first.")
    if hollow := [name for name, value in tensors.items() if value.is_meta]:
        raise UnderfireError(f"The model's {hollow[0]} has no numbers (device meta); load its weights first.")
    with torch.inference_mode(False), torch.no_grad():
        private: nn.Module = copied(net, net)
        for module in list(private.modules()):
            for name, child in module.named_children():
                if (inner := _unwrapped(child)) is not child:
                    setattr(module, name, inner)
        try:
            for parameter in private.parameters():
                parameter.requires_grad_(False)
            return private.eval().to(device)
        except Exception as problem:
            raise UnderfireError(
                f"The model, a {type(net).__name__}, cannot be put into evaluation mode on {device} "
                f"({first_line(problem)}); give the network that it was made from."
            ) from problem


def copied(thing: Any, net: nn.Module) -> Any:
    """A deep copy of `thing`, which holds the network; UnderfireError names the attribute that cannot be copied."""
    graphless = {id(value): value.detach().clone() for value in _inside_graphs(net)}
    try:
        return copy.deepcopy(thing, graphless)
    except Exception as problem:
        raise UnderfireError(
            f"The model cannot be copied: {_culprit(net)} ({first_line(problem)}). Give it without that, or "
            "define __deepcopy__."
        ) from problem


def fingerprint(net: nn.Module, *further: object) -> str:
    """Hash of the architecture's layer names, all that its state holds, and what else is given.

    Of what is not a tensor, numbers and text count, in containers too; of other objects only the type.
    """
    digest = hashlib.blake2b(f"{type(net).__name__}{''.join(map(str, further))}".encode(), digest_size=8)
    for name, value in net.state_dict().items():
        for part in _parts(name, value):
            digest.update(part)
    return digest.hexdigest()


def _unwrapped(net: nn.Module) -> nn.Module:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(net, wrappers) or isinstance(getattr(net, "_orig_mod", None), nn.Module):
        net = next(inner for name in AROUND if isinstance(inner := getattr(net, name, None), nn.Module))
    return net


def _inside_graphs(net: nn.Module) -> Iterator[Tensor]:
    """Tensors that are attributes of layers, in containers too, and that a graph has computed."""
    for module in net.modules():
        for name, value in vars(module).items():
            if name not in ("_parameters", "_modules"):
                yield from (each for each in _tensors(value) if not each.is_leaf)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for each in value.values() for tensor in _tensors(each))
    elif isinstance(value, list | tuple):
        yield from (tensor for each in value for tensor in _tensors(each))


def _culprit(net: nn.Module) -> str:
    """The first attribute of a layer that cannot be copied by itself, in words."""
    for layer, module in net.named_modules():
        for name, value in vars(module).items():
            if name.startswith("_") and name in vars(nn.Module()):
                continue
            try:
                copy.deepcopy(value)
            except Exception:
                return f"its attribute '{f'{layer}.{name}'.lstrip('.')}' is a {type(value).__name__}"
    return f"it is a {type(net).__name__}"


def _parts(name: str, value: Any) -> Iterator[bytes]:
    """The bytes of one entry of a state dict."""
    if isinstance(value, Tensor):
        yield f"{name}{value.dtype}{tuple(value.shape)}".encode()
        dense = value.dequantize() if value.is_quantized else value
        yield dense.detach().to_dense().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _parts(f"{name}.{key}", each)
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from _parts(f"{name}.{i}", each)
    elif isinstance(value, str | bytes | int | float | complex | torch.dtype | None):
        yield f"{name}{value!r}".encode()
    else:
        yield f"{name}{type(value).__name__}".encode()
