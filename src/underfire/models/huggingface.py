"""`hf:ID` and `hf:FOLDER`: image classifiers of transformers, with what their processor says of images.

    loaded = from_huggingface("google/vit-base-patch16-224", None)     # from the cache, else from the hub
    loaded = from_huggingface("my-vit/", None)                         # what save_pretrained wrote

`weights`, a state-dict file, replaces those that come with the model. No code that comes with a model is run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from underfire.core.errors import UnderfireError, first_line
from underfire.core.extras import extra
from underfire.models.loading import NORMALISATIONS, LoadedNetwork, said_of, with_state
from underfire.models.weights import read_weights, weight_file

_RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def from_huggingface(name: str, weights: str | None) -> LoadedNetwork:
    """The classifier of that name; UnderfireError if it is no image classifier or cannot be had."""
    transformers = extra("transformers", "huggingface", "Models of Hugging Face")
    with _quiet(transformers):
        try:
            net = transformers.AutoModelForImageClassification.from_pretrained(name)
        except Exception as problem:  # of the network, the disk, or a model of another kind
            raise UnderfireError(_not_had(name, problem)) from problem
        wants = _processor(transformers, name)
    assumed: tuple[str, ...] = ()
    if weights not in (None, "DEFAULT"):
        file, part = weight_file(str(weights)) or (Path(str(weights)), "")
        state, part = read_weights(file, part).of(net.state_dict())
        net, assumed = with_state(net, state, str(file)), said_of(part, file)
    return _described(net, wants, name, assumed)


def _not_had(name: str, problem: Exception) -> str:
    reason = first_line(problem)
    if Path(name).is_dir():
        return f"The folder {name} holds no image classifier that transformers can read: {reason}"
    return (
        f"hf:{name} could not be read from the cache or downloaded as an image classifier ({reason}). Bring it from a "
        f"machine with a connection: `hf download {name} --local-dir FOLDER` there, and hf:FOLDER here."
    )


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars of its own, for the time of loading."""
    logging = transformers.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _processor(transformers: Any, name: str) -> Mapping[str, Any] | None:
    """What the model's image processor does; None if it has none."""
    try:
        wants: Mapping[str, Any] = transformers.AutoImageProcessor.from_pretrained(name).to_dict()
    except Exception:  # whatever is raised where there is no configuration of it
        return None
    return wants


def _described(net: nn.Module, wants: Mapping[str, Any] | None, name: str, assumed: tuple[str, ...]) -> LoadedNetwork:
    labels = getattr(net.config, "id2label", {})
    known = [labels[i] for i in sorted(labels)]
    classes = () if all(str(label).startswith("LABEL_") for label in known) else tuple(known)
    if wants is None:
        side = getattr(net.config, "image_size", None)
        side = side if isinstance(side, int) else None
        return LoadedNetwork(net, classes=classes, crop=side, resize=side, assumed=assumed)
    mean, std = NORMALISATIONS["none"]
    if wants.get("do_normalize", True) and wants.get("image_mean") is not None:
        mean, std = tuple(wants["image_mean"]), tuple(wants["image_std"])
    resize, crop, squeezed = _sizes(wants)
    return LoadedNetwork(
        net,
        mean,
        std,
        f"that of hf:{name}",
        resize,
        crop,
        classes,
        _RESAMPLING.get(int(wants["resample"])) if wants.get("resample") is not None else None,
        (*assumed, *(("images are cropped to a square, not squeezed into one",) if squeezed else ())),
    )


def _sizes(wants: Mapping[str, Any]) -> tuple[int | None, int | None, bool]:
    """(short side, side of the central square, whether the processor has no regard for proportions)."""
    size, crop = wants.get("size") or {}, wants.get("crop_size") or {}
    short = size.get("shortest_edge")
    if wants.get("do_center_crop") and crop.get("height"):
        return short or size.get("height"), crop["height"], False
    if short and wants.get("crop_pct"):  # ConvNeXt's: a short side of size / crop_pct, then a square of the size
        return int(short / wants["crop_pct"]), short, False
    side = size.get("height") or short
    return side, side, size.get("height") is not None
