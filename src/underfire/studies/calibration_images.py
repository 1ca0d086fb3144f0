"""The benign images that calibrate detectors: others than the run's, as they are met on the way to n correct ones.

    unseen = not_attacked(run, attacked_ids, image_set)
    found = met(Meet(fingerprint, unseen.digest, 200, seed=0), unseen, classifier, store, fpr=0.05)
    images = found.halved(seed=0, groups=unseen.groups_of(found.ids))

Correct ones of one half set thresholds, as the paper's do. The other half checks them as it comes: right and wrong ones
in the proportion in which they are met. Images of one group are never in both halves, nor both attacked and here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from underfire.core.errors import UnderfireError
from underfire.core.rng import halves
from underfire.core.types import Flags
from underfire.data.image_set import ImageSet
from underfire.detection.calibration import check_enough
from underfire.models.classifier import Classifier
from underfire.runs.choosing import encounter, keep
from underfire.runs.folder import Run
from underfire.runs.specs import Meet, key
from underfire.runs.store import Store
from underfire.studies.detections import CHECK, FIT


@dataclass(frozen=True)
class CalibrationImages:
    """The part of each image, FIT or CHECK, and whether it is classified correctly, as all are that are fitted to."""

    ids: tuple[str, ...]
    parts: tuple[str, ...]
    correct: Flags

    @property
    def fitting(self) -> Flags:
        return torch.tensor([part == FIT for part in self.parts])


@dataclass(frozen=True)
class Met:
    """Images in the order in which they were met, up to the last correct one that was asked for."""

    ids: tuple[str, ...]
    correct: Flags

    @property
    def misclassified(self) -> int:
        return int((~self.correct).sum())

    def halved(self, seed: int, groups: Sequence[str]) -> CalibrationImages:
        """Half of the correct ones to fit to, and whatever is in the other half to check; the rest has no use."""
        fitting, checking = halves(self.ids, seed, groups, self.correct)
        part = {**{i: FIT for i in fitting.tolist() if self.correct[i]}, **dict.fromkeys(checking.tolist(), CHECK)}
        used = sorted(part)
        return CalibrationImages(tuple(self.ids[i] for i in used), tuple(part[i] for i in used), self.correct[used])


def not_attacked(run: Run, attacked: tuple[str, ...], image_set: ImageSet) -> ImageSet:
    """The images that the run did not attack and of whose group it attacked none; UnderfireError if there are none."""
    groups = set(image_set.groups_of(attacked))
    others = [i for i, group in enumerate(image_set.groups_of(image_set.ids)) if group not in groups]
    if not others:
        alike = " or others of their groups" if len(image_set) > len(attacked) else ""
        raise UnderfireError(
            f"{run.path} attacked all of its {len(attacked)} images{alike} and leaves none to calibrate on."
        )
    return image_set.take(others)


def met(source: Meet, unseen: ImageSet, classifier: Classifier, store: Store, fpr: float) -> Met:
    """What the store holds, or else all that there are; UnderfireError, and nothing stored, if too few are correct."""
    held = _held(source, store)
    if int(held.correct.sum()) == source.n:
        return held
    found = encounter(source, unseen, classifier)
    check_enough(int(found.correct.sum()) // 2, fpr)
    keep(source, found.chosen, store, predicted=found.predicted)
    return Met(found.chosen.ids, found.correct)


def _held(source: Meet, store: Store) -> Met:
    ids = store.done(key(source))
    if not ids:
        return Met((), torch.zeros(0, dtype=torch.bool))
    predicted, label = (store.read(key(source), name, ids) for name in ("predicted", "label"))
    correct = predicted == label
    end = int((correct.cumsum(0) < source.n).sum()) + 1
    return Met(ids[:end], correct[:end])
