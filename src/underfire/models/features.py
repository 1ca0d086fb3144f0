"""Which layer holds the features that CAM and Grad-CAM explain, or one sentence that says why there is none.

located = locate(network, model, x[:1])                  # with its head, or as the last spatial layer
located = locate(network, model, x[:1], "layer3")        # named by the user; with the layout, if that is named too
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from underfire.core.errors import UnderfireError, first_line
from underfire.core.types import Images, Logits
from underfire.models.layout import LAYOUTS, is_plausible
from underfire.models.tracing import (
    Located,
    Trace,
    ends_in_one_cell,
    find_head,
    find_last_spatial,
    layers_to_name,
    trace,
)

NO_HEAD = "global average pooling and one linear layer behind {}, which this network does not have"


def locate(
    network: nn.Module,
    forward: Callable[[Images], Logits],
    x: Images,
    named: str | None = None,
    layout: str | None = None,
) -> Located:
    """The features of the network, found by passing one image; UnderfireError lists the layers that can be named."""
    try:
        with torch.no_grad():
            traced = trace(network, forward, x)
    except (RuntimeError, AssertionError) as problem:
        raise UnderfireError(
            f"The model fails on a single image ({first_line(problem)}); it must take any number of them."
        ) from problem
    if not traced.outputs and named is None:
        raise UnderfireError(
            "No layer of the model shows what it computes, as in TorchScript and exported networks; CAM and "
            "Grad-CAM need the network that it was made from."
        )
    if named is not None:
        return _named(traced, named, layout)
    return find_head(traced) or _last_spatial(network, forward, x, traced)


def _last_spatial(network: nn.Module, forward: Callable[[Images], Logits], x: Images, traced: Trace) -> Located:
    with torch.inference_mode(False), torch.enable_grad():
        located = find_last_spatial(trace(network, forward, x.detach().clone().requires_grad_()))
    if located is None:
        raise UnderfireError(
            "No layer was found with a grid of 2 × 2 cells or more on which the logits depend, for CAM and Grad-CAM; "
            f"give larger images, or name the layer to explain with features= (--features){_candidates(traced)}."
        )
    height, width = traced.sides
    single = f"a grid of features, but that of images of {width} × {height} pixels is a single cell (1 × 1)"
    return replace(located, obstacle=single if ends_in_one_cell(traced) else NO_HEAD.format("its features"))


def _named(traced: Trace, name: str, layout: str | None) -> Located:
    """The layer of that name, as the weights or the user say that it is laid out."""
    outputs = traced.named(name).outputs
    if not outputs:
        raise UnderfireError(
            f"Layer '{name}' gives no feature maps (N, D, h, w); name another layer{_candidates(traced)}."
        )
    (watched,) = outputs
    if layout is None and (found := find_head(traced.named(name))) is not None:
        return found
    known = watched.layouts(traced.sides) if layout is None else [layout]
    features = LAYOUTS[known[0]](watched.output, traced.sides) if known else None
    if features is None or not is_plausible(features, traced.sides):
        height, width = traced.sides
        raise UnderfireError(
            f"The output of layer '{name}', {tuple(watched.output.shape)}, is no grid of features of an image of "
            f"{width} × {height} pixels: 2 × 2 cells or more, of its proportions, and channels that the weights around "
            f"it have. Name another layer, or the layout with layout= (--layout){_candidates(traced)}."
        )
    return Located(name, layout=known[0], obstacle=NO_HEAD.format(f"'{name}'"))


def _candidates(traced: Trace) -> str:
    names = layers_to_name(traced)
    return f". Candidates: {', '.join(names)}" if names else ""
