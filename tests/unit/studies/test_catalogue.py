"""The catalogue against the paper: every table and figure has its study, tables its rows, columns and numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tiny_report import INFO, FakeRun, HeldRun, benign_rows, detection_rows
from underfire.attacks.names import interpreter_name
from underfire.core.io import write_json, write_table
from underfire.core.types import UnderfireError
from underfire.runs.folder import Run
from underfire.runs.settings import SCALES, StudySettings
from underfire.studies import (
    aid,
    attack_tables,
    detections,
    interpreter_tables,
    localisation,
    paper,
    transfer,
)
from underfire.studies.catalogue import STUDIES, study_named
from underfire.studies.tables import Table

ALL = ("grad", "cam", "mask", "rts")
IDS = tuple(f"{number}.png" for number in range(4))
RESNET = {**INFO, "model": {**INFO["model"], "name": "torchvision:resnet50", "fingerprint": "ours"}}
DENSENET = {**INFO, "model": {**INFO["model"], "name": "torchvision:densenet169"}}
MAKES = {
    "localisation": ({2}, set()),
    "effectiveness": ({3, 12}, {1, 4, 5, 6, 17}),
    "evasiveness": ({4, 5}, set()),
    "case-study": ({13}, {7, 8, 18}),
    "spatial": (set(), {9, 10, 19, 20}),
    "random-patch": ({6, 7}, {11}),
    "random-class": ({8}, {12, 13, 21, 22}),
    "transfer": ({9}, {14}),
    "gap": (set(), set()),
    "aid": ({10}, {15, 16}),
}


def run(
    *attacks: str, names: tuple[str, ...] = ALL, info: dict[str, Any] = RESNET, path: Path = Path("nowhere")
) -> Run:
    return HeldRun(path, FakeRun(IDS, interpreters=names, attacks=attacks, info=info))


def by_name(tables: Any) -> dict[str, Table]:
    return {table.name: table for table in tables}


def names_of(table: Table) -> list[tuple[str, ...]]:
    return [row.names for row in table.rows]


def printed(table: Table) -> list[list[float | None]]:
    """The paper's numbers by row, of all columns in one line."""
    return [[value.paper for cell in row.cells for value in cell] for row in table.rows]


def numbers(line: str) -> list[float | None]:
    """Numbers of a line of SPEC 9, percentages as shares; a dash where the paper has none."""
    words = line.replace("-", "nan").split()
    found = [round(float(word.rstrip("%")) / (100 if "%" in word else 1), 6) for word in words]
    return [None if np.isnan(number) else number for number in found]


# ------------------------------------------------------------------ the catalogue


@pytest.mark.parametrize("name", MAKES)
def test_every_table_and_figure_of_the_paper_has_its_study(name: str) -> None:
    tables, figures = MAKES[name]
    kinds: dict[str, set[int]] = {"Table": set(), "Fig": set()}
    for part in STUDIES[name].paper.split(";"):
        kind = next((kind for kind in kinds if part.strip().startswith(kind)), None)
        if kind is not None:
            kinds[kind] = {int(word) for word in part.replace(",", " ").split() if word.isdigit()}
    assert (kinds["Table"], kinds["Fig"]) == (tables, figures)
    assert STUDIES[name].question.endswith("?")


def test_a_study_that_does_not_exist_is_refused_by_name() -> None:
    assert study_named("gap") is STUDIES["gap"]
    with pytest.raises(UnderfireError, match=r"There is no study 'gaps'; there are localisation, .*, sanity\."):
        study_named("gaps")


