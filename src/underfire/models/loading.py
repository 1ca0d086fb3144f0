"""Networks by name: `torchvision:NAME`, `path/file.py:builder` or `demo`, with weights and normalisation.

Weight files are data: safetensors, or .pt/.pth read with weights_only=True.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from underfire.core.types import UnderfireError
from underfire.models.demo import DEMO_MEAN, DEMO_STD, demo_classifier
from underfire.models.files import ClassifierManifest, Triple, read_manifest

NORMALISATIONS: Mapping[str, tuple[Triple, Triple]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True)
class LoadedNetwork:
    """A network and what its weights say about the images it wants; sizes in pixels, None where unknown."""

    net: nn.Module
    mean: Triple = NORMALISATIONS["imagenet"][0]
    std: Triple = NORMALISATIONS["imagenet"][1]
    normalization: str = "ImageNet's mean and deviation, by default"
    resize: int | None = None
    crop: int | None = None
    classes: tuple[str, ...] = ()


def load_network(reference: str, weights: str | None, normalize: str | None) -> LoadedNetwork:
    """The network behind `reference`; UnderfireError says what is wrong with a name, file or number.

    Torch's global generator, from which networks draw their first weights, is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        return _normalised(_load(reference, weights), normalize)


def load_with_new_head(
    reference: str, weights: str | None, normalize: str | None, classes: tuple[str, ...], seed: int
) -> LoadedNetwork:
    """A torchvision network whose head knows other classes, drawn from the seed; the rest is that of the weights.

    The head is whatever changes its shape with the number of classes. Without weights the whole network is drawn.
    """
    kind, _, name = reference.rpartition(":")
    if kind != "torchvision":
        raise UnderfireError(
            f"'{reference}' has no head that can be replaced: name a torchvision:NAME, or train the model where it "
            "was made."
        )
    with torch.random.fork_rng(devices=[]):
        start = LoadedNetwork(nn.Identity()) if weights is None else _from_torchvision(name, weights)
        builder = _builder(name)
        torch.default_generator.manual_seed(seed)
        net = builder(num_classes=len(classes))
        with torch.device("meta"):
            wider = builder(num_classes=len(classes) + 1).state_dict()
    state = net.state_dict()
    body = {name for name, value in state.items() if value.shape == wider[name].shape}
    if weights is not None:
        known = start.net.state_dict()
        kept = {name: value for name, value in known.items() if name in body or name not in state}
        _with_state(net, {**kept, **{name: state[name] for name in state if name not in body}}, weights)
    return _normalised(replace(start, net=net, classes=classes), normalize)


def _normalised(loaded: LoadedNetwork, normalize: str | None) -> LoadedNetwork:
    if normalize is None:
        return loaded
    mean, std = parse_normalization(normalize)
    return replace(loaded, mean=mean, std=std, normalization=f"{normalize}, as asked for")


def _load(reference: str, weights: str | None) -> LoadedNetwork:
    kind, _, name = reference.rpartition(":")
    if reference == "demo":
        return _demo()
    if kind == "torchvision":
        return _from_torchvision(name, weights)
    if kind.endswith(".py"):
        return _from_file(Path(kind), name, weights)
    raise UnderfireError(f"'{reference}' names no model; use torchvision:NAME, path/file.py:builder, or demo.")


