"""Table 2: rows, columns and the paper's numbers."""

from pathlib import Path

import pyarrow as pa

from printed import ALL, IDS, by_name, numbers, printed
from underfire.attacks.names import interpreter_name
from underfire.core.io import write_table
from underfire.runs.folder import Run
from underfire.studies import localisation


def test_table_2(tmp_path: Path) -> None:
    names = ("random", "centre", *ALL)
    rows = [
        {
            "id": id, "half": half, "interpreter": name, "class_true": 0, "class_predicted": 0, "map_constant": False,
            "points_at_object": 1.0, "points_at_box": 1.0, "rule": rule, "parameter": 0.5,
            "best_rule": rule == "mean", "iou": 0.6, "box_wrong": False, "error": rule != "mean",
        }
        for name in names for rule in ("value", "mean") for half in ("validation", "test") for id in IDS
    ]  # fmt: skip
    write_table(tmp_path / localisation.TABLE, pa.Table.from_pylist(rows, localisation.SCHEMA))
    found = by_name(localisation.tables(Run(tmp_path)))
    table = found["table-2"]
    assert table.columns == tuple(interpreter_name(name) for name in names)
    assert printed(table)[0] == numbers("- - 43.1% 43.8% 45.2% 34.2%")
    assert {value.ours.value for cell in table.rows[0].cells for value in cell if value.ours} == {0.0}
    assert len(found["localisation-rules"].rows) == 2 * len(names)
