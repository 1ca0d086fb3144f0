"""`underfire evaluate`: pictures that others made, from a folder to a report, and detectors on them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from underfire import open_run
from underfire.studies.detections import detections

Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture
def given(tiny_photos: Path, tiny_model: str, tmp_path: Path) -> tuple[object, ...]:
    """Options for four of the photos, whose colours somebody has swapped."""
    for file in [*sorted(tiny_photos.rglob("*-0.png")), tiny_photos / "red" / "red-1.png"]:
        theirs = tmp_path / "theirs" / file.relative_to(tiny_photos)
        theirs.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as picture:
            Image.fromarray(np.roll(np.asarray(picture), 1, axis=2)).save(theirs)
    named = {"model": tiny_model, "normalize": "none", "benign": tiny_photos, "attacked": tmp_path / "theirs"}
    return tuple(part for name in named for part in (f"--{name}", named[name]))


def test_given_pictures_have_a_report_and_can_be_scored_by_detectors(
    underfire: Underfire, given: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    code, said, err = underfire("evaluate", *given, "--interpreter", "cam", "--name", "swap <b>", "--out", out)
    assert (code, err) == (0, "")
    assert said.splitlines()[1] == "4 attacked of 12 benign images."
    rows = open_run(out).outcomes().to_pylist()
    assert [(row["attack"], row["success"]) for row in rows] == [("swap <b>", True)] * 4
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "swap &lt;b&gt; fooled the classifier on 4 of 4 images" in page
    assert '"target": null' in page  # any other class would do
    code, _, err = underfire("detect", out, "--detector", "fs:median:3", "--benign", "8", "--fpr", "0.25")
    assert (code, err) == (0, "")
    scored = [row for row in detections(open_run(out)).to_pylist() if row["attack"] == "swap <b>"]
    assert [row["success"] for row in scored] == [True] * 4
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    underfire("evaluate", *given, "--interpreter", "cam", "--name", "swap <b>", "--out", out)
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert [path.name for path in before if before[path] != after[path]] in ([], ["report.html"])  # with the detector


def test_what_does_not_match_is_said_and_nothing_written(
    underfire: Underfire, given: tuple[object, ...], tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "theirs" / "red" / "red-1.png", tmp_path / "theirs" / "red" / "strange.png")
    code, _, err = underfire("evaluate", *given, "--out", tmp_path / "run")
    assert code == 1
    assert err.startswith("underfire: The attacked image red/strange.png has no benign one of its name")
    assert not (tmp_path / "run").exists()
