"""Find the layers of a classifier that serve as a U-Net's encoder, by watching one forward pass.

    scales = find_scales(classifier, x)                              # deepest first
    logits, features = classifier.tap(x, [scale.layer for scale in scales])

Of each spatial size the last layer counts, class maps excepted: they already are the answer.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.image_ops import cell_grid
from underfire.core.types import Images, UnderfireError
from underfire.models.classifier import Classifier
from underfire.models.tracing import named_layers, same, watching

MOST_SCALES = 4


@dataclass(frozen=True)
class Scale:
    """A layer whose output (N, channels, rows, columns) has a spatial size of its own."""

    layer: str
    channels: int
    rows: int
    columns: int


def find_scales(classifier: Classifier, x: Images) -> tuple[Scale, ...]:
    """Up to four scales, deepest first, none finer than the grid of masks unless there is no other.

    UnderfireError where the network has no layer with features (N, D, h, w).
    """
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            outputs.pop(name, None)
            outputs[name] = output

    with watching(named_layers(classifier.network), record), torch.no_grad():
        logits = classifier(x[:1]).logits
    last = {
        tuple(output.shape[2:]): Scale(name, *output.shape[1:])
        for name, output in outputs.items()
        if not any(same(maps.mean((2, 3)), logits) for maps in (output, output.relu()))
    }
    scales = sorted(last.values(), key=lambda scale: scale.rows * scale.columns)
    if not scales:
        raise UnderfireError(
            "No layer of this network gives feature maps (N, D, h, w), which a masker needs to see where things are; "
            "give it another network's with encoder= (--encoder)."
        )
    rows, columns = cell_grid(x)
    coarse = [s for s in scales if s.rows <= rows and s.columns <= columns]
    return tuple(coarse[:MOST_SCALES] or scales[:1])
