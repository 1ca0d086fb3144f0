"""What is imported to answer at once, and to write a report: nothing that takes seconds and is not used."""

import subprocess
import sys
from pathlib import Path

import pytest

COSTLY = ("torch", "torchvision", "scipy.stats", "matplotlib")


def executed(statement: str, *modules: str) -> tuple[str, list[str]]:
    """What a fresh interpreter prints at a statement, and which of these modules it holds afterwards."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    program += f"print('IMPORTED', *(name for name in {modules} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, _, names = done.stdout.rpartition("IMPORTED")
    return said, names.split()


def underfire(*arguments: object, without: tuple[str, ...] = COSTLY) -> str:
    """What a command prints; it must not import `without`."""
    typed = ["underfire", *map(str, arguments)]
    said, costly = executed(f"sys.argv = {typed}; from underfire.cli.main import main; main()", *without)
    assert costly == []
    return said


def test_the_package_imports_what_is_asked_of_it() -> None:
    assert executed("import underfire", *COSTLY)[1] == []
    assert executed("import underfire; underfire.UnderfireError", *COSTLY)[1] == []
    assert executed("import underfire; underfire.CAM", *COSTLY)[1] == ["torch"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--help",), "attack"),
        (("-h",), "attack"),
        (("--version",), "underfire"),
        (("list",), "grad-cam"),
        (("attack", "--help"), "--interpreter"),
        (("study", "--help"), "random-patch"),
        (("study", "list"), "random-patch"),
        (("train", "aid", "--help"), "--fidelity"),
    ],
)
def test_what_computes_nothing_imports_nothing_costly(arguments: tuple[str, ...], word: str) -> None:
    assert word in underfire(*arguments)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("att", "attack"),
        ("study rand", "random-patch"),
        ("attack --interp", "--interpreter"),
        ("attack --recipe a", "annealed"),
    ],
)
def test_completion_imports_nothing_costly(monkeypatch: pytest.MonkeyPatch, typed: str, offered: str) -> None:
    monkeypatch.setenv("_UNDERFIRE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"underfire {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    assert offered in underfire()


@pytest.mark.extended
def test_a_report_is_written_without_torchvision(tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    run, given = tmp_path / "run", ("--normalize", "none", "--interpreter", "cam", "--n", 2, "--steps", 1)
    underfire("attack", "--model", tiny_model, "--images", tiny_photos, *given, "--out", run, without=())
    (run / "report.html").unlink()
    underfire("report", run, without=("torchvision", "torch._dynamo"))
    assert (run / "report.html").is_file()
