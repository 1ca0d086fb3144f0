"""`underfire probe` on a function of a user's file and on a library's, in words and as JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from underfire.cli.main import app
from underfire.core.errors import UnderfireError

MINE = """
def brightness(model, images, classes):
    return images.detach().numpy().mean(1)
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py:brightness"


def test_the_verdict_in_words(mine: str) -> None:
    result = CliRunner().invoke(app, ["probe", "--model", "demo", "--crop", "32", "--interpreter", mine])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "Followed by queries only: its result is a numpy ndarray, where autograd stops" in said
    assert "Note: the maps of two classes are the same" in said


def test_json_for_programs(mine: str) -> None:
    names = f"captum:Saliency,{mine}"
    result = CliRunner().invoke(app, ["probe", "--model", "demo", "--crop", "32", "--interpreter", names, "--json"])
    gradient, brightness = json.loads(result.output)
    assert (gradient["interpreter"], gradient["verdict"]) == ("captum-Saliency", "input gradient")
    assert (brightness["interpreter"], brightness["cosine"]) == ("mine-brightness", None)


def test_our_own_interpreters_need_no_probe() -> None:
    result = CliRunner().invoke(app, ["probe", "--model", "demo", "--interpreter", "cam"])
    assert isinstance(result.exception, UnderfireError)
    assert "'cam' is one of ours" in str(result.exception)


def test_a_function_of_a_file_is_attacked(mine: str, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    options = [
        "--images",
        str(tiny_photos),
        "--normalize",
        "none",
        "--n",
        "2",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(app, ["attack", "--model", tiny_model, *options, "--interpreter", mine])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "An attacker follows mine-brightness by queries only: its result is a numpy ndarray" in said
    assert "mine-brightness: the maps of two classes are the same: it explains no class." in said
    remarks = json.loads((tmp_path / "run" / "run.json").read_text())["remarks"]
    assert remarks["mine-brightness"][0].startswith("An attacker follows mine-brightness by queries only: ")
    assert remarks["mine-brightness"][0] in (tmp_path / "run" / "report.html").read_text()
