"""Parts of a set of images that share no group: all photos of one lesion are on one side.

    test = apart(lesions, labels, share=0.2, seed=0, purpose="split")      # a flag per image

Groups are drawn class by class, each from the seed and its own name, so that neither order nor further columns matter.
"""

from collections.abc import Sequence

import torch

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys, uniform
from underfire.core.types import Flags

TRAIN, TEST = "train", "test"
TEST_SHARE, TEST_SEED = 0.2, 0


def part(wanted: str, told: Sequence[str], groups: Sequence[str], labels: Sequence[int]) -> list[int]:
    """Indices of the images of a part: those told to be of it, or, where nothing is told, drawn by group.

    UnderfireError names the parts that there are.
    """
    parts = told if any(told) else drawn(groups, labels)
    if wanted not in parts:
        known = " or ".join(sorted({f"'{name}'" for name in parts if name}))
        raise UnderfireError(f"there is no split '{wanted}' of these images: give {known}")
    return [i for i, name in enumerate(parts) if name == wanted]


def drawn(groups: Sequence[str], labels: Sequence[int]) -> list[str]:
    """train or test for each image, always the same for the same groups and labels."""
    return [TEST if held_out else TRAIN for held_out in apart(groups, labels, TEST_SHARE, TEST_SEED, "split").tolist()]


def apart(groups: Sequence[str], labels: Sequence[int], share: float, seed: int, purpose: str) -> Flags:
    """Which images to set apart: of each class a share of its groups, one or more wherever it has two.

    A group's class is the lowest of its images' labels.
    """
    classes: dict[str, int] = {}
    for group, label in zip(groups, labels, strict=True):
        classes[group] = min(label, classes.get(group, label))
    names = sorted(classes)
    keys = image_keys(names)
    draws = uniform(seed, purpose, keys, torch.zeros_like(keys), 1)[:, 0].tolist()
    members: dict[int, list[str]] = {}
    for _, name in sorted(zip(draws, names, strict=True)):
        members.setdefault(classes[name], []).append(name)
    chosen = {name for drawn in members.values() for name in drawn[: _count(len(drawn), share)]}
    return torch.tensor([group in chosen for group in groups], dtype=torch.bool)


def _count(groups: int, share: float) -> int:
    return min(max(1, round(share * groups)), groups - 1)
