"""The smallest change in L2 and the smallest patch that betray."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from underfire.attacks import recipes
from underfire.core.errors import UnderfireError
from underfire.data.image_set import ImageSet
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner, execute
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan
from underfire.runs.specs import key
from underfire.studies import threats
from underfire.studies.base import Subject

N = 3


@pytest.fixture
def run(
    tiny_model: str,
    tiny_photos: Path,
    classifier: Classifier,
    image_set: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Run, AttackPlan]:
    """Three photos by CAM, which is in closed form, and by MASK, which is not; two budgets of each threat."""
    for name in ("RECIPES", "L2_RECIPES"):
        known = getattr(recipes, name)
        monkeypatch.setattr(recipes, name, {each: replace(recipe, warm_steps=2) for each, recipe in known.items()})
    monkeypatch.setattr(threats, "LENGTHS", (0.25, 4.0))
    monkeypatch.setattr(threats, "SIDES", (0.25, 0.5))
    given: dict[str, Any] = {"model": tiny_model, "images": str(tiny_photos), "normalize": "none", "n": N, "steps": 4}
    settings = AttackSettings(**given, interpreters=("cam",))
    made = threats.experiment(settings, Subject(classifier, image_set))
    run = execute(made, tmp_path / "threats", classifier, Manner("test"))
    select = made.plan[0].spec
    return run, AttackPlan.of(settings, select)  # type: ignore[arg-type]


def test_each_image_meets_every_budget_and_keeps_it(run: tuple[Run, AttackPlan]) -> None:
    made, plan = run
    rows = threats.threats(made).to_pylist()
    assert [(row["threat"], row["budget"]) for row in rows[::N]] == [
        *(("l2", 0.25), ("l2", 4.0), ("patch", 0.25), ("patch", 0.5))
    ]
    ids, benign = made.images("benign")
    for each in threats.threats_of(plan):
        change = made.store.read(key(each.craft), "image", tuple(ids)).numpy() - benign
        if each.name == "l2":
            assert (np.sqrt((change**2).sum((1, 2, 3))) <= each.budget + 1e-5).all()
        else:
            edge = (16 - round(16 * each.budget)) // 2
            outside = np.ones((16, 16), dtype=bool)
            outside[edge : 16 - edge, edge : 16 - edge] = False
            assert not change[:, :, outside].any()


def test_betrayed_are_successes_whose_maps_stay_within_natural_variation(run: tuple[Run, AttackPlan]) -> None:
    for row in threats.threats(run[0]).to_pylist():
        assert row["betrayed"] <= row["success"]
        assert row["betrayed"] == (row["success"] and row["map_l1"] <= row["natural_l1"])


def test_an_image_is_betrayed_within_its_smallest_budget_and_all_larger_ones() -> None:
    def row(image: str, budget: float, betrayed: bool) -> dict[str, Any]:
        return {"id": image, "interpreter": "cam", "threat": "l2", "budget": budget, "betrayed": betrayed}

    found = [
        ("a", 1.0, True),
        ("b", 1.0, False),
        ("c", 1.0, False),
        ("a", 2.0, False),
        ("b", 2.0, True),
        ("c", 2.0, False),
    ]
    curve = threats.curves(pa.Table.from_pylist([row(*each) for each in found], threats.SCHEMA))["cam", "l2"]
    assert (curve.grid, curve.smallest) == ((1.0, 2.0), (1.0, 2.0, inf))
    assert [point.share for point in curve.points()] == pytest.approx([1 / 3, 2 / 3])
    assert curve.median[0] == 2.0


def test_interpreters_that_are_optimised_alone_are_refused(
    tiny_model: str, tiny_photos: Path, classifier: Classifier, image_set: ImageSet
) -> None:
    settings = AttackSettings(model=tiny_model, images=str(tiny_photos), normalize="none", interpreters=("mask",))
    with pytest.raises(UnderfireError, match="needs an interpreter in closed form"):
        threats.experiment(settings, Subject(classifier, image_set))
