"""What an explanation function returned, as attributions N C h w; and how they become maps in [0, 1].

    raw = attributions(returned, x, "captum-Saliency")
    maps = Post()(raw, x)

Functions return torch or numpy, one array or one per image, with or without channels, in front or behind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import block_mean, cell_side, normalise_map
from underfire.core.types import Images, Maps

Attributions = Float[Tensor, "n c p q"]
COLOURS = (1, 3)


def attributions(returned: Any, x: Images, name: str) -> Attributions:
    """NChw on the images' device; UnderfireError unless there is one array for each image."""
    values = _tensor(returned)
    if values is not None and values.is_floating_point():
        if values.ndim == 3 and len(values) == len(x):
            return values[:, None].to(x.device)
        if values.ndim == 4 and len(values) == len(x):
            behind = values.shape[-1] in COLOURS and values.shape[1] not in COLOURS
            return (values.permute(0, 3, 1, 2) if behind else values).to(x.device)
    given = f"{values.dtype} of shape {tuple(values.shape)}" if values is not None else f"a {type(returned).__name__}"
    raise UnderfireError(
        f"'{name}' explained {len(x)} images by {given}; it must return floats of shape (N, rows, columns) or "
        "(N, channels, rows, columns), one map for each image."
    )


def _tensor(value: Any) -> Tensor | None:
    """Of arrays and of lists of them; None of anything else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value))
    if isinstance(value, list | tuple):
        each = [_tensor(one) for one in value]
        arrays = [one for one in each if one is not None]
        if len(arrays) == len(each) > 0 and len({one.shape for one in arrays}) == 1:
            return torch.stack(arrays) if arrays[0].ndim < 4 else arrays[0]
    return None


Sign = Callable[[Tensor], Tensor]
SIGNS: Mapping[str, Sign] = MappingProxyType(
    {"absolute": Tensor.abs, "positive": Tensor.relu, "signed": lambda values: values}
)
CHANNELS: Mapping[str, Callable[[Tensor, Sign], Tensor]] = MappingProxyType(
    {"max": lambda values, sign: sign(values).amax(1), "sum": lambda values, sign: sign(values.sum(1))}
)


@dataclass(frozen=True)
class Post:
    """How attributions become maps: sign, channels, averages over blocks where they are as fine as the image, mm.

    By default as GRAD's: the largest absolute value over channels; signed where there is one channel.
    UnderfireError for words that are none of SIGNS and CHANNELS.
    """

    sign: str | None = None
    channels: str = "max"
    pool: bool = True

    def __post_init__(self) -> None:
        if self.channels not in CHANNELS or (self.sign is not None and self.sign not in SIGNS):
            raise UnderfireError(
                f"Attributions become maps by sign= {', '.join(SIGNS)} and channels= {', '.join(CHANNELS)}."
            )

    def __call__(self, raw: Attributions, x: Images) -> Maps:
        sign = self.sign or ("absolute" if raw.shape[1] > 1 else "signed")
        maps = CHANNELS[self.channels](raw, SIGNS[sign])
        if self.pool and maps.shape[1:] == x.shape[2:]:
            maps = block_mean(maps, cell_side(x))
        return normalise_map(maps)
