"""Where a layer's output has its channels, and how its cells lie on the image.

    features = LAYOUTS["tokens"](output, (224, 224))        # NDhw, or None where the output cannot be that

Convolutions give N D h w, many transformers N h w D or tokens N T D: a row of cells behind up to five tokens of
another kind (class, registers). Which it is, the weights tell that made the output or read it next, by their number of
channels.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isqrt
from types import MappingProxyType

from torch import Tensor

from underfire.core.types import Features

MOST_PREFIXES = 5
Sides = tuple[int, int]  # of the images, rows first


def channels_first(output: Tensor, sides: Sides) -> Features | None:
    return output if output.ndim == 4 else None


def channels_last(output: Tensor, sides: Sides) -> Features | None:
    return output.permute(0, 3, 1, 2) if output.ndim == 4 else None


def tokens(output: Tensor, sides: Sides) -> Features | None:
    """The cells lie row by row behind other tokens, see `token_grid`."""
    found = token_grid(output.shape[1], sides) if output.ndim == 3 else None
    return None if found is None else output[:, found[0] :].transpose(1, 2).reshape(len(output), -1, *found[1])


LAYOUTS: Mapping[str, Callable[[Tensor, Sides], Features | None]] = MappingProxyType(
    {"channels-first": channels_first, "channels-last": channels_last, "tokens": tokens}
)
_CHANNELS = {"channels-first": 1, "channels-last": -1, "tokens": -1}  # the axis


def layouts_of(output: Tensor, sizes: Sequence[int], sides: Sides) -> Iterator[str]:
    """The layouts that an output may have, by the numbers of channels of its neighbours and by its proportions.

    Where N D h w and N h w D both fit, as with as many channels as columns, the former comes first.
    """
    for name, axis in _CHANNELS.items():
        features = LAYOUTS[name](output, sides)
        if features is not None and output.shape[axis] in sizes and is_plausible(features, sides):
            yield name


def is_plausible(features: Features, sides: Sides) -> bool:
    """Whether the grid is at least 2 x 2, no finer than the image, and of its proportions to a cell."""
    (rows, columns), (height, width) = features.shape[2:], sides
    if min(rows, columns) < 2 or rows > height or columns > width:
        return False
    return abs(rows * width - columns * height) <= max(sides)


def token_grid(tokens: int, sides: Sides) -> tuple[int, Sides] | None:
    """As few other tokens as leave a grid of the image's proportions, and its rows and columns; None if none does."""
    for others in range(MOST_PREFIXES + 1):
        grid = _grid(tokens - others, sides)
        if grid is not None:
            return others, grid
    return None


def _grid(cells: int, sides: Sides) -> Sides | None:
    """Rows and columns of that many square cells that fill the image; None if they cannot."""
    height, width = sides
    rows = isqrt(max(cells, 0) * height // width)
    return next(
        ((r, cells // r) for r in (rows, rows + 1) if r > 1 and cells % r == 0 and r * width == cells // r * height),
        None,
    )