def test_the_request_says_how_many_images() -> None:
    request = StudySettings(model="demo", images="demo", scale="quick")
    assert (request.attacked, request.sizes) == (SCALES["quick"].attacked, SCALES["quick"])
    assert StudySettings(model="demo", images="demo", n=7).attacked == 7
    assert StudySettings(model="demo", images="demo", scale="full").attacked == 1000


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [("localisation", {"masks": "masks"}, "--masks"), ("aid", {"defended": ("smooth:cam",)}, "--defended")],
)
def test_what_a_study_needs_besides_is_named(name: str, given: dict[str, Any], sentence: str) -> None:
    bare = StudySettings(model="demo", images="demo")
    lacking = {each: entry.lacking(bare) for each, entry in STUDIES.items()}
    assert {each for each, said in lacking.items() if said} == {"localisation", "aid"}
    assert sentence in str(lacking[name])
    assert STUDIES[name].lacking(bare.model_copy(update=given)) is None


# ------------------------------------------------------------------ the paper's numbers, copied by hand


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    assert [paper.LOCALISATION[name] for name in ALL] == numbers("43.1% 43.8% 45.2% 34.2%")
    resnet, dense = paper.EFFECTIVENESS["ResNet"], paper.EFFECTIVENESS["DenseNet"]
    assert [resnet["adv2", name] for name in ALL] == [(1, 0.99), (1, 1), (0.98, 0.99), (1, 1)]
    assert {resnet["pgd", name] for name in ALL} == {dense["pgd", name] for name in ALL} == {(1.0, 1.0)}
    assert dense["adv2", "mask"] == (0.96, 0.98)
    for network, attack, place, line in (
        ("ResNet", "pgd", 0, ".10 .22 .28 .22"),
        ("ResNet", "adv2", 0, ".04 .05 .09 .01"),
        ("ResNet", "pgd", 1, ".14 .28 .38 .42"),
        ("ResNet", "adv2", 1, ".07 .06 .16 .06"),
        ("DenseNet", "pgd", 0, ".11 .31 .27 .26"),
        ("DenseNet", "adv2", 0, ".05 .04 .09 .02"),
    ):
        assert [paper.DISTANCES[network][attack, name][place] for name in ALL] == numbers(line)
    assert [paper.SKIN_DISTANCES["pgd", name][0] for name in ALL] == numbers(".19 .25 .23 .15")
    assert [paper.SKIN_DISTANCES["adv2", name][0] for name in ALL] == numbers(".06 .06 .08 .02")
    assert numbers("82.27%") == [paper.SKIN_ACCURACY]


@pytest.mark.parametrize(
    ("squeezer", "line"),
    [
        ("bits:2", "92.3% 84.1% 94.0% 11.7% 29.4%"),
        ("bits:3", "72.7% 89.2% 88.3% 35.9% 13.9%"),
        ("median:3", "97.3% 98.6% 99.0% 16.5% 3.4%"),
        ("nlm:11-3-4", "52.3% 74.7% 75.3% 51.7% 29.4%"),
    ],
)
def test_the_papers_detected_shares(squeezer: str, line: str) -> None:
    order = (("PGD", None), ("A", "mask"), ("A", "rts"), ("A∗", "mask"), ("A∗", "rts"))
    assert [paper.DETECTED[squeezer][each] for each in order] == pytest.approx(numbers(line))


def test_the_paper_used_a_resnet_and_a_densenet() -> None:
    assert {name: paper.network_of(name) for name in ("torchvision:densenet169", "demo", "DenseNet.py:build")} == {
        "torchvision:densenet169": "DenseNet",
        "demo": "ResNet",
        "DenseNet.py:build": "DenseNet",
    }


# ------------------------------------------------------------------ attacks


