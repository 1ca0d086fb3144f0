"""What the attacker asks for: the class to be reported."""

import torch
from torch import Tensor

from underfire import rng
from underfire.types import Keys, Labels, UnderfireError


def random_class(labels: Labels, classes: int, keys: Keys, seed: int) -> Labels:
    """A uniformly random class other than the label, a function of (seed, image) alone."""
    offset = rng.integers(seed, "target class", keys, torch.zeros_like(keys), 1, classes - 1)[:, 0]
    return (labels + 1 + offset) % classes


def check_targets(target: Tensor, current: Labels, classes: int) -> Labels:
    """A copy of the targets as int64, or UnderfireError unless each is a class and differs from the current one."""
    if not isinstance(target, Tensor) or target.shape != current.shape or target.is_floating_point():
        given = f"of shape {tuple(target.shape)}" if isinstance(target, Tensor) else f"as {type(target).__name__}"
        raise UnderfireError(
            f"Give one integer target class per image in a tensor: {len(current)} images, targets {given}."
        )
    target = target.to(current, copy=True)
    if bool(((target < 0) | (target >= classes)).any()):
        wrong = int(target[(target < 0) | (target >= classes)][0])
        raise UnderfireError(f"Target class {wrong} does not exist; the model has classes 0 to {classes - 1}.")
    if bool((target == current).any()):
        index = int((target == current).nonzero()[0, 0])
        raise UnderfireError(
            f"Image {index} already is of its target class {int(target[index])}; choose another target for it."
        )
    return target
