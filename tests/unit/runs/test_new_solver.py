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
from underfire.runs.settings import AttackSettings
from underfire.studies.effectiveness import execute


@dataclass(frozen=True)
class L2Ball(Added):
    """x = x0 + theta with |theta|_2 <= eps."""

    eps: float = 0.5

    def decode(self, x0: Images, theta: Tensor) -> Images:
        return x0 + theta

    def project(self, x0: Images, theta: Tensor) -> Tensor:
        length = theta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
        return (x0 + theta * (self.eps / length).clamp_max(1)).clamp(0, 1) - x0

    def measures(self, theta: Tensor) -> Mapping[str, Row]:
        return {"ball": theta.flatten(1).norm(dim=1)}


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> AttackSolver:
    recipe = replace(recipes.RECIPES["annealed"], perturbation=L2Ball(), warm_steps=2, plain_steps=2)
    titles = ("L2", "ADV² in L2", "ADV² in L2 on the ensemble")
    does = "changes pixel values within an L2 ball"
    row = AttackSolver("l2", "adv2-l2", *titles, does, lambda: {"annealed": recipe}, ("eps",), ("ball",))
    monkeypatch.setitem(SOLVERS, "l2", row)
    return row


def test_a_row_is_all_that_a_run_needs(row: AttackSolver, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    given = {"model": tiny_model, "images": str(tiny_photos), "normalize": "none", "n": 3, "steps": 2, "eps": 0.25}
    settings = AttackSettings(**given, solvers=("l2",), interpreters=("cam", "grad"), evade=("fs:bits:3", "ensemble"))
    classifier = Classifier.load(tiny_model, None, "none")
    run = execute(settings, classifier, open_images(tiny_photos), tmp_path / "run", command="test")
    outcomes = run.outcomes().to_pylist()
    facts = {each["attack"]: (each["solver"], each["map_aware"], each["evades"]) for each in outcomes}
    assert facts == {
        "l2": ("l2", False, None),
        "adv2-l2": ("l2", True, None),
        "adv2-l2-evading-fs:bits:3": ("l2", True, "fs:bits:3"),
        "adv2-l2-ensemble": ("l2", True, "ensemble"),
    }
    assert all(0 < each["ball"] <= 0.25 + 1e-6 and each["flow_mean"] is None for each in outcomes)
    moved = run.thetas("l2")[1]
    lengths = {id: float(np.linalg.norm(theta)) for id, theta in zip(run.thetas("l2")[0], moved, strict=True)}
    assert all(each["ball"] == pytest.approx(lengths[each["id"]]) for each in outcomes if each["attack"] == "l2")


def test_its_names_are_known_everywhere(row: AttackSolver) -> None:
    assert attack_name("l2") == "L2"
    assert attack_name("adv2-l2-evading-fs:median:3") == "ADV² in L2 evading median 3×3"
    assert attack_name("adv2-l2-ensemble") == "ADV² in L2 on the ensemble"
    assert in_order(["adv2-l2", "stadv", "l2", "pgd"]) == ["pgd", "stadv", "l2", "adv2-l2"]
    known = attacker("adv2-l2")
    assert known is not None
    assert known.solver == row


def test_its_words_stand_in_errors(row: AttackSolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "l2", replace(row, budget=()))
    with pytest.raises(UnderfireError, match="Solver 'l2' changes pixel values within an L2 ball; leave out --eps"):
        AttackSettings(model="demo", images="demo", solvers=("l2",), eps=0.1)
