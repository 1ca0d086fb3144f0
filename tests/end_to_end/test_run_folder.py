"""The run folder as other programs see it: the format that DESIGN promises, read with and without underfire."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from underfire import open_run
from underfire.data.corruptions import FILES
from underfire.data.image_set import open_images
from underfire.models.classifier import Classifier
from underfire.report import write_report
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.outcomes import FLOORS, ON_FILE
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute

N, EPS = 5, 0.03
COLUMNS = {
    "id": pa.string(),
    "attack": pa.string(),
    "interpreter": pa.string(),
    "class_true": pa.int64(),
    "class_target": pa.int64(),
    "class_predicted": pa.int64(),
    "confidence": pa.float64(),
    "success": pa.bool_(),
    "map_l1": pa.float64(),
    "map_l2": pa.float64(),
    "iou_mean": pa.float64(),
    "iou_half": pa.float64(),
    "iou_top15": pa.float64(),
    "linf": pa.float64(),
    "l2": pa.float64(),
    "steps": pa.int64(),
    "reason": pa.string(),
}


@pytest.fixture(scope="module")
def run(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    settings = AttackSettings(model=tiny_model, images=str(tiny_photos), n=N, eps=EPS, steps=10, normalize="none")
    subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
    run = execute(settings, subject, out, Manner("underfire attack …", batch_size=2))
    write_report(run, out / "report.html")
    return run


def test_the_table_has_the_promised_columns_and_types(run: Run) -> None:
    schema = pq.read_schema(run.path / "outcomes.parquet")
    assert {name: schema.field(name).type for name in COLUMNS} == COLUMNS
    assert {name: schema.field(name).type for name in set(schema.names) - set(COLUMNS)} == {
        "map_constant": pa.bool_(),
        "target_constant": pa.bool_(),
        "benign_l1": pa.float64(),
        "target_map_of": pa.string(),
        "repeat_l1": pa.float64(),
        **dict.fromkeys(("solver", "evades", "judgement"), pa.string()),
        "map_aware": pa.bool_(),
        **{f"{name}_{measure}": pa.float64() for name in FLOORS for measure in ("l1", "iou")},
        "within_natural": pa.bool_(),
        "flow_mean": pa.float64(),
        "flow_smoothness": pa.float64(),
        "benign_iou": pa.float64(),
        "success_last": pa.bool_(),
        **{f"success_{form}": pa.bool_() for form in FILES},
        **{f"{name}_{form}": pa.float64() for form in FILES for name in ON_FILE if name != "success"},
    }
    assert run.outcomes().schema == schema


def test_the_table_has_one_row_per_image_attack_and_interpreter(run: Run) -> None:
    rows = run.outcomes().to_pylist()
    ids = run.images("benign")[0]
    assert len(ids) == N
    assert {(r["id"], r["attack"], r["interpreter"]) for r in rows} == {
        (id, attack, interpreter) for id in ids for attack in ("pgd", "adv2") for interpreter in ("cam", "grad")
    }
    assert len(rows) == N * 2 * 2
    absent = {name for row in rows for name, value in row.items() if value is None}
    assert absent == {"evades", "target_map_of", "flow_mean", "flow_smoothness"}
    assert {row["reason"] for row in rows} <= {"budget", "settled"}
    assert all(0 <= row[name] <= 1 for row in rows for name in ("confidence", "map_l1", "map_l2", "iou_mean"))


@pytest.mark.parametrize(
    ("attack", "interpreter"), [("benign", None), ("pgd", None), ("pgd", "cam"), ("adv2", "cam"), ("adv2", "grad")]
)
def test_images_are_float32_in_the_box_and_in_the_ball(run: Run, attack: str, interpreter: str | None) -> None:
    ids, images = run.images(attack, interpreter)
    benign_ids, benign = run.images("benign")
    assert ids == benign_ids
    assert (images.dtype, images.shape) == (np.float32, (N, 3, 16, 16))
    assert 0 <= images.min() <= images.max() <= 1
    change = np.abs(images - benign).max()
    assert change == 0 if attack == "benign" else 0 < change <= EPS + 1e-6


def test_stored_images_are_not_rounded_to_8_bits(run: Run) -> None:
    _, images = run.images("adv2", "cam")
    assert np.abs(images * 255 - np.round(images * 255)).max() > 0.1


@pytest.mark.parametrize("interpreter", ["cam", "grad"])
@pytest.mark.parametrize("attack", ["benign", "pgd", "adv2"])
def test_maps_are_float32_and_normalised(run: Run, attack: str, interpreter: str) -> None:
    ids, maps = run.maps(attack, interpreter)
    assert ids == run.images("benign")[0]
    assert (maps.dtype, maps.shape) == (np.float32, (N, 16, 16) if interpreter == "cam" else (N, 8, 8))
    assert maps.min((1, 2)).tolist() == [0.0] * N
    assert maps.max((1, 2)).tolist() == [1.0] * N


def test_the_table_agrees_with_the_images_and_maps_beside_it(run: Run) -> None:
    order = run.images("benign")[0]
    for attack in ("pgd", "adv2"):
        for interpreter in ("cam", "grad"):
            rows = {
                r["id"]: r
                for r in run.outcomes().to_pylist()
                if (r["attack"], r["interpreter"]) == (attack, interpreter)
            }
            change = np.abs(run.images(attack, interpreter)[1] - run.images("benign")[1]).max((1, 2, 3))
            distance = np.abs(run.maps(attack, interpreter)[1] - run.maps("benign", interpreter)[1]).mean((1, 2))
            assert [rows[id]["linf"] for id in order] == pytest.approx(change.tolist(), abs=1e-7)
            assert [rows[id]["map_l1"] for id in order] == pytest.approx(distance.tolist(), abs=1e-6)


def test_the_folder_can_be_read_without_underfire(run: Run) -> None:
    info = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    entry = next(e for e in info["stages"] if (e["kind"], e["attack"], e["interpreter"]) == ("image", "adv2", "grad"))
    found: dict[str, Any] = {}
    for shard in (run.path / "stages" / entry["key"]).glob("shard-*.safetensors"):
        with safe_open(shard, "np") as rows:
            found.update(zip(json.loads(rows.metadata()["ids"]), rows.get_tensor("image"), strict=True))
    ids, images = run.images("adv2", "grad")
    assert set(found) == set(ids)
    assert np.array_equal(np.stack([found[id] for id in ids]), images)
    assert json.loads((run.path / "stages" / entry["key"] / "spec.json").read_text())["type"] == "Craft"


def test_the_folder_holds_what_was_promised_and_no_pickle(run: Run) -> None:
    files = {path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()}
    promised = {"run.json", "config.toml", "outcomes.parquet", "averages.csv", "report.html"}
    assert {str(file) for file in files if len(file.parts) == 1} == promised
    for file in files:
        if len(file.parts) > 1:
            assert file.parts[0] == "stages"
            assert file.name in ("spec.json", "index.json") or file.match("shard-*.safetensors")
        beginning = (run.path / file).read_bytes()[:4]
        assert beginning[:1] != b"\x80", f"{file} begins like a pickle"
        assert beginning != b"PK\x03\x04", f"{file} begins like an archive of torch.save"


def test_each_stage_holds_each_image_once(run: Run) -> None:
    for stage in (run.path / "stages").iterdir():
        held: list[str] = []
        for path in stage.glob("shard-*.safetensors"):
            with safe_open(path, "pt") as shard:
                ids = json.loads(shard.metadata()["ids"])
            assert {len(rows) for rows in load_file(path).values()} == {len(ids)}
            held += ids
        assert sorted(held) == sorted(run.images("benign")[0])


def test_a_copied_folder_reads_the_same(run: Run, tmp_path: Path) -> None:
    copied = open_run(shutil.copytree(run.path, tmp_path / "elsewhere"))
    assert copied.outcomes() == run.outcomes()
    assert np.array_equal(copied.maps("adv2", "cam")[1], run.maps("adv2", "cam")[1])


def test_what_is_read_can_be_changed_without_changing_the_folder(run: Run) -> None:
    images = run.images("benign")[1]
    images[:] = 0
    assert run.images("benign")[1].max() > 0
