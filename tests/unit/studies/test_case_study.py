"""The case study: where maps lie against hand-made lesions, what is asked of the classifier, and hostile names."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from printed import by_name, held_run, names_of, numbers, printed
from tiny_report import HOSTILE_CLASS, INFO, FakeRun, HeldRun, Tags
from underfire.core.io import write_table
from underfire.metrics.intervals import wilson
from underfire.studies import case_study, paper
from underfire.studies.case_study import MOST_CLASSES, overlap
from underfire.studies.figures import png
from underfire.studies.tables import Table, Value, csv_of, html_of, latex_of

IDS = ("a.png", "b.png")
LESION = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
MEASURES = ("iou", "inside", "points_at_object")


def measured(attribution: torch.Tensor, lesion: torch.Tensor = LESION) -> list[float]:
    """IoU, share inside and pointing of one map."""
    found = overlap(attribution[None], lesion[None])
    assert tuple(found) == MEASURES
    return [float(found[name]) for name in MEASURES]


# ------------------------------------------------------------------ overlap


def test_a_map_that_is_the_lesion_agrees_with_it() -> None:
    assert measured(LESION.float()) == [1, 1, 1]


def test_a_map_beside_the_lesion_has_nothing_in_common() -> None:
    assert measured((~LESION).float()) == [0, 0, 0]


def test_a_map_of_zeros_is_nowhere() -> None:
    assert measured(torch.zeros(4, 4)) == [0, 0, 0]


def test_a_constant_map_has_its_share_inside_and_points_nowhere() -> None:
    assert measured(torch.full((4, 4), 0.5)) == [0, 0.25, 0]


def test_each_measure_by_hand() -> None:
    """The mean is 10/16: six cells exceed it, three of them in the lesion of four; 5 of 10 lie inside."""
    shown = torch.tensor([[0, 0, 0, 0], [1, 1, 3, 0], [1, 1, 0, 0], [3, 0, 0, 0.0]])
    assert measured(shown) == pytest.approx([3 / 7, 5 / 10, 1 / 2])  # one of the two peaks is on the lesion


def test_a_coarse_map_is_measured_in_pixels() -> None:
    """One cell of 2x2 blurs over the pixels between the centres of cells."""
    quarter = torch.zeros(4, 4, dtype=torch.bool)
    quarter[:2, :2] = True
    weights = torch.tensor([1, 0.75, 0.25, 0])
    pixels = weights[:, None] * weights
    inside = float(pixels[:2, :2].sum() / pixels.sum())
    above = pixels > pixels.mean()
    expected = float((above & quarter).sum() / (above | quarter).sum())
    assert measured(torch.tensor([[1.0, 0], [0, 0]]), quarter) == pytest.approx([expected, inside, 1])


def test_images_are_measured_alone() -> None:
    maps, objects = torch.rand(3, 4, 4), torch.stack([LESION, ~LESION, LESION.T])
    together = overlap(maps, objects)
    for name in MEASURES:
        alone = [overlap(maps[i : i + 1], objects[i : i + 1])[name] for i in range(3)]
        assert torch.equal(together[name], torch.cat(alone))


# ------------------------------------------------------------------ tables


def held(folder: Path, predictions: list[tuple[int, int]], classes: list[str], overlaps: bool = False) -> HeldRun:
    """A run with predictions (true, reported), and with the overlaps of CAM with lesions."""
    true, reported = zip(*predictions, strict=True)
    rows = {"id": [f"{i}.png" for i in range(len(true))], "class_true": true, "class_predicted": reported}
    write_table(folder / case_study.PREDICTIONS, pa.table(rows, case_study.PREDICTION_COLUMNS))
    if overlaps:
        kinds = (("benign", 0.75), ("pgd", 0.25), ("adv2", 0.5))
        lines: list[dict[str, Any]] = [
            {"id": id, "interpreter": "cam", "images": kind, "iou": iou, "inside": 0.5, "points_at_object": 1.0}
            for kind, iou in kinds
            for id in IDS
        ]
        write_table(folder / case_study.OVERLAPS, pa.Table.from_pylist(lines, case_study.OVERLAP_COLUMNS))
    info = {**INFO, "classes": classes}
    return HeldRun(folder, FakeRun(IDS, interpreters=("cam", "mask"), info=info))


def tables(run: HeldRun) -> dict[str, Table]:
    return {table.name: table for table in case_study.tables(run)}


def values(table: Table) -> dict[str, Value]:
    """The first value of each row, by the row's name."""
    return {" ".join(row.names): row.cells[0][0] for row in table.rows}


