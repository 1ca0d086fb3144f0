"""`underfire transfer` and `underfire study gap`: what they leave, what they say, and how they refuse."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from underfire.cli.main import main
from underfire.studies.transfers import SCHEMA

Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def gap_of_tiny(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The command without its folder."""
    given = ("--model", tiny_model, "--images", tiny_photos, "--normalize", "none", "--interpreter", "cam", "--n", 3)
    return ["study", "gap", *given]


@pytest.fixture(scope="module")
def finished(gap_of_tiny: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["underfire", *map(str, gap_of_tiny), "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the study."""
    return shutil.copytree(finished, tmp_path / "run") / "gap"


def narrow(out: str) -> bool:
    """Whether the tables fit on 80 columns; paths and sentences may be longer."""
    return all(len(line) <= 80 for line in out.splitlines() if line.startswith(" "))


def test_gap_and_transfer_leave_tables_and_plots_and_print_them(
    underfire: Underfire, gap_of_tiny: list[object], tiny_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run" / "gap"
    code, out, err = underfire(*gap_of_tiny, "--out", folder.parent)
    assert (code, err) == (0, "")
    assert narrow(out)
    assert all(f"\n {row} " in out for row in ("benign", "PGD", "ADV² for CAM", "random noise"))
    assert "Proposition 1" in out

    assert 'scale = "standard"\n' in (folder / "config.toml").read_text(encoding="utf-8")
    code, out, err = underfire("transfer", folder, "--interpreter", "cam,grad,grad-cam,ig")
    assert (code, err) == (0, "")
    assert narrow(out)
    assert "adv2 cam" in out
    assert "*" in out
    rows = pq.read_table(folder / "transfer.parquet")
    assert rows.schema == SCHEMA
    assert rows.num_rows == 3 * 3 * 4
    used = (folder / "config-transfer.toml").read_text(encoding="utf-8")
    assert 'interpreter = ["cam", "grad", "grad-cam", "ig"]\n' in used

    code, out, err = underfire("transfer", folder, "--model", tiny_model, "--normalize", "imagenet")
    assert (code, err) == (0, "")
    assert pq.read_table(folder / "transfer.parquet").num_rows == 3 * 3 * 4 + 3 * 3
    pictures = {path.name: path.read_bytes() for path in folder.glob("*.svg")}
    assert len(pictures) == 3
    assert (folder / "transfer-averages.csv").read_text(encoding="utf-8").startswith('"attack","source","interpreter"')
    assert all(b"<svg" in picture for picture in pictures.values())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--interpreter", "cam,lime"), "There is no interpreter 'lime'"),
        (("--interpreter", "cam, cam"), "names an interpreter twice"),
        (("--normalize", "none"), "is that of another --model"),
        (("--model", "resnet"), "does not name a model"),
        (("--interpreter", "rts"), "trained for another classifier"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_sentence(
    underfire: Underfire, run: Path, options: tuple[str, ...], problem: str
) -> None:
    code, _, err = underfire("transfer", run, *options)
    assert code == 1
    assert err.count("\n") == 1
    assert problem in err
    assert not (run / "transfer.parquet").exists()


def test_a_folder_that_is_no_run_or_not_complete_is_refused(underfire: Underfire, run: Path, tmp_path: Path) -> None:
    assert "contains no run" in underfire("transfer", tmp_path / "nothing")[2]
    info = json.loads((run / "run.json").read_text())
    maps = next(e["key"] for e in info["stages"] if (e["kind"], e["attack"]) == ("map", "adv2"))
    shutil.rmtree(run.parent / "stages" / maps)
    code, _, err = underfire("transfer", run)
    assert code == 1
    assert "lacks adv2 maps, cam; finish the run with its own command first" in err
