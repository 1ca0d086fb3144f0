"""A new threat model is one perturbation and one row: nothing else knows what solvers there are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from underfire.attacks import recipes
from underfire.attacks.names import SOLVERS, AttackSolver, attack_name, attacker, in_order
from underfire.attacks.perturbations import Added
from underfire.core.errors import UnderfireError
from underfire.core.types import Images, Row
from underfire.data.image_set import open_images
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute


@dataclass(frozen=True)
class ManhattanBall(Added):
    """x = x0 + theta with |theta|_1 <= eps."""

    eps: float = 20.0

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return x0 + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        length = theta.flatten(1).norm(p=1, dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return (x0 + theta * (self.eps / length).clamp_max(1)).clamp(0, 1) - x0

    def measures(self, theta: Tensor) -> Mapping[str, Row]:
        return {"length": theta.flatten(1).norm(p=1, dim=1)}


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> AttackSolver:
    recipe = replace(recipes.RECIPES["annealed"], perturbation=ManhattanBall(), warm_steps=2, plain_steps=2)
    titles = ("L1", "ADV² in L1", "ADV² in L1 on the ensemble")
    does = "changes pixel values within an L1 ball"
    row = AttackSolver("l1", "adv2-l1", *titles, does, lambda: {"annealed": recipe}, ("eps",), ("length",))
    monkeypatch.setitem(SOLVERS, "l1", row)
    return row


def test_a_row_is_all_that_a_run_needs(row: AttackSolver, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    given = {"model": tiny_model, "images": str(tiny_photos), "normalize": "none", "n": 3, "steps": 2, "eps": 15.0}
    settings = AttackSettings(**given, solvers=("l1",), interpreters=("cam", "grad"), evade=("fs:bits:3", "ensemble"))
    subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
    run = execute(settings, subject, tmp_path / "run", Manner("test"))
    outcomes = run.outcomes().to_pylist()
    facts = {each["attack"]: (each["solver"], each["map_aware"], each["evades"]) for each in outcomes}
    assert facts == {
        "l1": ("l1", False, None),
        "adv2-l1": ("l1", True, None),
        "adv2-l1-evading-fs:bits:3": ("l1", True, "fs:bits:3"),
        "adv2-l1-ensemble": ("l1", True, "ensemble"),
    }
    assert all(0 < each["length"] <= 15.0 + 1e-3 and each["flow_mean"] is None for each in outcomes)
    moved = run.thetas("l1")[1]
    lengths = {id: float(np.abs(theta).sum()) for id, theta in zip(run.thetas("l1")[0], moved, strict=True)}
    assert all(
        each["length"] == pytest.approx(lengths[each["id"]], rel=1e-5) for each in outcomes if each["attack"] == "l1"
    )


def test_its_names_are_known_everywhere(row: AttackSolver) -> None:
    assert attack_name("l1") == "L1"
    assert attack_name("adv2-l1-evading-fs:median:3") == "ADV² in L1 evading median 3×3"
    assert attack_name("adv2-l1-ensemble") == "ADV² in L1 on the ensemble"
    assert in_order(["adv2-l1", "stadv", "l1", "pgd"]) == ["pgd", "stadv", "l1", "adv2-l1"]
    known = attacker("adv2-l1")
    assert known is not None
    assert known.solver == row


def test_its_words_stand_in_errors(row: AttackSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "l1", replace(row, budget=()))
    with pytest.raises(UnderfireError, match="Solver 'l1' changes pixel values within an L1 ball; leave out --eps"):
        AttackSettings(model="demo", images="demo", solvers=("l1",), eps=0.1)
