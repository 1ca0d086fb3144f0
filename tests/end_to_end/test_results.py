"""No number in a table of results is typed: the pages hold what their files hold."""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.compute as pc
import pytest

from underfire.core.io import read_json, rows_where, write_bytes, write_json
from underfire.data.image_set import open_images
from underfire.models.classifier import Classifier
from underfire.report import write_report
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "<!-- table: " in path.read_text(encoding="utf-8"))
LINES = "attack,interpreter,over,measure,value,low,high,n\n"
COMMAND = "underfire attack --model /tmp/models/models.py:build@/tmp/w.pt --normalize 0.5/0.25 --eps 8/255"
SHORT = "underfire attack --model models.py:build@w.pt --normalize 0.5/0.25 --eps 8/255"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.delitem(sys.modules, "tables", raising=False)
    return import_module("tables")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run of twelve images, and a page that shows it."""
    rows = (
        "pgd,cam,all,asr,1,0.7575,1,12\npgd,cam,fooled,mc,0.99812,,,12\npgd,cam,all,map_l1,0.2034,0.15,0.25,12\n"
        "adv2,cam,all,asr,.75,.4677,.9111,12\nadv2,cam,fooled,mc,0.9,,,9\nadv2,cam,all,map_l1,0.00391,0.0027,0.006,12\n"
        "adv2,cam,all,plausible,0.9,0.7,1,11\nadv2,cam,all,success_jpeg75,.25,.09,.53,12\n"
        "adv2,cam,all,map_l1_jpeg75,0.09312,,,12\n,cam,other image,map_l1,.2,.1,.3,12\n"
    )
    write_bytes(tmp_path / "data" / "x" / "averages.csv", f"{LINES}{rows}".encode())
    write_json(tmp_path / "data" / "x" / "run.json", {"underfire": "1.2", "n": 12, "commands": ["a b", "c d"]})
    return tmp_path


def page(folder: Path, *marks: str) -> Path:
    text = "".join(f"Before.\n\n<!-- {mark} -->\nstale\n<!-- end -->\n\nAfter.\n" for mark in marks)
    write_bytes(folder / "page.md", text.encode())
    return folder / "page.md"


def test_there_are_pages_with_tables() -> None:
    assert {path.relative_to(DOCS).as_posix() for path in PAGES} >= {"results/detection.md", "results/threats.md"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_tables_of_a_page_are_those_of_its_files(tables: ModuleType, path: Path) -> None:
    """Else: python docs/tables.py."""
    assert path.read_text(encoding="utf-8") == tables.rendered(path)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_says_which_commands_made_its_tables(path: Path) -> None:
    said = re.findall(r"<!-- (run|table): (.+) -->", path.read_text(encoding="utf-8"))
    runs = {name for kind, words in said if kind == "run" for name in words.split()}
    assert {
        str(Path(word).parent)
        for kind, words in said
        if kind == "table"
        for word in re.findall(r"\S+\.(?:csv|json)", words)
    } == runs


def test_what_is_kept_is_shown_and_names_no_folder_of_a_machine() -> None:
    shown = " ".join(path.read_text(encoding="utf-8") for path in PAGES)
    for file in (DOCS / "results" / "data").rglob("*.*"):
        assert f"data/{file.parent.name}" in shown, f"no page shows {file}"
        assert not re.search(r"(^|[\s\",'=@:])(~|\.\.)?/\w", file.read_text(encoding="utf-8")), file


def test_numbers_are_written_as_everywhere(tables: ModuleType, kept: Path) -> None:
    rendered = tables.rendered(page(kept, "table: attacks data/x/averages.csv"))
    assert rendered.replace("\N{NO-BREAK SPACE}", " ") == (
        "Before.\n\n<!-- table: attacks data/x/averages.csv -->\n\n"
        "| interpreter | attack | n | ASR | MC | ΔL1 | floats | IoU | plausible | natural | JPEG 95 | JPEG 75 |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        "| CAM | PGD | 12 | 1.00 | .998 | .203 [.150, .250] | – | – | – | – | – · – | – · – |\n"
        "| CAM | ADV² | 12 | .75 | .900 | .0039 [.0027, .0060] | – | – | .90 [.70, 1.00] of 11 | – | – · – "
        "| .25 · .093 |\n"
        "\nunderfire 1.2, n = 12: [x/averages.csv](data/x/averages.csv)\n\n<!-- end -->\n\nAfter.\n"
    )


def test_files_of_several_runs_stand_below_each_other(tables: ModuleType, kept: Path) -> None:
    write_bytes(kept / "data" / "y" / "averages.csv", f"{LINES}pgd,cam,all,asr,1,,,7\n".encode())
    write_json(kept / "data" / "y" / "run.json", {"underfire": "1.2", "n": 7, "commands": []})
    made = tables.rendered(page(kept, "table: files data/x/averages.csv data/y/averages.csv attack=pgd,adv2"))
    assert "| x | CAM | ADV² | 12 | – · – | .75 · .0039 | – · – | .25 · .093 |\n| y | CAM | PGD | 7 |" in made
    assert "underfire 1.2, n = 12 and 7: " in made


def test_rows_are_chosen_by_what_they_hold(tables: ModuleType, kept: Path) -> None:
    rendered = tables.rendered(page(kept, "table: attacks data/x/averages.csv attack=adv2", "run: data/x"))
    assert "| PGD |" not in rendered
    assert "| ADV² |" in rendered
    assert "underfire 1.2, n = 12:\n\n```\na b\nc d\n```\n" in rendered
    assert "stale" not in rendered


def test_who_sees_what_was_made_for_another_is_a_matrix(tables: ModuleType, tmp_path: Path) -> None:
    rows = (
        "adv2,cam,cam,m,map_l1,.036,.03,.04,9\nadv2,cam,cam,m,iou_mean,.88,.8,.9,9\n"
        "adv2,cam,grad,m,map_l1,.136,.1,.2,9\nadv2,cam,grad,m,iou_mean,.44,.4,.5,9\n"
        "adv2,cam,grad,m,difference,-.1,-.11,-.09,9\nnoise,,cam,m,map_l1,.037,.03,.04,9\n"
        "noise,,cam,m,iou_mean,.9,.8,1,9\n"
    )
    heads = "attack,source,interpreter,model,measure,value,low,high,n\n"
    write_bytes(tmp_path / "data" / "x" / "transfer-averages.csv", f"{heads}{rows}".encode())
    write_json(tmp_path / "data" / "x" / "run.json", {"underfire": "1.2", "n": 9, "commands": []})
    made = tables.rendered(page(tmp_path, "table: transfers data/x/transfer-averages.csv"))
    made = made.replace("\N{NO-BREAK SPACE}", " ")
    assert "| made for | CAM | GRAD |\n|---|---|---|\n" in made
    assert "| ADV² for CAM | .036 · .88 | .136 · .44 (−.100 [−.110, −.090]) |\n" in made
    assert "| random noise | .037 · .90 | – · – |\n" in made


def test_audits_are_read_as_they_were_written(tables: ModuleType, tmp_path: Path) -> None:
    def share(value: float | None, n: int = 40) -> dict[str, Any]:
        return {"value": value, "low": 0.1, "high": 0.5, "n": n}

    member = {
        "attack": "adv2",
        "title": "ADV²",
        "attacked": 40,
        "fooled": 40,
        "betrayed": {"natural": 29, "overlap": 31},
    }
    points = [{"eps": eps / 255, "betrayed": share(eps / 10)} for eps in (2, 4)]
    lasting = [{"form": form, "success": share(1.0), "betrayed": share(0.5)} for form in ("png", "jpeg95", "jpeg75")]
    flags = [
        {"name": name, "raised": raised, "number": 0.24, "limit": 0.1, "sentence": ""}
        for name, raised in (("steps not enough", True), ("own noise", False))
    ]
    audited = {
        "interpreter": "cam", "definition": "natural", "robust": share(0.275), "plain_robust": share(0.0),
        "robust_by": {"natural": share(0.275), "overlap": share(0.225)}, "plausible_under_pgd": share(0.0),
        "members": [member], "lasting": lasting, "distances": [], "flags": flags, "betrayed": {},
        "curve": {"attack": "adv2", "points": points, "median": None, "median_low": None, "median_high": None},
    }  # fmt: skip
    detector = {"name": "fs", "threshold": 0.9, "fpr": 0.05}
    model = {"name": "/tmp/models/models.py:tiny", "fingerprint": "f", "accuracy": share(0.9)}
    found = {
        "underfire": "1.2", "command": COMMAND, "model": model, "images": "x", "n": 40, "eps": 8 / 255,
        "suite": "standard", "seed": 0, "detector": detector, "interpreters": [audited],
    }  # fmt: skip
    run = tmp_path / "run"
    write_json(run / "audit.json", found)
    write_json(run / "run.json", {"underfire": "1.2", "chosen": dict.fromkeys(map(str, range(40))), "command": COMMAND})
    tables.keep(run, tmp_path / "data" / "x")
    assert "/tmp" not in (tmp_path / "data" / "x" / "audit.json").read_text()
    made = tables.rendered(page(tmp_path, "table: audits data/x/audit.json", "table: curves data/x/audit.json"))
    made = made.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "| CAM, detector fs | tiny | 40 | **.28 [.10, .50]** (natural) | .23 [.10, .50] | .00 [.10, .50] "
        "| ADV²: 29 of 40 | > 4/255 | .50 [.10, .50] · .50 [.10, .50] | steps not enough (0.24) |"
    ) in made
    assert (
        "| explanation | model | ≤ 2/255 | ≤ 4/255 |\n|---|---|---|---|\n| CAM, detector fs | tiny | .20 | .40 |\n"
        in made
    )


@pytest.mark.parametrize(
    ("mark", "sentence"),
    [
        ("table: atacks data/x/averages.csv", "There is no kind of table 'atacks'; there are attacks, "),
        ("table: attacks data/x/averages.csv attack=adv2,stadv", "No row has attack=stadv."),
        ("table: attacks data/x/averages.csv atack=adv2", "No row has atack=adv2."),
    ],
)
def test_what_a_page_cannot_mean_is_one_sentence(tables: ModuleType, kept: Path, mark: str, sentence: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(sentence)):
        tables.rendered(page(kept, mark))


def test_a_long_command_is_broken_before_options(tables: ModuleType) -> None:
    lines = tables.in_lines(f"underfire attack {' '.join(f'--option-{i} value' for i in range(12))}").splitlines()
    assert max(map(len, lines)) <= 90
    assert all(line.endswith("value \\") for line in lines[:-1])
    assert all(line.startswith("    --option-") for line in lines[1:])


def test_commands_are_those_of_any_machine(tables: ModuleType) -> None:
    typed = f"{COMMAND} --images '/tmp/a/x.npz' --interpreter rts:/tmp/m.safetensors,../e.py:f --quiet --out runs/x"
    assert tables.anywhere(typed) == f"{SHORT} --images 'x.npz' --interpreter rts:m.safetensors,e.py:f --out runs/x"
    assert tables.anywhere("Worst case / undefended") == "Worst case / undefended"


def test_a_run_is_kept_with_what_made_it(
    tables: ModuleType, tiny_model: str, tiny_photos: Path, no_plots: None, tmp_path: Path
) -> None:
    """From a command to a table: what it shows is what outcomes.parquet holds."""
    settings = AttackSettings(model=tiny_model, images=str(tiny_photos), n=2, eps=0.1, steps=10, normalize="none")
    subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
    run = execute(settings, subject, tmp_path / "run", Manner(f"{COMMAND} --n 2"))
    write_report(run, run.path / "report.html")
    tables.keep(run.path, tmp_path / "data" / "tiny")
    about = read_json(tmp_path / "data" / "tiny" / "run.json")
    assert (about["underfire"], about["n"]) == (run.info["underfire"], 2)
    assert about["commands"] == [f"{SHORT} --n 2"]
    rendered = tables.rendered(page(tmp_path, "table: attacks data/tiny/averages.csv interpreter=cam attack=adv2"))
    (line,) = re.findall(r"\| CAM \| ADV² \| 2 \| [.\d]+ \| (.+) \|", rendered)
    outcomes = rows_where(run.outcomes(), attack="adv2", interpreter="cam")
    measured = [pc.mean(outcomes[name]).as_py() for name in ("map_l1_png", "map_l1", "iou_mean_png")]
    assert [float(cell) for cell in line.split(" | ")[1:4]] == pytest.approx(measured, abs=0.005)


def test_a_folder_without_tables_is_told_how_to_get_them(tables: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="underfire report"):
        tables.keep(tmp_path, tmp_path / "kept")
