"""Table 2: rows, columns and the paper's numbers; and how much is in memory while its rows are made."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from printed import ALL, IDS, by_name, numbers, printed
from underfire.attacks.names import interpreter_name
from underfire.core.io import write_table
from underfire.data.decode import TensorSource
from underfire.data.image_set import ImageSet
from underfire.interpreters import CAM
from underfire.interpreters.baselines import Centre, RandomMap
from underfire.runs.folder import Run
from underfire.runs.specs import Explain, Locate, key
from underfire.runs.store import Store
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


def test_maps_are_read_some_at_a_time_and_rules_are_chosen_on_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, numbers = 10, torch.Generator().manual_seed(0)
    ids, source = tuple(map(str, range(n))), Locate("model", "images", "masks", n, 0)
    settings = localisation.LocalisationSettings(model="m", images="i", masks="k", interpreters=("cam",), n=n)
    store, labels = Store(tmp_path), torch.zeros(n, dtype=torch.int64)
    objects = torch.zeros(n, 8, 8, dtype=torch.bool)
    objects[:, 2:6, 3:7] = True
    store.append(key(source), ids, {"label": labels, "predicted": labels, "object": objects})
    for each in (RandomMap(seed=0), Centre(), CAM()):
        store.append(key(Explain(source, each)), ids, {"map": torch.rand(n, 4, 4, generator=numbers)})
    images = ImageSet(ids, labels, ("a",), TensorSource(torch.zeros(n, 3, 8, 8)))

    def made() -> pa.Table:
        return pa.concat_tables(localisation.localisation_table(settings, source, images, ids, store))

    whole, read, most = made(), Store.read, 0

    def watched(store: Store, stage: str, name: str, ids: tuple[str, ...]) -> torch.Tensor:
        nonlocal most
        most = max(most, len(ids) if name in ("map", "object") else 0)
        return read(store, stage, name, ids)

    monkeypatch.setattr(Store, "read", watched)
    monkeypatch.setattr(localisation, "SHARD", 3)
    assert made() == whole
    assert most == 3