def test_tables_3_and_12() -> None:
    found = by_name(attack_tables.effectiveness(run("pgd", "adv2")))
    assert set(found) == {"table-3", "table-12", "figure-6"}
    assert found["table-3"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert names_of(found["table-3"]) == [("PGD",), ("ADV²",)]
    assert printed(found["table-3"]) == [numbers("1 1 1 1 1 1 1 1"), numbers("1 .99 1 1 .98 .99 1 1")]
    assert found["table-12"].columns == ("ΔL1", "ΔL2")
    pairs = [(name, attack) for name in ("GRAD", "CAM", "MASK", "RTS") for attack in ("PGD", "ADV²")]
    assert names_of(found["table-12"]) == pairs
    assert printed(found["table-12"]) == [
        numbers(line)
        for line in (".10 .14", ".04 .07", ".22 .28", ".05 .06", ".28 .38", ".09 .16", ".22 .42", ".01 .06")
    ]
    ours = [value.ours.value for row in found["table-3"].rows for cell in row.cells for value in cell if value.ours]
    assert ours == pytest.approx([1.0, 0.97] * 8)


def test_columns_keep_the_order_of_the_request_and_others_have_no_anchor() -> None:
    table = by_name(attack_tables.effectiveness(run("pgd", "adv2", names=("rts", "ig", "grad"))))["table-3"]
    assert table.columns == ("RTS", "IG", "GRAD")
    assert printed(table)[1] == numbers("1 1 - - 1 .99")


def test_a_densenet_stands_beside_the_papers() -> None:
    found = by_name(attack_tables.effectiveness(run("pgd", "adv2", info=DENSENET)))
    assert printed(found["table-3"])[1] == numbers("1 .98 1 1 .96 .98 1 1")
    assert "the paper's DenseNet" in found["table-12"].title
    assert [row[0] for row in printed(found["table-12"])] == numbers(".11 .05 .31 .04 .27 .09 .26 .02")


def test_tables_6_and_7() -> None:
    found = by_name(attack_tables.random_patch(run("adv2")))
    assert found["table-6"].columns == found["table-7"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert names_of(found["table-6"]) == [("ADV²",)]
    assert printed(found["table-6"]) == [numbers("1 .98 1 1 .99 .95 1 1")]
    assert names_of(found["table-7"]) == [("ΔbL1",), ("ΔtL1",)]
    assert printed(found["table-7"]) == [numbers(".16 .50 .42 .49"), numbers(".10 .04 .15 .07")]


def test_table_8_and_the_bars_beside_it() -> None:
    found = by_name(attack_tables.random_class(run("pgd", "adv2")))
    assert found["table-8"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert printed(found["table-8"])[1] == numbers("1 .99 1 .99 1 .99 1 1")
    assert names_of(found["figure-13"]) == [("ΔL1, benign",), ("ΔL1, target",), ("IoU, benign",), ("IoU, target",)]
    near = [cell[0].ours for cell in found["figure-13"].rows[0].cells]  # the maps in memory are the benign ones
    assert [each.value for each in near if each] == [0.0] * 4


def test_bending_has_no_anchors() -> None:
    found = by_name(attack_tables.spatial(run("stadv", "adv2-stadv")))
    assert names_of(found["stadv-asr"]) == [("StAdv",), ("ADV² on StAdv",)]
    assert not any(table.has_anchors for table in found.values())


def test_table_13() -> None:
    found = by_name(attack_tables.case_study(run("pgd", "adv2")))
    table = found["table-13"]
    assert table.columns == ("ΔL1", "ΔL2")
    assert names_of(table) == [(name, made) for name in ("GRAD", "CAM", "MASK", "RTS") for made in ("PGD", "ADV²")]
    assert [row[0] for row in printed(table)] == numbers(".19 .06 .25 .06 .23 .08 .15 .02")
    assert [row[1] for row in printed(table)] == numbers(".23 .09 .31 .08 .30 .11 .26 .07")
    assert not found["case-study-asr"].has_anchors


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
    found = by_name(attack_tables.evasiveness(run(*attacks, names=made, path=tmp_path)))
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


def transferred(model: str, distance: float) -> pa.Table:
    """Two images for each source and shown interpreter."""
    sources = [*(("adv2", name) for name in ALL), ("pgd", None), ("noise", None)]
    rows = [
        {
            "id": id, "attack": attack, "source": source, "interpreter": shown, "model": model,
            "model_fingerprint": model, "class_true": 0, "class_explained": 1, "class_predicted": 1,
            "map_l1": distance, "map_l2": distance, "iou_mean": 0.5, "iou_half": 0.5, "iou_top15": 0.5,
            "own": source == shown, "own_l1": distance, "map_constant": False, "benign_constant": False,
        }
        for attack, source in sources for shown in ALL for id in IDS[:2]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, transfer.SCHEMA)


def test_table_9_is_of_the_runs_own_classifier(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", RESNET)
    both = pa.concat_tables([transferred("another", 0.9), transferred("ours", 0.2)])
    write_table(tmp_path / transfer.TABLE, both)
    (table,) = attack_tables.transfers(Run(tmp_path))
    assert table.columns == ("GRAD", "CAM", "MASK", "RTS")
    named = [f"ADV² for {name}" for name in table.columns]
    assert names_of(table) == [(name,) for name in (*named, "PGD", "random noise")]
    assert printed(table) == [
        numbers(line)
        for line in (
            ".04 .24 .22 .24",
            ".09 .05 .18 .13",
            ".12 .34 .09 .74",
            ".10 .17 .20 .01",
            ".10 .22 .28 .22",
            "- - - -",
        )
    ]
    assert {value.ours.value for row in table.rows for cell in row.cells for value in cell if value.ours} == {0.2}


# ------------------------------------------------------------------ interpreters


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
    found = by_name(interpreter_tables.localisations(Run(tmp_path)))
    table = found["table-2"]
    assert table.columns == tuple(interpreter_name(name) for name in names)
    assert printed(table)[0] == numbers("- - 43.1% 43.8% 45.2% 34.2%")
    assert {value.ours.value for cell in table.rows[0].cells for value in cell if value.ours} == {0.0}
    assert len(found["localisation-rules"].rows) == 2 * len(names)


def compared(images: str, made_for: str | None, shown_by: str, distance: float) -> pa.Table:
    n = len(IDS)
    attacked = images in ("pgd", "adv2")
    columns = {
        "id": IDS, "images": [images] * n, "made_for": [made_for] * n, "shown_by": [shown_by] * n,
        "class_true": [0] * n, "class_target": [1 if attacked else None] * n, "class_predicted": [int(attacked)] * n,
        "sigma": [None] * n, "map_l1": np.full(n, distance),
    }  # fmt: skip
    return pa.table(columns, aid.SCHEMA)


def defences(folder: Path, names: tuple[str, str]) -> dict[str, Table]:
    """The tables of an interpreter and its defence."""
    undefended, defended = names
    kinds = list[tuple[str, str | None, str, float]]()
    for name in names:
        kinds += [("benign", None, name, 0.02 * names.index(name)), ("pgd", None, name, 0.3)]
        kinds += [("signs like pgd", None, name, 0.1), ("adv2", name, name, 0.05), ("signs like adv2", name, name, 0.1)]
    kinds += [("adv2", undefended, defended, 0.2), ("signs like adv2", undefended, defended, 0.1)]
    write_table(folder / aid.TABLE, pa.concat_tables([compared(*kind) for kind in kinds]))
    settings = {"model": "demo", "images": "demo", "interpreters": ["cam", "grad"]}
    spec = {**aid.AidSettings(**settings).model_dump(mode="json"), "model_fingerprint": "", "images_digest": ""}
    write_json(folder / "run.json", {**RESNET, "spec": spec})
    return by_name(interpreter_tables.defences(Run(folder)))


def test_table_10(tmp_path: Path) -> None:
    names = ("rts", "rts:masker-aid")
    found = defences(tmp_path, names)
    assert set(found) == {"table-10", "defences"}
    table = found["table-10"]
    assert table.columns == names
    assert names_of(table) == [("Benign",), ("ADV²",)]
    assert printed(table) == [numbers("- .03"), numbers(".01 .10")]
    ours = [[value.ours and value.ours.value for cell in row.cells for value in cell] for row in table.rows]
    assert ours == [[None, 0.02], [0.05, 0.05]]
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
    assert printed(defences(tmp_path, names)["table-10"]) == [numbers(benign), numbers(attacked)]
