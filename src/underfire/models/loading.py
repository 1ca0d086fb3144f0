"""Networks by name: torchvision's, timm's, Hugging Face's, `path/file.py:builder` or `demo`, with their weights."""

import inspect
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.models.demo import DEMO_MEAN, DEMO_STD, demo_classifier
from underfire.models.files import ClassifierManifest, Triple, read_manifest
from underfire.models.user_code import code_of, imported
from underfire.models.weights import Weights, read_weights, weight_file

NORMALISATIONS: Mapping[str, tuple[Triple, Triple]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

SMALLEST_DEVIATION, LARGEST_DEVIATION = 1e-6, 10.0
NAMED = "torchvision:NAME, timm:NAME, hf:ID-or-folder, path/file.py:builder, or demo"
AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only training looks at


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
    interpolation: str | None = None  # with which images are resized
    assumed: tuple[str, ...] = ()  # what its weights leave open, and what was taken to hold


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
        builder = next(_variants(_builder(name), aux=(False,)))
        torch.default_generator.manual_seed(seed)
        net = builder(num_classes=len(classes))
        with torch.device("meta"):
            wider = builder(num_classes=len(classes) + 1).state_dict()
    state = net.state_dict()
    body = {name for name, value in state.items() if value.shape == wider[name].shape}
    if weights is not None:
        known = start.net.state_dict()
        kept = {
            name: value
            for name, value in known.items()
            if name in body or (name not in state and name.partition(".")[0] not in AUXILIARY)
        }
        with_state(net, {**kept, **{name: state[name] for name in state if name not in body}}, weights)
    return _normalised(replace(start, net=net, classes=classes), normalize)


def _normalised(loaded: LoadedNetwork, normalize: str | None) -> LoadedNetwork:
    if normalize is None:
        return loaded
    mean, std = parse_normalization(normalize)
    return replace(loaded, mean=mean, std=std, normalization=f"{normalize}, as asked for")


def _load(reference: str, weights: str | None) -> LoadedNetwork:
    library, _, named = reference.partition(":")
    if library == "timm":
        from underfire.models.timm import from_timm

        return from_timm(named, weights)
    if library == "hf":
        from underfire.models.huggingface import from_huggingface

        return from_huggingface(named, weights)
    kind, _, name = reference.rpartition(":")
    if reference == "demo" and weights is not None:
        raise UnderfireError("The demo's classifier brings its own weights; leave out --weights.")
    if reference == "demo":
        return _demo()
    if kind == "torchvision":
        return _from_torchvision(name, weights)
    if kind.endswith(".py"):
        return _from_file(Path(kind), name, weights)
    raise UnderfireError(f"'{reference}' does not name a model; use {NAMED}.")


def parse_normalization(text: str) -> tuple[Triple, Triple]:
    """'imagenet', 'none', 'M,M,M/S,S,S' or 'M/S' as (mean, std)."""
    if text in NORMALISATIONS:
        return NORMALISATIONS[text]
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
        (_, _, _), (_, _, _) = _triple(mean), _triple(std)
    except ValueError:
        raise UnderfireError(
            f"'{text}' is not a normalisation; use imagenet, none, or three means and three deviations as M,M,M/S,S,S, "
            "or one of each for all channels as M/S."
        ) from None
    return check_normalisation(mean, std)


def _triple(values: Sequence[float]) -> Sequence[float]:
    """One number is that of all channels."""
    return tuple(values) * 3 if len(values) == 1 else values


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Triple, Triple]:
    """Means and deviations of images in [0, 1] as they are, or UnderfireError."""
    try:
        (m1, m2, m3), (s1, s2, s3) = (_triple([float(value) for value in values]) for values in (mean, std))
    except (TypeError, ValueError):
        raise UnderfireError(
            f"The normalisation needs 3 means and 3 positive deviations, not {mean} / {std}."
        ) from None
    values = (m1, m2, m3, s1, s2, s3)
    if not all(math.isfinite(value) for value in values) or min(s1, s2, s3) < SMALLEST_DEVIATION:
        raise UnderfireError(
            f"The normalisation needs 3 means and 3 positive deviations, all finite, not {mean} / {std}."
        )
    if min(m1, m2, m3) < 0 or max(m1, m2, m3) > 1 or max(s1, s2, s3) > LARGEST_DEVIATION:
        hint = "; did you mean them divided by 255?" if min(values) >= 0 and max(values) <= 255 else "."
        raise UnderfireError(
            f"The normalisation {mean} / {std} is not one of images in [0, 1]: means lie in [0, 1] and deviations are "
            f"at most {LARGEST_DEVIATION:g}{hint}"
        )
    return (m1, m2, m3), (s1, s2, s3)


def _demo() -> LoadedNetwork:
    return LoadedNetwork(demo_classifier(), DEMO_MEAN, DEMO_STD, "the demo classifier's own")


def _from_torchvision(name: str, weights: str | None) -> LoadedNetwork:
    builder = _builder(name)
    if weights is None:
        raise UnderfireError(f"torchvision:{name} needs weights: --weights DEFAULT, another enum name, or a file.")
    file = weight_file(weights)
    return _with_enum(builder, name, weights) if file is None else _with_file(builder, name, read_weights(*file))


def _builder(name: str) -> Callable[..., nn.Module]:
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
    for variant in _variants(builder):
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
    manifest = read_manifest(weights.path, ClassifierManifest)
    if manifest is None:
        return loaded
    mean, std = check_normalisation(manifest.mean, manifest.std)
    loaded = replace(loaded, mean=mean, std=std, normalization=f"that of {weights.path}")
    return replace(loaded, resize=manifest.resize, crop=manifest.crop, classes=manifest.classes)


def _variants(
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


def said_of(part: str, path: Path) -> tuple[str, ...]:
    return (f"weights are '{part}' of {path}",) if part else ()


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


def with_state(net: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    versioned = OrderedDict(state)
    versioned._metadata = getattr(net.state_dict(), "_metadata", None)  # type: ignore[attr-defined]
    try:
        try:
            net.load_state_dict(dict(state))
        except ValueError:  # networks that ask for the version of their layers, such as MNASNet
            net.load_state_dict(versioned)
    except Exception as problem:
        detail = " ".join(str(problem).split())[:300]
        raise UnderfireError(f"The weights in {source} do not fit the network: {detail}") from problem
    return net


def _from_file(path: Path, name: str, weights: str | None) -> LoadedNetwork:
    if not path.is_file():
        raise UnderfireError(f"There is no file {path} to take the model builder '{name}' from.")
    with code_of(path, f"{path} could not be imported"):
        builder = getattr(imported(path), name, None)
    if not callable(builder):
        raise UnderfireError(f"{path} defines no function '{name}' that builds a model.")
    with code_of(path, f"{name} in {path} failed to build the model"):
        required = [p for p in inspect.signature(builder).parameters.values() if p.default is p.empty]
        if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in required):
            raise UnderfireError(f"{name} in {path} must be callable without arguments.")
        net = builder()
    if not isinstance(net, nn.Module):
        raise UnderfireError(f"{name} in {path} returned a {type(net).__name__}, not a torch.nn.Module.")
    if weights is None:
        return LoadedNetwork(net)
    file, part = weight_file(weights) or (Path(weights), "")
    state, part = read_weights(file, part).of(net.state_dict())
    return LoadedNetwork(with_state(net, state, str(file)), assumed=said_of(part, file))
