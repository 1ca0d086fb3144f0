"""What a network returned: logits NK of finite numbers, or one sentence that says what they are instead."""

from collections.abc import Sequence

from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Logits

ROUNDING = 2e-3  # of a sum of probabilities


def check_shape(output: object, images: int) -> Logits:
    """The output itself, or UnderfireError unless it is a tensor NK of K >= 2 numbers per image."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != images:
        raise UnderfireError(
            f"The model returned {_describe(output)} for {images} images; underfire needs logits of shape (N, K). "
            "Wrap the model in a module whose forward returns them."
        )
    if output.shape[1] < 2:
        raise UnderfireError("The model has one output; underfire needs at least two classes.")
    return output


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
            "needs logits. Leave out the softmax at its end, or return the probabilities' logarithm."
        )
    return logits


def are_probabilities(logits: Logits) -> bool:
    """Whether all rows are free of negative numbers and sum to 1, to the rounding of bfloat16."""
    return bool((logits >= 0).all() and ((logits.double().sum(1) - 1).abs() <= ROUNDING).all())


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"
