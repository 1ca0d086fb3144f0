"""Both sides of Proposition 1, and IG's maps: what a row says, how it is added to a run, what is averaged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from underfire.core.io import rows_where
from underfire.core.rng import image_keys
from underfire.interpreters import IG
from underfire.metrics.maps import compare_maps
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.studies import gap

N = 4


@pytest.fixture(scope="module")
def measured(attack: Callable[..., Run], tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An attack's run with the losses."""
    run = attack(tmp_path_factory.mktemp("runs") / "gap", interpreters=("cam",))
    gap.add(run, Classifier.load(tiny_model, None, "none"), Manner("test", batch_size=2))
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
    gap.add(measured, classifier, Manner("test", batch_size=2))
    assert files() == before
    (measured.path / gap.TABLE).unlink()
    gap.add(measured, classifier, Manner("test", batch_size=2))
    assert gap.gaps(measured) == table


def test_maps_are_those_that_ig_would_show(measured: Run) -> None:
    """Each against the benign image's, for the class that is reported, whether the attack succeeded or not."""
    classifier = Classifier.load(str(measured.info["spec"]["model"]), None, "none")
    ids, images = measured.images("benign")

    def maps(images: npt.NDArray[np.float32]) -> Tensor:
        x = torch.from_numpy(images)
        return IG().explain(classifier, x, classifier(x).argmax(1), image_keys(ids)).float()

    benign = maps(images)
    for attack, interpreter in (("benign", None), ("pgd", None), ("adv2", "cam")):
        found = rows_where(gap.gaps(measured), attack=attack, interpreter=interpreter)
        expected = compare_maps(maps(measured.images(attack, interpreter)[1]), benign)
        assert found["id"].to_pylist() == list(ids)
        assert found["ig_l1"].to_pylist() == pytest.approx(expected["map_l1"].tolist(), abs=1e-5)
        assert found["ig_iou"].to_pylist() == pytest.approx(expected["iou_mean"].tolist(), abs=0.02)
    still = rows_where(gap.gaps(measured), attack="benign")
    assert (set(still["ig_l1"].to_pylist()), set(still["ig_iou"].to_pylist())) == ({0.0}, {1.0})


def rows_of(losses: list[float], errors: list[float], overlaps: list[float | None]) -> pa.Table:
    n = len(losses)
    columns = {
        "id": [f"{i}" for i in range(n)],
        "attack": ["pgd"] * n,
        "interpreter": [None] * n,
        "class_target": [0] * n,
        "prediction_loss": losses,
        "interpretation_loss": [1.0] * n,
        "gap": [1 - each for each in losses],
        "completeness_error": errors,
        "ig_l1": [0.25] * n,
        "ig_iou": overlaps,
    }
    return pa.table(columns, gap.SCHEMA)


def test_errors_are_shares_of_the_mean_size_of_the_prediction_loss() -> None:
    """Under noise a probability falls as often as it rises, and the sizes are what the integral is to get right."""
    (summary,) = gap.summarise(rows_of([0.9, -0.7, 0.8], [0.0, -0.2, -0.04], [0.5, None, 0.25]))
    assert summary.mean_error.value == pytest.approx(0.08 / 0.8)
    assert summary.largest_error.value == pytest.approx(0.2 / 0.8)
    assert (summary.mean_error.n, summary.ig_l1.value) == (3, 0.25)
    assert (summary.ig_iou.value, summary.ig_iou.n) == (0.375, 2)


def test_where_nothing_is_lost_an_error_is_a_share_of_nothing() -> None:
    table = rows_of([0.0, 0.0], [0.0, 0.0], [1.0, 1.0])
    (summary,) = gap.summarise(table)
    assert summary.mean_error.n == summary.largest_error.n == 0
    (row,) = gap.both_sides_and_map(table).rows
    assert [cell[0].text for cell in row.cells] == ["0.000", "1.000", "1.000", "–", "–", "0.250", "1.000"]
