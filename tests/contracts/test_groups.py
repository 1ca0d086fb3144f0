"""Images of one group, such as photos of one lesion, are never on both sides of what is fitted and what is judged."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from underfire.core.io import read_json, rows_where
from underfire.core.rng import halves
from underfire.data.decode import ArraySource
from underfire.data.image_set import ImageSet
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner, execute
from underfire.runs.study_settings import DetectSettings
from underfire.studies import detect, effectiveness, localisation
from underfire.studies.base import Subject
from underfire.studies.detections import DETECTORS, calibrations, detections

SIZES = (3, 1, 2, 1, 4, 1, 1, 2, 3, 1, 2, 1, 1, 2, 3, 2)  # of groups
GROUPS = tuple(f"lesion {number}" for number, size in enumerate(SIZES) for _ in range(size))
IDS = tuple(f"photo {i}" for i in range(len(GROUPS)))
FPR = 0.2


def groups_of(ids: Iterable[str]) -> set[str]:
    return {GROUPS[IDS.index(name)] for name in ids}


@pytest.fixture
def image_set() -> ImageSet:
    """Thirty pictures in sixteen groups; the network of tiny.py knows the class of each; every fifth label is wrong."""
    channel = np.arange(len(IDS)) % 3
    pixels = np.random.default_rng(0).integers(80, 160, (len(IDS), 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(len(IDS)), :, :, channel] += 10
    labels = torch.from_numpy(2 - channel)
    labels[::5] = (labels[::5] + 1) % 3
    return ImageSet(IDS, labels, ("blue", "green", "red"), ArraySource(pixels), groups=GROUPS)


@pytest.mark.parametrize("seed", range(50))
def test_no_group_is_in_both_halves(seed: int) -> None:
    counted = torch.arange(len(IDS)) % (2 + seed % 4) > 0
    fitting, judged = halves(IDS, seed, GROUPS, counted)
    assert groups_of(IDS[i] for i in fitting).isdisjoint(groups_of(IDS[i] for i in judged))
    assert sorted([*fitting.tolist(), *judged.tolist()]) == list(range(len(IDS)))
    assert counted[judged].any()
    half = int(counted.sum()) // 2
    assert half <= int(counted[fitting].sum()) < half + max(SIZES)


def test_detectors_are_checked_on_other_groups_than_they_are_fitted_to_and_than_were_attacked(
    image_set: ImageSet, tiny_model: str, tmp_path: Path
) -> None:
    classifier = Classifier.load(tiny_model, None, "none")
    settings = AttackSettings(
        model=tiny_model, images="photos", n=3, steps=2, eps=0.02, interpreters=("cam",), normalize="none"
    )
    run = effectiveness.execute(settings, Subject(classifier, image_set), tmp_path / "run", Manner("test"))
    wanted = DetectSettings(detector="fs:bits:3", benign=40, fpr=FPR)
    detect.execute(wanted, run, Subject(classifier, image_set), Manner("test"))
    table = detections(run)
    fitted, checked = (rows_where(table, part=part) for part in ("fit", "check"))
    sides = [groups_of(each["id"].to_pylist()) for each in (fitted, checked)]
    assert sides[0].isdisjoint(sides[1])
    assert groups_of(run.ids).isdisjoint(sides[0] | sides[1])
    assert all(fitted["correct"].to_pylist())
    assert set(checked["correct"].to_pylist()) == {True, False}
    (found,) = calibrations(table)
    benign = read_json(run.path / DETECTORS)["benign"]
    assert benign["found"] == found.fitted + found.false_positives.correct.n
    assert benign["misclassified"] >= found.false_positives.misclassified.n > 0


def test_rules_of_localisation_are_judged_on_other_groups_than_they_are_chosen_by(
    image_set: ImageSet, tiny_model: str, tmp_path: Path
) -> None:
    white = np.zeros((len(IDS), 16, 16, 3), dtype=np.uint8)
    white[:, 4:12, 4:12] = 255
    masks = replace(image_set, source=ArraySource(white))
    classifier = Classifier.load(tiny_model, None, "none")
    settings = localisation.LocalisationSettings(
        model=tiny_model, images="photos", masks="masks", n=len(IDS), interpreters=("cam",), normalize="none"
    )
    made = localisation.experiment(settings, Subject(classifier, image_set, masks))
    table = localisation.localisations(execute(made, tmp_path / "run", classifier, Manner("test")))
    sides = [groups_of(rows_where(table, half=half)["id"].to_pylist()) for half in ("validation", "test")]
    assert sides[0].isdisjoint(sides[1])
    assert sides[0] | sides[1] == set(GROUPS)
