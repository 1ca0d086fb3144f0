"""What the AID study says of a table: attacks beside signs of their own size, the suite's worst case, and names."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from printed import IDS, RESNET, by_name, names_of, numbers, printed
from underfire.core.errors import UnderfireError
from underfire.core.io import write_json, write_table
from underfire.runs.folder import Run
from underfire.studies.aid import tables
from underfire.studies.aid_views import SCHEMA, TABLE, AidSettings, label_of, summarise
from underfire.studies.tables import Table


def rows(images: str, made_for: str | None, distances: list[float], **columns: list[float | int]) -> pa.Table:
    n = len(distances)
    shared = {"id": [str(i) for i in range(n)], "images": [images] * n, "made_for": [made_for] * n}
    shared |= {"member": ["preset" if images == "adv2" else None] * n}
    classes = {"class_true": [0] * n, "class_target": [None] * n, "class_predicted": [0] * n, "sigma": [None] * n}
    return pa.table({**shared, "shown_by": ["rts"] * n, **classes, **columns, "map_l1": distances}, SCHEMA)


def test_each_attack_is_told_from_signs_of_its_own_size() -> None:
    attacked = {"class_target": [1, 2, 1, 2], "class_predicted": [1, 2, 1, 0]}
    table = pa.concat_tables(
        [
            rows("benign", None, [0.0, 0.0]),
            rows("pgd", None, [0.3, 0.4, 0.5, 0.6], **attacked),
            rows("signs like pgd", None, [0.1, 0.2, 0.1, 0.2]),
            rows("adv2", "rts", [0.1, 0.2, 0.3, 0.4], **attacked),
            rows("signs like adv2", "rts", [0.1, 0.2, 0.3, 0.4]),
            rows("adv2", "other", [0.0, 0.0, 0.0, 0.0], **attacked),
            rows("signs like adv2", "other", [0.1, 0.2, 0.3, 0.4]),
            rows("normal noise, 30 %", None, [0.1, 0.3], class_predicted=[0, 3], sigma=[0.2, 0.2]),
        ]
    )
    found = {(row.images, row.made_for): row for row in summarise(table)}
    assert [found[kind].auc for kind in (("pgd", None), ("adv2", "rts"), ("adv2", "other"))] == [1.0, 0.5, 0.0]
    assert {row.auc for row in found.values() if row.success is None} == {None}
    assert found["adv2", "rts"].success.value == found["adv2", "rts"].misclassified.value == 0.75
    assert found["pgd", None].map_l1.value == pytest.approx(0.45)
    noisy = found["normal noise, 30 %", None]
    assert (noisy.sigma, noisy.misclassified.value) == (0.2, 0.5)
    assert [row.images for row in found.values() if row.is_control] == ["signs like pgd"] + 2 * ["signs like adv2"]


def test_interpreters_go_by_the_names_of_their_files() -> None:
    names = ("cam", "rts:/tmp/maskers/a.safetensors", "smooth:rts:b.safetensors", "smooth:cam")
    assert [label_of(name) for name in names] == ["cam", "rts:a", "smooth:rts:b", "smooth:cam"]


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(UnderfireError, match="Interpreter 'rts:a' is named twice"):
        AidSettings(model="demo", images="demo", interpreters=("rts:x/a.safetensors", "rts:y/a.safetensors"))


# ------------------------------------------------------------------ the paper's tables


def compared(images: str, made_for: str | None, shown_by: str, distance: float, member: str | None = None) -> pa.Table:
    n = len(IDS)
    attacked = images in ("pgd", "adv2")
    columns = {
        "id": IDS, "images": [images] * n, "made_for": [made_for] * n, "member": [member] * n,
        "shown_by": [shown_by] * n,
        "class_true": [0] * n, "class_target": [1 if attacked else None] * n, "class_predicted": [int(attacked)] * n,
        "sigma": [None] * n, "map_l1": np.full(n, distance),
    }  # fmt: skip
    return pa.table(columns, SCHEMA)


def defences(folder: Path, names: tuple[str, str]) -> dict[str, Table]:
    """The tables of an interpreter and its defence."""
    undefended, defended = names
    kinds = list[tuple[str, str | None, str, float, str | None]]()
    for name in names:
        kinds += [("benign", None, name, 0.02 * names.index(name), None), ("pgd", None, name, 0.3, None)]
        kinds += [("signs like pgd", None, name, 0.1, None), ("signs like adv2", name, name, 0.1, None)]
        kinds += [("adv2", name, name, 0.05, "preset"), ("adv2", name, name, 0.01 + 0.03 * names.index(name), "other")]
    kinds += [("adv2", undefended, defended, 0.2, "preset"), ("signs like adv2", undefended, defended, 0.1, None)]
    write_table(folder / TABLE, pa.concat_tables([compared(*kind) for kind in kinds]))
    settings = {"model": "demo", "images": "demo", "interpreters": ["cam", "grad"]}
    spec = {
        "study": "aid",
        **AidSettings(**settings).model_dump(mode="json"),
        "model_fingerprint": "",
        "images_digest": "",
    }
    write_json(folder / "run.json", {**RESNET, "spec": spec})
    return by_name(tables(Run(folder)))


def test_table_10(tmp_path: Path) -> None:
    names = ("rts", "rts:masker-aid")
    found = defences(tmp_path, names)
    assert set(found) == {"table-10", "defences", "defences-suite"}
    table = found["table-10"]
    assert table.columns == names
    assert names_of(table) == [("Benign",), ("ADV², preset",), ("ADV², worst case",), ("Worst case / undefended",)]
    assert printed(table) == [numbers("- .03"), numbers(".01 .10"), numbers("- -"), numbers("- -")]
    ours = [[value.ours and value.ours.value for cell in row.cells for value in cell] for row in table.rows]
    assert ours[:3] == [[None, 0.02], [0.05, 0.05], [0.01, 0.04]]
    assert ours[3] == [None, pytest.approx(4)]
    suite = found["defences-suite"]
    assert names_of(suite) == [("preset",), ("other",), ("worst case",)]
    assert [value.ours.value for value in suite.rows[1].cells[1] if value.ours] == [0.04, 1.0, 1.0]
    assert names_of(found["defences"]) == [("PGD",), ("ADV² for itself",), ("ADV² for rts",)]
    last = [[value.ours and value.ours.value for value in cell] for cell in found["defences"].rows[-1].cells]
    assert last == [[None], [0.2, 1.0]]


@pytest.mark.parametrize(
    ("names", "benign", "attacked"),
    [
        (("rts:resnet20", "rts:resnet20-aid"), "- .03", ".01 .10"),
        (("rts", "smooth:cam"), "- -", ".01 -"),
        (("cam", "smooth:cam"), "- -", "- -"),
        (("cam", "rts:masker-aid"), "- -", "- -"),
    ],
)
def test_table_10_compares_maskers_alone_with_the_papers(
    tmp_path: Path, names: tuple[str, str], benign: str, attacked: str
) -> None:
    assert printed(defences(tmp_path, names)["table-10"])[:2] == [numbers(benign), numbers(attacked)]
