"""`underfire audit` from end to end: what it leaves and says, its exit codes, and the examples for build servers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from underfire import open_run
from underfire.attacks import recipes
from underfire.studies.audits import audit_of

EXAMPLES = Path(__file__).parents[2] / "examples" / "ci"
Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture
def options(tiny_model: str, tiny_photos: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A quick audit of few steps."""
    annealed = recipes.RECIPES["annealed"]
    rows = {name: replace(row, efforts={"quick": (5,)}) for name, row in annealed.map_attacks.items()}
    short = replace(annealed, warm_steps=4, plain_steps=5, map_attacks=rows)
    monkeypatch.setattr(recipes, "RECIPES", {"annealed": short})
    images = ("--model", tiny_model, "--images", tiny_photos, "--normalize", "none", "--n", 3)
    return [*images, "--interpreter", "cam", "--suite", "quick"]


def test_an_audit_leaves_record_report_and_summary_and_fails_below_a_share(
    underfire: Underfire, options: list[object], tmp_path: Path
) -> None:
    out, summary = tmp_path / "audit", tmp_path / "summary.md"
    code, said, _ = underfire("audit", *options, "--out", out, "--summary", summary)
    found = audit_of(open_run(out))
    assert code == 0
    assert "joint robust accuracy" in " ".join(said.split())
    assert (out / "report.html").is_file()
    assert f"n = {found.n}" in summary.read_text()
    robust = found.worst.robust.value
    assert robust is not None
    code, said, _ = underfire("audit", *options, "--out", out, "--fail-under", robust)
    assert code == 0
    code, _, _ = underfire("audit", *options, "--out", out, "--fail-under", 1.0)
    assert code == (3 if robust < 1 else 0)
    code, _, said = underfire("audit", *options, "--out", out, "--detector", "nonsense")
    assert code == 1
    assert "There is no detector 'nonsense'" in said


def commands(example: str) -> list[str]:
    """The lines that a build server would run, but for installing."""
    written: Any = yaml.safe_load((EXAMPLES / example).read_text())
    jobs = written.get("jobs", written)["audit"]
    lines = jobs["script"] if "script" in jobs else [step["run"] for step in jobs["steps"] if "run" in step]
    return [line for line in lines if not line.startswith("pip install")]


@pytest.mark.parametrize("example", ["github-actions.yml", pytest.param("gitlab-ci.yml", marks=pytest.mark.extended)])
def test_the_examples_for_build_servers_run(example: str, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text(
        f'model = "{tiny_model}"\nimages = "{tiny_photos}"\nnormalize = "none"\ninterpreter = "cam"\nn = 2\n'
        'suite = "quick"\n'
    )
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    there = {**os.environ, "PATH": programs, "GITHUB_STEP_SUMMARY": str(tmp_path / "page.md")}
    for line in commands(example):
        ended = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=there, capture_output=True, text=True)
        assert ended.returncode in ((0, 3) if "audit --" in line else (0,)), ended.stderr
    assert json.loads((tmp_path / "runs" / "audit" / "audit.json").read_text())["n"] == 2
    assert "joint robust accuracy" in (tmp_path / "audit.md").read_text()