def parse_normalization(text: str) -> tuple[Triple, Triple]:
    """'imagenet', 'none' or 'M,M,M/S,S,S' as (mean, std)."""
    if text in NORMALISATIONS:
        return NORMALISATIONS[text]
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
        (m1, m2, m3), (s1, s2, s3) = mean, std
    except ValueError:
        raise UnderfireError(
            f"'{text}' is no normalisation; use imagenet, none, or three means and three deviations as M,M,M/S,S,S."
        ) from None
    return (m1, m2, m3), (s1, s2, s3)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors or .pt/.pth file, without running any code that the file may hold."""
    if not path.is_file():
        raise UnderfireError(f"There is no weight file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # readers raise whatever a damaged file makes them stumble over
        raise UnderfireError(
            f"{path} cannot be read as weights (a damaged file, or one that holds more than tensors): "
            f"{str(problem).splitlines()[0] if str(problem) else type(problem).__name__}"
        ) from problem
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UnderfireError(f"{path} holds no state dict; save the network's state_dict() to it.")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _demo() -> LoadedNetwork:
    return LoadedNetwork(demo_classifier(), DEMO_MEAN, DEMO_STD, "the demo classifier's own")


def _from_torchvision(name: str, weights: str | None) -> LoadedNetwork:
    builder = _builder(name)
    if weights is None:
        raise UnderfireError(f"torchvision:{name} needs weights: --weights DEFAULT, another enum name, or a file.")
    if Path(weights).suffix:
        state = read_weights(Path(weights))
        net = _with_state(builder(num_classes=_class_count(builder, state)), state, weights)
        return _as_its_file_says(net, Path(weights))
    return _with_enum(builder, name, weights)


def _builder(name: str) -> Callable[..., nn.Module]:
    from torchvision.models import get_model_builder

    try:
        builder: Callable[..., nn.Module] = get_model_builder(name)
    except ValueError:
        raise UnderfireError(
            f"torchvision has no model '{name}'; torchvision.models.list_models() lists them."
        ) from None
    return builder


def _as_its_file_says(net: nn.Module, weights: Path) -> LoadedNetwork:
    """Normalisation, image size and class names where the file of the weights brings them."""
    manifest = read_manifest(weights, ClassifierManifest)
    if manifest is None:
        return LoadedNetwork(net)
    of_file = f"that of {weights}"
    return LoadedNetwork(net, manifest.mean, manifest.std, of_file, manifest.resize, manifest.crop, manifest.classes)


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
    except OSError as problem:
        raise UnderfireError(f"The weights of torchvision:{name} could not be downloaded: {problem}") from problem
    wants = enum.transforms()
    return LoadedNetwork(
        net,
        tuple(wants.mean),
        tuple(wants.std),
        f"that of torchvision's {enum.name} weights",
        wants.resize_size[0],
        wants.crop_size[0],
        tuple(enum.meta.get("categories", ())),
    )


def _class_count(builder: Callable[..., nn.Module], state: Mapping[str, Tensor]) -> int:
    """How many classes a state dict has, read off the parameter that is the network's last."""
    with torch.device("meta"):
        last, default = list(builder().state_dict().items())[-1]
    return len(state[last]) if last in state and state[last].ndim == default.ndim else len(default)


def _with_state(net: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    try:
        net.load_state_dict(dict(state))
    except RuntimeError as problem:
        detail = " ".join(str(problem).split())[:300]
        raise UnderfireError(f"The weights in {source} do not fit the network: {detail}") from problem
    return net


def _from_file(path: Path, name: str, weights: str | None) -> LoadedNetwork:
    if not path.is_file():
        raise UnderfireError(f"There is no file {path} to take the model builder '{name}' from.")
    builder = getattr(_import(path), name, None)
    if not callable(builder):
        raise UnderfireError(f"{path} defines no function '{name}' that builds a model.")
    try:
        required = [p for p in inspect.signature(builder).parameters.values() if p.default is p.empty]
        if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in required):
            raise UnderfireError(f"{name} in {path} must be callable without arguments.")
        net = builder()
    except (RuntimeError, OSError, ValueError, TypeError) as problem:
        raise UnderfireError(f"{name} in {path} failed to build the model: {problem}") from problem
    if not isinstance(net, nn.Module):
        raise UnderfireError(f"{name} in {path} returned a {type(net).__name__}, not a torch.nn.Module.")
    return LoadedNetwork(net if weights is None else _with_state(net, read_weights(Path(weights)), weights))


def _import(path: Path) -> Any:
    """The user's own file as a module, with its folder importable as for `python file.py`."""
    spec = importlib.util.spec_from_file_location(f"underfire_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise UnderfireError(f"{path} could not be imported: {type(problem).__name__}: {problem}") from problem
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
