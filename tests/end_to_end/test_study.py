"""`underfire study localisation`, `sanity` and `aid`: what they leave, what they say, and how they refuse."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from underfire import open_run
from underfire.cli import main
from underfire.stages import Select, key
from underfire.studies import aid, effectiveness, localisation, sanity

Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Underfire:
    """Run `underfire study` in this process: exit code, output, errors."""

    def run(name: str, **options: object) -> tuple[int, str, str]:
        arguments = (part for option, value in options.items() for part in (f"--{option}", str(value)))
        monkeypatch.setattr(sys, "argv", ["underfire", "study", name, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def masks(tiny_photos: Path, tmp_path: Path) -> Path:
    """A folder with the mask of each of the tiny photos: a box in its middle."""
    folder = tmp_path / "masks"
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[4:12, 5:11] = 255
    for photo in tiny_photos.rglob("*.png"):
        path = folder / photo.relative_to(tiny_photos)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def tiny(tiny_model: str, tiny_photos: Path) -> dict[str, object]:
    return {"model": tiny_model, "images": tiny_photos, "normalize": "none", "interpreter": "grad,cam"}


# ------------------------------------------------------------------ localisation


def test_localisation_leaves_a_table_and_prints_it(
    study: Underfire, tiny: dict[str, object], masks: Path, tmp_path: Path
) -> None:
    code, out, err = study("localisation", **tiny, masks=masks, n=10, out=tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run")
    rows = pq.read_table(run.path / localisation.TABLE).to_pylist()
    assert len(rows) == 10 * 4 * 3  # images, interpreters with the two floors, rules
    assert {row["interpreter"] for row in rows} == {"random", "centre", "grad", "cam"}
    assert sum(row["half"] == "validation" for row in rows) == 5 * 4 * 3
    assert all(row["error"] == (row["iou"] < 0.5 or row["class_true"] != row["class_predicted"]) for row in rows)
    best = [row for row in rows if row["best_rule"]]
    assert len(best) == 10 * 4
    assert all(row["iou"] > 0.5 for row in best if row["interpreter"] == "centre")  # the objects are in the middle
    ids, maps = run.maps("benign", "cam")
    assert (len(ids), maps.shape) == (10, (10, 16, 16))
    assert run.info["spec"]["study"] == "localisation"
    assert "5 images of the test half" in out
    assert "43.8" in out


def test_misclassified_images_count_as_errors(
    study: Underfire, tiny: dict[str, object], masks: Path, tiny_photos: Path, tmp_path: Path
) -> None:
    table = tmp_path / "wrong.csv"
    names = sorted(path.relative_to(tiny_photos).as_posix() for path in tiny_photos.rglob("*.png"))
    table.write_text("\n".join(["file,class_index", *(f"{name},{int('red' in name)}" for name in names)]))
    study("localisation", **tiny, masks=masks, labels=table, n=12, out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    rows = pq.read_table(run.path / localisation.TABLE).to_pylist()
    wrong = [row for row in rows if row["class_true"] != row["class_predicted"]]
    assert run.info["selection"] == {"requested": 12, "examined": 12, "misclassified": len({r["id"] for r in wrong})}
    assert len({row["id"] for row in wrong}) == 8  # green is not blue, and red is class 2
    assert all(row["error"] for row in wrong)
    assert any(not row["box_wrong"] for row in wrong)


@pytest.mark.parametrize("name", ["localisation", "sanity"])
def test_the_same_command_again_computes_nothing_and_another_is_refused(
    study: Underfire, tiny: dict[str, object], masks: Path, tmp_path: Path, name: str
) -> None:
    options = {**tiny, "n": 6, "out": tmp_path / "run", **({"masks": masks} if name == "localisation" else {})}
    _, first, _ = study(name, **options)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, second, err = study(name, **options)
    assert (code, err) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == files
    assert second.strip() in first
    code, _, err = study(name, **{**options, "n": 5})
    assert code == 1
    assert "holds a run with other settings: n was 6 and is now 5" in err


def test_a_table_that_is_lost_is_written_again(study: Underfire, tiny: dict[str, object], tmp_path: Path) -> None:
    study("sanity", **tiny, n=4, out=tmp_path / "run")
    path = tmp_path / "run" / sanity.TABLE
    before = path.read_bytes()
    path.unlink()
    study("sanity", **tiny, n=4, out=tmp_path / "run")
    assert path.read_bytes() == before


def test_stages_that_are_lost_are_computed_again(
    study: Underfire, tiny: dict[str, object], masks: Path, tmp_path: Path
) -> None:
    for name, extra in {"localisation": {"masks": masks}, "sanity": {}}.items():
        out = tmp_path / name
        study(name, **tiny, **extra, n=4, out=out)
        table = out / f"{name}.parquet"
        before = table.read_bytes()
        lost = open_run(out).info["stages"][-1]["key"]
        for shard in (out / "stages" / lost).glob("shard-*"):
            shard.unlink()
        assert study(name, **tiny, **extra, n=4, out=out)[0] == 0
        assert table.read_bytes() == before


def test_masks_that_are_missing_or_do_not_belong_are_refused(
    study: Underfire, tiny: dict[str, object], masks: Path, tiny_photos: Path, tmp_path: Path
) -> None:
    out = {"n": 4, "out": tmp_path / "run"}
    code, _, err = study("localisation", **tiny, masks=tmp_path / "nowhere", **out)
    assert (code, "There is no folder" in err) == (1, True)
    (masks / "red" / "red-0.png").unlink()
    code, _, err = study("localisation", **tiny, masks=masks, **out)
    assert (code, "lacks 1 of 12 masks, the first is red/red-0.png" in err) == (1, True)
    code, _, err = study("localisation", **tiny, masks="demo", **out)
    assert (code, "The demo's scenes bring their own masks" in err) == (1, True)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ sanity


def test_sanity_leaves_a_table_and_prints_it(study: Underfire, tiny: dict[str, object], tmp_path: Path) -> None:
    code, out, err = study("sanity", **tiny, n=6, out=tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run")
    rows = pq.read_table(run.path / sanity.TABLE).to_pylist()
    compared = ["the same again", "head randomised", "all randomised", "another image"]
    assert list(dict.fromkeys(row["compared_with"] for row in rows)) == compared
    assert len(rows) == 6 * 2 * 4
    assert all(row["rank_correlation"] == pytest.approx(1) for row in rows if row["compared_with"] == compared[0])
    assert all(row["map_l1"] == 0 for row in rows if row["compared_with"] == compared[0])
    assert run.maps("all-randomised", "cam")[1].shape == (6, 16, 16)
    assert "all randomised" in out


# ------------------------------------------------------------------ AID


@pytest.fixture
def defended(tiny: dict[str, object]) -> dict[str, object]:
    """Any interpreter can stand for a defended one."""
    return {**tiny, "interpreter": "cam,smooth:cam", "n": 6, "steps": 3, "eps": 0.05}


def test_aid_leaves_a_table_and_pictures_and_prints_what_it_found(
    study: Underfire, defended: dict[str, object], tmp_path: Path
) -> None:
    code, out, err = study("aid", **defended, out=tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run")
    rows = aid.comparisons(run).to_pylist()
    kinds = {(row["shown_by"], row["images"], row["made_for"]) for row in rows}
    noises = {(f"{kind} noise, {level} %", None) for kind in ("normal", "uniform") for level in (3, 30)}
    attacks = {("pgd", None), ("adv2", "cam"), ("signs like pgd", None), ("signs like adv2", "cam")}
    own = {("adv2", "smooth:cam"), ("signs like adv2", "smooth:cam")}
    shared = {("benign", None), *noises, *attacks}
    assert kinds == {("cam", *kind) for kind in shared} | {("smooth:cam", *kind) for kind in shared | own}
    assert len(rows) == 6 * len(kinds)
    assert all(row["map_l1"] == 0 for row in rows if (row["shown_by"], row["images"]) == ("cam", "benign"))
    assert any(row["map_l1"] > 0 for row in rows if (row["shown_by"], row["images"]) == ("smooth:cam", "benign"))
    for row in aid.summarise(aid.comparisons(run)):
        attacked = row.images in ("pgd", "adv2")
        assert ((row.success is not None), (row.auc is not None)) == (attacked, attacked)
        assert (row.sigma is not None) == ("noise" in row.images)
        if row.images.endswith("noise, 30 %"):
            assert row.misclassified.value >= 0.3
    assert "AUC: map change as a detector" in out
    for picture in (aid.NOISE_PICTURE, aid.ATTACK_PICTURE):
        assert (run.path / picture).read_bytes().startswith(b"\x89PNG")
    assert run.maps("adv2", "smooth:cam")[1].shape == (6, 16, 16)
    assert run.maps("adv2 for cam", "smooth:cam")[1].shape == (6, 16, 16)
    assert run.maps("normal noise, 3 %", "cam")[1].shape == (6, 16, 16)


def test_aid_attacks_as_underfire_attack_does(study: Underfire, defended: dict[str, object], tmp_path: Path) -> None:
    """The same stages under the same keys, so that what one has computed means the same to the other."""
    study("aid", **defended, out=tmp_path / "run")
    run = open_run(tmp_path / "run")
    select = Select(run.info["spec"]["model_fingerprint"], run.info["spec"]["images_digest"], 6, 0)
    given = {name: run.info["spec"][name] for name in ("model", "images", "normalize", "n", "steps", "eps", "seed")}
    settings = effectiveness.Settings(**given, interpreters=("cam",))
    shared = {key(planned.spec) for planned in effectiveness.plan(settings, select) if planned.kind != "step"}
    assert shared <= {stage["key"] for stage in run.info["stages"]}


def test_aid_again_computes_nothing_and_finds_objects_where_masks_are_given(
    study: Underfire, defended: dict[str, object], masks: Path, tmp_path: Path
) -> None:
    options = {**defended, "masks": masks, "located": 8, "out": tmp_path / "run"}
    code, first, err = study("aid", **options)
    assert (code, err) == (0, "")
    assert "Localisation error of cam: " in first
    assert "Localisation error of smooth:cam: " in first
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    code, second, _ = study("aid", **options)
    assert code == 0
    assert second.strip() in first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"interpreter": "cam"}, "--interpreters ('cam',): Tuple should have at least 2 items"),
        ({"interpreter": "cam,cam"}, "Interpreter 'cam' is named twice; give each file a name of its own."),
        ({"interpreter": "cam,nothing"}, "There is no interpreter 'nothing'"),
        ({"masks": "nowhere"}, "There is no folder nowhere."),
        ({"eps": 2}, "--eps 2.0: "),
    ],
)
def test_aid_refuses_in_one_sentence(
    study: Underfire, defended: dict[str, object], tmp_path: Path, options: dict[str, object], complaint: str
) -> None:
    code, _, err = study("aid", **{**defended, **options}, out=tmp_path / "run")
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err
    assert not (tmp_path / "run").exists()
