"""What tests of several studies start from."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from underfire.attacks import recipes
from underfire.data.image_set import ImageSet, open_images
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.studies import effectiveness
from underfire.studies.base import Subject


@pytest.fixture(scope="module")
def attack(tiny_model: str, tiny_photos: Path) -> Iterator[Callable[..., Run]]:
    """A short attack on four photos by CAM and GRAD; recipes are short for as long as it is at hand."""

    def run(out: Path, **changes: Any) -> Run:
        given = {"model": tiny_model, "images": str(tiny_photos), "n": 4, "eps": 0.03, "steps": 4, "normalize": "none"}
        subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
        return effectiveness.execute(AttackSettings(**{**given, **changes}), subject, out, Manner("test", batch_size=2))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RECIPES", "FLOW_RECIPES"):
            known = getattr(recipes, name)
            short = replace(known["annealed"], warm_steps=4, plain_steps=8)
            patch.setattr(recipes, name, {**known, "annealed": short})
        yield run


@pytest.fixture
def classifier(tiny_model: str) -> Classifier:
    return Classifier.load(tiny_model, None, "none")


@pytest.fixture
def image_set(tiny_photos: Path) -> ImageSet:
    return open_images(tiny_photos)
