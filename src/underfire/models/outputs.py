"""What a network returned: logits NK of finite numbers, or one sentence that says what they are instead.

    values, where = find_scores(output, images=2)      # a tensor NK, and in words where it was
    logits = OUTPUTS["logits"](values)

One number per image speaks for class 1 against class 0: its halves, with either sign, are the logits of the two.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Logits

ROUNDING = 2e-3  # of a sum of probabilities


def find_scores(output: object, images: int) -> tuple[Tensor, str]:
    """The tensor NK in what a network returned, and where it was ("" for the output itself); UnderfireError if none."""
    for where, found in _places(output):
        if isinstance(found, Tensor) and found.ndim == 2 and len(found) == images and found.shape[1]:
            return found, where
    raise UnderfireError(
        f"The model returned {_describe(output)} for {images} images; underfire needs logits of shape (N, K), as a "
        "tensor, as .logits, as the entry 'logits' or as the first tensor of a tuple. Wrap the model in a module whose "
        "forward returns them."
    )


def two_sided(values: Tensor) -> Tensor:
    """N1 as the two columns -v/2 and v/2; more columns as they are."""
    return torch.cat([-values / 2, values / 2], 1) if values.shape[1] == 1 else values


def log_probabilities(p: Tensor) -> Logits:
    """log p of each class; one probability is that of class 1."""
    both = torch.cat([1 - p, p], 1) if p.shape[1] == 1 else p
    return both.clamp_min(torch.finfo(p.dtype).tiny).log()


OUTPUTS: Mapping[str, Callable[[Tensor], Logits]] = MappingProxyType(
    {"logits": two_sided, "probabilities": log_probabilities}
)


def reader_of(outputs: str) -> Callable[[Tensor], Logits]:
    """How outputs of that kind become logits; UnderfireError if there is no such kind."""
    if outputs not in OUTPUTS:
        raise UnderfireError(f"There are no outputs '{outputs}'; a model's outputs are {' or '.join(OUTPUTS)}.")
    return OUTPUTS[outputs]


def how_read(where: str, columns: int, outputs: str) -> Iterator[str]:
    """In words, what was taken to hold of outputs that are not plain logits NK; K is the number of columns."""
    if where:
        yield f"logits are {where}"
    if columns == 1:
        yield "its one output speaks for class 1 against class 0"
    if outputs == "probabilities":
        yield "logits are the logarithm of its probabilities"


def check_logits(logits: Logits, ids: Sequence[str]) -> Logits:
    """The logits of images with these ids, or UnderfireError where they are not finite or are probabilities.

    A NaN would count as class 0; probabilities in the place of logits weaken every attack without a word.
    """
    broken = (~logits.isfinite().all(1)).nonzero()[:, 0].tolist()
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UnderfireError(
            f"The model's outputs for image {ids[broken[0]]}{more} are not finite numbers; look for NaN in its "
            "weights, at the normalisation (--normalize) and for a precision that overflows."
        )
    if are_probabilities(logits):
        raise UnderfireError(
            "The model returns probabilities (its outputs are never negative and sum to 1 for each image); underfire "
            "needs logits. Leave out the softmax at its end, or have their logarithm taken: outputs='probabilities' "
            "(--outputs probabilities)."
        )
    return logits


def are_probabilities(logits: Logits) -> bool:
    """Whether all rows are free of negative numbers and sum to 1, to the rounding of bfloat16."""
    return bool((logits >= 0).all() and ((logits.double().sum(1) - 1).abs() <= ROUNDING).all())


def _places(output: object) -> Iterator[tuple[str, object]]:
    """Where the scores may be, in words, and what is there."""
    if isinstance(output, Tensor):
        yield "", output
    elif isinstance(getattr(output, "logits", None), Tensor):
        yield "the output's .logits", getattr(output, "logits")  # noqa: B009
    elif isinstance(output, Mapping):
        yield "the output's entry 'logits'", output.get("logits")
    elif isinstance(output, list | tuple):
        yield "the first tensor of the output", next((each for each in output if isinstance(each, Tensor)), None)


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"
