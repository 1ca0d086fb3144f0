"""Tables 4 and 5: rows, columns and the paper's numbers."""

from pathlib import Path

import pyarrow as pa
import pytest

from printed import IDS, by_name, held_run, names_of, numbers, printed
from tiny_report import benign_rows, detection_rows
from underfire.core.io import write_table
from underfire.studies import detections, evasiveness


def test_tables_4_and_5(tmp_path: Path) -> None:
    parts, made = ("bits:2", "bits:3", "median:3", "nlm:11-3-4"), ("mask", "rts")
    rows = []
    for part in (*(f"fs:{part}" for part in parts), "fs"):
        rows += benign_rows(part) + detection_rows(part, "pgd", scores=[0.0, 2.0])
        rows += [row for name in made for row in detection_rows(part, "adv2", name, scores=[2.0])]
        for evaded in parts:
            rows += [row for n in made for row in detection_rows(part, f"adv2-evading-fs:{evaded}", n, scores=[0.0])]
    write_table(tmp_path / detections.TABLE, pa.Table.from_pylist(rows, detections.COLUMNS))
    attacks = ("pgd", "adv2", *(f"adv2-evading-fs:{part}" for part in parts))
    found = by_name(evasiveness.tables(held_run(*attacks, names=made, path=tmp_path)))
    table = found["table-4"]
    assert table.columns == ("PGD", "MASK-A", "MASK-A∗", "RTS-A", "RTS-A∗")
    assert names_of(table) == [("2 bits",), ("3 bits",), ("median 3×3",), ("non-local means 11-3-4",)]
    assert printed(table)[0] == pytest.approx(numbers("92.3% 84.1% 11.7% 94.0% 29.4%"))
    assert printed(table)[3] == pytest.approx(numbers("52.3% 74.7% 51.7% 75.3% 29.4%"))
    ours = [[value.ours.value for cell in row.cells for value in cell if value.ours] for row in table.rows]
    assert ours == [[0.5, 1.0, 0.0, 1.0, 0.0]] * 4
    assert found["table-5"].columns == ("MASK P", "MASK A", "MASK A∗", "RTS P", "RTS A", "RTS A∗")
    assert names_of(found["table-5"]) == [("ΔL1",), ("IoU",)]
    assert printed(found["table-5"]) == [numbers(".28 .09 .09 .22 .01 .02"), numbers(".21 .65 .61 .29 .93 .94")]
    assert found["table-5"].rows[0].cells[2][0].ours.n == len(IDS), "each squeezer's ADV² of an image counts as one"


def test_self_consistency_has_a_table_of_its_own(tmp_path: Path) -> None:
    """Of each interpreter's own detectors, by what hides from each; PGD's images are everybody's."""
    kinds = ("fs", "consistency", "fs+consistency")
    rows = []
    for detector in ("fs", "consistency:cam", "fs+consistency:cam"):
        rows += benign_rows(detector) + detection_rows(detector, "pgd", scores=[2.0])
        rows += detection_rows(detector, "adv2", "cam", scores=[2.0, 0.0])
        for evaded in kinds:
            score = 0.0 if detector == (evaded if evaded == "fs" else f"{evaded}:cam") else 2.0
            rows += detection_rows(detector, f"adv2-evading-{evaded}", "cam", scores=[score])
    write_table(tmp_path / detections.TABLE, pa.Table.from_pylist(rows, detections.COLUMNS))
    attacks = ("pgd", "adv2", *(f"adv2-evading-{each}" for each in kinds))
    table = by_name(evasiveness.tables(held_run(*attacks, names=("cam",), path=tmp_path)))["adaptive"]
    assert table.columns == ("PGD", "ADV²", "evading squeezing", "evading consistency", "evading both")
    assert names_of(table) == [("CAM", "squeezing"), ("CAM", "consistency"), ("CAM", "both")]
    ours = [[value.ours.value for cell in row.cells for value in cell if value.ours] for row in table.rows]
    assert ours == [[1.0, 0.5, 0.0, 1.0, 1.0], [1.0, 0.5, 1.0, 0.0, 1.0], [1.0, 0.5, 1.0, 1.0, 0.0]]