def test_recalls_stand_by_class_and_the_papers_accuracy_beside_the_balanced_one(tmp_path: Path) -> None:
    run = held(tmp_path, [(0, 0)] * 6 + [(0, 1)] * 2 + [(1, 1), (1, 0)], ["nevus", "melanoma"])
    found = values(tables(run)["classifier"])
    assert list(found) == ["all images", "classes alike", "nevus", "melanoma"]
    right = [each.ours.value for each in found.values() if each.ours]
    assert right == pytest.approx([0.7, (0.75 + 0.5) / 2, 0.75, 0.5])
    assert [each.paper for each in found.values()] == [None, 0.8227, None, None]
    assert paper.SKIN_ACCURACY == 0.8227
    melanoma = found["melanoma"].ours
    assert melanoma is not None
    assert (melanoma.low, melanoma.high, melanoma.n) == (*wilson(1, 2), 2)
    assert "10 images" in tables(run)["classifier"].title


def test_table_13_stands_first_and_overlaps_last(tmp_path: Path) -> None:
    run = held(tmp_path, [(0, 0)], ["nevus"], overlaps=True)
    found = tables(run)
    assert list(found) == ["case-study-asr", "table-13", "figure-8-iou", "classifier", "overlap"]
    assert found["table-13"].rows[0].names == ("CAM", "PGD")
    overlapping = found["overlap"]
    assert overlapping.columns == ("IoU", "inside", "pointing")
    assert [row.names for row in overlapping.rows] == [("CAM", "benign"), ("CAM", "PGD"), ("CAM", "ADV²")]
    ours = [[value.ours and value.ours.value for cell in row.cells for value in cell] for row in overlapping.rows]
    assert ours == [[0.75, 0.5, 1.0], [0.25, 0.5, 1.0], [0.5, 0.5, 1.0]]


def test_table_13_has_the_papers_distances_on_skin_lesions(tmp_path: Path) -> None:
    held(tmp_path, [(0, 0)], ["nevus"])
    found = by_name(case_study.tables(held_run("pgd", "adv2", path=tmp_path)))
    table = found["table-13"]
    assert table.columns == ("ΔL1", "ΔL2")
    assert names_of(table) == [(name, made) for name in ("GRAD", "CAM", "MASK", "RTS") for made in ("PGD", "ADV²")]
    assert [row[0] for row in printed(table)] == numbers(".19 .06 .25 .06 .23 .08 .15 .02")
    assert [row[1] for row in printed(table)] == numbers(".23 .09 .31 .08 .30 .11 .26 .07")
    assert not found["case-study-asr"].has_anchors


def test_without_masks_there_is_no_table_of_overlaps(tmp_path: Path) -> None:
    run = held(tmp_path, [(0, 0)], ["nevus"])
    assert list(tables(run)) == ["case-study-asr", "table-13", "figure-8-iou", "classifier"]
    assert case_study.overlaps(run).num_rows == 0


def test_classes_that_only_the_classifier_knows_have_their_index_for_a_name(tmp_path: Path) -> None:
    """Images of two classes, and a classifier of a thousand."""
    run = held(tmp_path, [(0, 0), (1, 999), (1, 1)], ["nevus", "melanoma"])
    found = values(tables(run)["classifier"])
    assert list(found) == ["all images", "classes alike", "nevus", "melanoma", "999"]
    assert (found["999"].text, found["classes alike"].text) == ("–", "75.0 %")
    drawing = drawn(run)
    assert [text.get_text() for text in drawing.axes[0].get_xticklabels()] == ["nevus", "melanoma", "999"]


def test_of_many_classes_those_with_the_most_errors_are_shown(tmp_path: Path) -> None:
    """Class 0 is always right, class 99 thrice taken for class 98, the others once for the next one."""
    wrong = [(i, i + 1) for i in range(1, 98)] + [(99, 98)] * 3
    run = held(tmp_path, [(0, 0)] * 5 + wrong, [str(i) for i in range(100)])
    table = tables(run)["classifier"]
    shown = list(values(table))[2:]
    assert len(shown) == MOST_CLASSES
    assert "0" not in shown
    assert {"98", "99"} <= set(shown)
    assert table.note == f"Of 100 classes the {MOST_CLASSES} with the most errors."
    assert "105 images" in table.title
    figure = drawn(run)
    assert max(figure.get_size_inches()) < 25
    assert png(figure).startswith(b"\x89PNG")


def drawn(run: HeldRun) -> Any:
    (figure,) = (each for each in case_study.figures(run) if each.name == "figure-18")
    return figure.draw()


def test_hostile_class_names_stay_text(tmp_path: Path) -> None:
    formula = r"$\frac{1}$ % _x & <b>"
    run = held(tmp_path, [(0, 0), (1, 0)], [HOSTILE_CLASS, formula], overlaps=True)
    for table in tables(run).values():
        tags = {name for name, _ in Tags(html_of(table, table.notes)).found}
        assert tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "div", "small", "p"}
    named = tables(run)["classifier"]
    assert HOSTILE_CLASS in csv_of(named)
    assert r"\$\textbackslash{}frac\{1\}\$ \% \_x \& $<$b$>$" in latex_of(named)
    assert png(drawn(run)).startswith(b"\x89PNG")
