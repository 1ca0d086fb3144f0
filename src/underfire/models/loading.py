"""Networks by name: torchvision's, timm's, Hugging Face's, `path/file.py:builder` or `demo`, with their weights."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.models.demo import DEMO_MEAN, DEMO_STD, demo_classifier
from underfire.models.files import ClassifierManifest, Triple, read_manifest
from underfire.models.user_code import code_of, imported
from underfire.models.weights import read_weights, weight_file

NORMALISATIONS: Mapping[str, tuple[Triple, Triple]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

SMALLEST_DEVIATION, LARGEST_DEVIATION = 1e-6, 10.0
NAMED = "torchvision:NAME, timm:NAME, hf:ID-or-folder, path/file.py:builder, or demo"


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
        return normalised(_load(reference, weights), normalize)


def normalised(loaded: LoadedNetwork, normalize: str | None) -> LoadedNetwork:
    """With the normalisation that was asked for, if one was."""
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
        from underfire.models.torchvision import from_torchvision

        return from_torchvision(name, weights)
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


def said_of(part: str, path: Path) -> tuple[str, ...]:
    return (f"weights are '{part}' of {path}",) if part else ()


def as_its_file_says(loaded: LoadedNetwork, path: Path) -> LoadedNetwork:
    """With the classes, normalisation and sizes that are written in a weight file of our own training."""
    manifest = read_manifest(path, ClassifierManifest)
    if manifest is None:
        return loaded
    mean, std = check_normalisation(manifest.mean, manifest.std)
    loaded = replace(loaded, mean=mean, std=std, normalization=f"that of {path}")
    return replace(loaded, resize=manifest.resize, crop=manifest.crop, classes=manifest.classes)


def builder_in(path: Path, name: str) -> Callable[..., nn.Module]:
    """A function of the user's, called without arguments or, where it takes that, with `num_classes`."""
    if not path.is_file():
        raise UnderfireError(f"There is no file {path} to take the model builder '{name}' from.")
    with code_of(path, f"{path} could not be imported"):
        builder = getattr(imported(path), name, None)
    if not callable(builder):
        raise UnderfireError(f"{path} defines no function '{name}' that builds a model.")

    def build(num_classes: int | None = None) -> nn.Module:
        with code_of(path, f"{name} in {path} failed to build the model"):
            known = inspect.signature(builder).parameters
            required = [p for p in known.values() if p.default is p.empty]
            if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in required):
                raise UnderfireError(f"{name} in {path} must be callable without arguments.")
            net = builder(num_classes=num_classes) if num_classes and "num_classes" in known else builder()
        if not isinstance(net, nn.Module):
            raise UnderfireError(f"{name} in {path} returned a {type(net).__name__}, not a torch.nn.Module.")
        return net

    return build


def _from_file(path: Path, name: str, weights: str | None) -> LoadedNetwork:
    build = builder_in(path, name)
    if weights is None:
        return LoadedNetwork(build())
    file, part = weight_file(weights) or (Path(weights), "")
    held = read_weights(file, part)
    described = as_its_file_says(LoadedNetwork(nn.Identity()), file)
    net = build(len(described.classes) or None)
    state, part = held.of(net.state_dict())
    return replace(described, net=with_state(net, state, str(file)), assumed=said_of(part, file))
