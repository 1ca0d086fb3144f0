"""`timm:NAME` and `timm:FOLDER`: models of PyTorch Image Models, with what their own configuration says of images.

    loaded = from_timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "DEFAULT")
    loaded = from_timm("resnet18", "weights.safetensors")

A folder is what timm's `save_for_hf` writes (config.json and weights); it brings its own weights.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from underfire.core.errors import UnderfireError, first_line
from underfire.core.extras import extra
from underfire.models.loading import LoadedNetwork, as_its_file_says, said_of, with_state
from underfire.models.weights import read_weights, weight_file


def from_timm(name: str, weights: str | None) -> LoadedNetwork:
    """The network of that name with DEFAULT weights, those of a tag or of a file; UnderfireError if there is none."""
    timm = extra("timm", "timm", "Models of timm")
    folder = Path(name).is_dir()
    if not folder:
        _check_name(timm, name)
    if weights is None and not folder:
        raise UnderfireError(f"timm:{name} needs weights: --weights DEFAULT, a tag of timm's, or a file.")
    hub = name if folder else _hub_id(timm, name)
    builder = partial(timm.create_model, f"local-dir:{name}" if folder else name)
    file = None if weights is None else weight_file(weights)
    if file is not None:
        return _with_file(timm, builder, *file)
    if weights in (None, "DEFAULT"):
        return _described(timm, _pretrained(builder, hub), f"that of timm:{name}")
    tagged = f"{name}.{weights}"
    loaded = _pretrained(partial(timm.create_model, tagged), f"timm/{tagged}")
    return _described(timm, loaded, f"that of timm:{tagged}")


def builder_of(name: str) -> Callable[..., nn.Module]:
    """What makes the network of that name with random weights; UnderfireError if there is none."""
    timm = extra("timm", "timm", "Models of timm")
    _check_name(timm, name)
    return partial(timm.create_model, name, pretrained=False)


def _check_name(timm: Any, name: str) -> None:
    if timm.is_model(name):
        return
    close = get_close_matches(name, timm.list_models(), n=3)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    raise UnderfireError(f"timm has no model '{name}'{meant}, and there is no folder of that name.")


def _hub_id(timm: Any, name: str) -> str:
    """Where the default weights lie on the hub."""
    config = timm.get_pretrained_cfg(name)
    return str(getattr(config, "hf_hub_id", None) or f"timm/{name}")


def _pretrained(builder: Callable[..., nn.Module], hub: str) -> nn.Module:
    try:
        return builder(pretrained=True)
    except Exception as problem:  # of the network, the disk, or a tag that does not exist
        raise UnderfireError(
            f"The weights of {hub} could not be read from the cache or downloaded ({first_line(problem)}). Bring them "
            f"from a machine with a connection: `hf download {hub} --local-dir FOLDER` there, and timm:FOLDER here; or "
            "give a state-dict file with --weights FILE."
        ) from problem


def _with_file(timm: Any, builder: Callable[..., nn.Module], path: Path, part: str) -> LoadedNetwork:
    """As many classes as the file's head has."""
    with torch.device("meta"):
        blank = builder(pretrained=False)
    state, part = read_weights(path, part).of(blank.state_dict())
    heads = [name for name in _heads(blank) if f"{name}.weight" in state]
    counts = {"num_classes": len(state[f"{heads[0]}.weight"])} if heads else {}
    net = with_state(builder(pretrained=False, **counts), state, str(path))
    described = _described(timm, net, "that of timm's weights of the architecture, assumed", said_of(part, path))
    return as_its_file_says(described, path)


def _heads(net: nn.Module) -> tuple[str, ...]:
    config: Mapping[str, Any] = getattr(net, "pretrained_cfg", {})
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _described(timm: Any, net: nn.Module, whose: str, assumed: tuple[str, ...] = ()) -> LoadedNetwork:
    """With the normalisation, sizes and class names of the model's configuration."""
    wants = timm.data.resolve_model_data_config(net)
    side = wants["input_size"][-1]
    return LoadedNetwork(
        net,
        tuple(wants["mean"]),
        tuple(wants["std"]),
        whose,
        int(side / wants["crop_pct"]),
        side,
        tuple(getattr(net, "pretrained_cfg", {}).get("label_names") or ()),
        wants["interpolation"] if wants["interpolation"] in ("bilinear", "bicubic") else None,
        assumed,
    )
