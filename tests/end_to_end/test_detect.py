"""`underfire detect`: what it adds to a run folder, what it says, and how it refuses."""

import csv
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from underfire import open_run
from underfire.attacks import recipes
from underfire.cli.main import main
from underfire.core.io import read_json, write_json

Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three scenes attacked in a few steps."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    command = f"underfire attack --model demo --images demo --interpreter cam,grad --n 3 --steps 4 --out {out}"
    with pytest.MonkeyPatch.context() as patch:
        short = replace(recipes.RECIPES["annealed"], warm_steps=2, plain_steps=4)
        patch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
        patch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit):
            main()
    return out


@pytest.fixture
def run(demo_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_run, tmp_path / "demo")


def test_a_run_is_scored_by_every_squeezer_and_by_all_together(underfire: Underfire, run: Path) -> None:
    code, out, err = underfire("detect", run, "--benign", 40)
    assert (code, err) == (0, "")
    rows = pq.read_table(run / "detections.parquet").to_pylist()
    detectors = ["fs:bits:2", "fs:bits:3", "fs:median:3", "fs:nlm:11-3-4", "fs"]
    assert list(dict.fromkeys(row["detector"] for row in rows)) == detectors
    wrong = sum(row["correct"] is False for row in rows) // 5
    assert len(rows) == 5 * (40 + wrong + 3 * 4)
    assert {(row["attack"], row["interpreter"]) for row in rows if row["part"] == "run"} == {
        ("benign", None), ("pgd", None), ("adv2", "cam"), ("adv2", "grad")
    }  # fmt: skip
    held = read_json(run / "detectors.json")
    assert [each["name"] for each in held["detectors"]] == detectors
    assert held["benign"]["found"] == 40
    assert "benign = 40\n" in (run / "config-detect.toml").read_text(encoding="utf-8")
    assert "Thresholds from 20 benign images classified right, for 5 % false positives;" in out
    assert f"checked on {20 + wrong} others, {wrong} of them wrong." in out
    told = [line for line in out.splitlines() if line and "/" not in line]
    assert all(len(line) <= 80 for line in told)
    assert "…" not in out
    assert "fs: % flagged of the n successful images, with 95 % intervals" in told
    rates, areas = out.split("fs: AUC")  # each in as many tables as its numbers need
    assert all("\n adv2 cam" in each for each in (rates, areas))
    words = [" ".join(line.split()) for line in told]
    for begins in (f"benign, as they come {20 + wrong} ", "of them right 20 ", f"of them wrong {wrong} "):
        assert sum(line.startswith(begins) for line in words) == (not begins.startswith("of them wrong 0"))
    assert ("misclassified, so nothing is known" in out) == (wrong == 0)
    assert open_run(run).images("adv2", "cam")[1].shape == (3, 3, 64, 64)


