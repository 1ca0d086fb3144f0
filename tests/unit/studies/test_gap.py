"""Both sides of Proposition 1: what a row says, that the losses are added to an attack's run, what is counted."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from underfire.models.classifier import Classifier
from underfire.runs.folder import Run
from underfire.studies import gap

N = 4


@pytest.fixture
def measured(attack: Callable[..., Run], tiny_model: str, tmp_path: Path) -> Run:
    """An attack's run with the losses."""
    run = attack(tmp_path / "gap", interpreters=("cam",))
    gap.add(run, Classifier.load(tiny_model, None, "none"), batch_size=2)
    return run


def test_the_gap_has_a_row_for_every_image_of_every_kind(measured: Run) -> None:
    table = gap.gaps(measured)
    kinds = [("benign", None), ("noise", None), ("pgd", None), ("adv2", "cam")]
    assert [(s.attack, s.interpreter) for s in gap.summarise(table)] == kinds
    assert table.num_rows == N * 4
    for row in table.to_pylist():
        assert row["gap"] == pytest.approx(row["interpretation_loss"] - row["prediction_loss"], abs=1e-12)
        assert row["prediction_loss"] <= row["interpretation_loss"] + abs(row["completeness_error"]) + 1e-6
        if row["attack"] == "benign":
            assert row["prediction_loss"] == row["interpretation_loss"] == 0
    outcomes = {row["id"]: row for row in measured.outcomes().to_pylist() if row["attack"] == "pgd"}
    attacked = [row for row in table.to_pylist() if row["attack"] == "pgd"]
    assert [row["id"] for row in attacked] == list(outcomes)
    for row in attacked:
        assert row["class_target"] == outcomes[row["id"]]["class_target"]
        assert 0 < row["prediction_loss"] <= outcomes[row["id"]]["confidence"] + 1e-6
    assert (measured.path / gap.PLOT).read_bytes().startswith(b"<?xml")


def test_the_gap_again_computes_and_rewrites_nothing(measured: Run, tiny_model: str) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in measured.path.rglob("*") if path.is_file()}

    before, table = files(), gap.gaps(measured)
    classifier = Classifier.load(tiny_model, None, "none")
    gap.add(measured, classifier, batch_size=2)
    assert files() == before
    (measured.path / gap.TABLE).unlink()
    gap.add(measured, classifier, batch_size=2)
    assert gap.gaps(measured) == table


def test_images_beyond_the_bound_are_counted() -> None:
    columns = {
        "id": ["a", "b", "c"],
        "attack": ["pgd"] * 3,
        "interpreter": [None] * 3,
        "class_target": [0] * 3,
        "prediction_loss": [0.9, 0.9, 0.9],
        "interpretation_loss": [1.0, 0.8, 0.8],
        "gap": [0.1, -0.1, -0.1],
        "completeness_error": [0.0, -0.2, -0.01],
    }
    (summary,) = gap.summarise(pa.table(columns, gap.SCHEMA))
    assert (summary.beyond, summary.gap.n) == (1, 3)
    assert summary.error == pytest.approx(0.07)
