"""Nothing that is only shown may cost what was computed: terminals that know few characters, and readers that leave."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from underfire import open_run

PROGRAM = (sys.executable, "-c", "from underfire.cli.main import main; main()")


@pytest.fixture
def typed(tiny_model: str, tiny_photos: Path, tmp_path: Path) -> list[str]:
    """A short attack into tmp_path/Läufe/run."""
    named = {"model": tiny_model, "images": tiny_photos, "normalize": "none", "n": 2, "steps": 1, "interpreter": "cam"}
    named["out"] = tmp_path / "Läufe" / "run"
    return ["attack", *(str(part) for name in named for part in (f"--{name}", named[name]))]


def complete(out: Path) -> bool:
    return open_run(out).outcomes().num_rows == 4 and (out / "report.html").is_file()


RARER = [pytest.param(encoding, marks=pytest.mark.extended) for encoding in ("cp1252", "utf-8", "latin-1")]


@pytest.mark.parametrize("encoding", ["ascii", *RARER])
def test_a_terminal_of_few_characters_costs_no_result(typed: list[str], tmp_path: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, *typed], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode(encoding)
    assert f"Run folder: {tmp_path}" in said
    assert ("ΔL1" in said) == (encoding == "utf-8")
    assert complete(tmp_path / "Läufe" / "run")


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.extended)])
@pytest.mark.parametrize("arguments", [("--help",), ("attack", "--help"), ("list",), ("study", "list")])
def test_help_is_shown_on_any_terminal(arguments: tuple[str, ...], encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_is_one_sentence_on_any_terminal(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [*PROGRAM, "report", "Läufe"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"underfire: L")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_costs_no_result(typed: list[str], tmp_path: Path) -> None:
    with subprocess.Popen([*PROGRAM, *typed], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
    assert complete(tmp_path / "Läufe" / "run")


@pytest.mark.extended
def test_output_that_is_closed_costs_no_result(typed: list[str], tmp_path: Path) -> None:
    command = f'exec {" ".join(map(repr, [sys.executable]))} -c {PROGRAM[2]!r} "$@" >&-'
    done = subprocess.run(["bash", "-c", command, "bash", *typed], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert complete(tmp_path / "Läufe" / "run")


def test_quiet_prints_the_paths_of_what_was_written(
    underfire: Callable[..., tuple[int, str, str]], typed: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "Läufe" / "run"
    assert underfire(*typed, "--quiet") == (0, f"{out}\n{out / 'report.html'}\n", "")