def test_all_families_fit_a_narrow_and_a_usual_terminal(
    underfire: Underfire, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families = "fs:bits:2+median:3,consistency:cam+grad:blur+grad:crop,ensemble:cam+grad+grad-cam"
    names = [
        *("fs:bits:2", "fs:median:3", "fs"),
        *(f"consistency:cam:{change}" for change in ("noise", "jpeg", "blur", "crop")),
        *("consistency:cam", "consistency:grad:blur", "consistency:grad:crop", "consistency:grad", "consistency"),
        *("ensemble:cam+grad", "ensemble:cam+grad-cam", "ensemble:grad+grad-cam", "ensemble"),
    ]
    for width in (80, 120):
        monkeypatch.setattr("underfire.cli.terminal.console.width", width)
        code, out, err = underfire("detect", run, "--benign", 40, "--detector", families, "--attack", "adv2")
        assert (code, err) == (0, "")
        tables = out.partition("Thresholds from")[2].partition("Matrix:")[0].splitlines()
        assert all(len(line) <= width and "…" not in line for line in tables)
        words = " ".join(line for line in tables if line.startswith("    ")).split()
        assert [name for name in names if name.split(":", 1)[-1] not in words] == []
        assert not any(line.startswith(" pgd") for line in tables)
    assert list(dict.fromkeys(pq.read_table(run / "detections.parquet")["detector"].to_pylist())) == names
    with (run / "detection-matrix.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["detector"], row["interpreter"]) for row in rows] == [(n, g) for n in names for g in ("cam", "grad")]


def test_the_same_command_again_says_the_same(underfire: Underfire, run: Path) -> None:
    options = ("--benign", 40, "--detector", "fs:bits:2+median:3,consistency:cam:crop,ensemble")
    _, first, _ = underfire("detect", run, *options)
    stages = {path: path.stat().st_mtime_ns for path in run.rglob("shard-*")}
    code, second, _ = underfire("detect", run, *options)
    assert code == 0
    assert second.strip() in first
    assert {path: path.stat().st_mtime_ns for path in run.rglob("shard-*")} == stages


def test_fewer_benign_images_than_asked_for_are_counted(underfire: Underfire, run: Path) -> None:
    code, out, _ = underfire("detect", run, "--benign", 500, "--detector", "fs:bits:3")
    found = read_json(run / "detectors.json")["benign"]["found"]
    assert code == 0
    assert 150 < found < 198
    assert f"No more than {found} benign images were found that the run did not attack." in out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--detector", "magnet"), "There is no detector 'magnet'"),
        (("--detector", "fs:bits:99"), "must keep 1 to 16 bits"),
        (("--detector", "ensemble:cam"), "An ensemble takes two interpreters or more"),
        (("--detector", "ensemble:cam+rts:gone"), "leave out ':' and what follows"),
        (("--detector", "consistency:cam:flip"), "There is no harmless change 'flip'"),
        (("--attack", "stadv"), "contains no attack 'stadv'; it contains pgd, adv2."),
        (("--fpr", "1.5"), "--fpr 1.5: Input should be less than 1"),
        (("--benign", "1"), "--benign 1: Input should be greater than or equal to 2"),
        (("--benign", "20"), "takes at least 19 benign images to calibrate on, and there are 10"),
        (("--device", "abacus"), "The device 'abacus' cannot be used"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(
    underfire: Underfire, run: Path, options: tuple[str, ...], reason: str
) -> None:
    before = sorted(run.rglob("*"))
    code, out, err = underfire("detect", run, *options)
    assert (code, out.strip()) == (1, "")
    assert reason in err
    assert sorted(run.rglob("*")) == before


def test_a_folder_without_a_run_is_refused(underfire: Underfire, tmp_path: Path) -> None:
    code, _, err = underfire("detect", tmp_path)
    assert code == 1
    assert "contains no run (no run.json)" in err


def test_a_run_whose_model_changed_is_refused(underfire: Underfire, run: Path) -> None:
    info = read_json(run / "run.json")
    write_json(run / "run.json", {**info, "spec": {**info["spec"], "model_fingerprint": "0"}})
    code, _, err = underfire("detect", run)
    assert code == 1
    assert "The model demo is not the one that" in err


def test_a_run_whose_images_moved_is_refused(
    underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path
) -> None:
    photos, out = shutil.copytree(tiny_photos, tmp_path / "photos"), tmp_path / "run"
    options = ("--model", tiny_model, "--normalize", "none", "--images", photos, "--interpreter", "cam")
    assert underfire("attack", *options, "--n", 2, "--steps", 2, "--out", out)[0] == 0
    photos.rename(tmp_path / "elsewhere")
    code, _, err = underfire("detect", out, "--benign", 8, "--fpr", 0.3)
    assert code == 1
    assert "cannot be opened again: there is no" in err
    assert not (out / "detections.parquet").exists()


def test_a_study_without_attacks_is_refused(underfire: Underfire, tmp_path: Path) -> None:
    out = tmp_path / "sanity"
    options = ("--model", "demo", "--images", "demo", "--interpreter", "cam")
    assert underfire("study", "sanity", *options, "--n", 2, "--out", out.parent)[0] == 0
    code, _, err = underfire("detect", out)
    assert code == 1
    assert "contains no attacked images, so there is nothing to detect" in err
