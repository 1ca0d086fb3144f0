"""The report of a folder of studies: whose verdict it gives, a section for each study, and what cannot be shown."""

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tiny_report import (
    HOSTILE_CLASS,
    HOSTILE_ID,
    INFO,
    FakeRun,
    Tags,
    benign_rows,
    detection_rows,
    gap_row,
    keep_study,
    transfer_row,
    write_detections,
    write_rows,
)
from underfire.core.errors import UnderfireError
from underfire.core.io import read_json, write_json, write_table
from underfire.report import write_report_of
from underfire.report.wording import HIDING, SHOWING
from underfire.runs.folder import open_run
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import case_study, gap, transfers
from underfire.studies.catalogue import STUDIES, done

pytestmark = pytest.mark.usefixtures("no_plots")

RECORDED = {**INFO, "model": {**INFO["model"], "fingerprint": "f0"}}
RUN = FakeRun((HOSTILE_ID, "b.jpg"), side=32, info=RECORDED)
TARGETED = replace(RUN, info={**RECORDED, "spec": {"target_map": "patch"}})


def page(folder: Path) -> str:
    assert write_report_of(folder) == folder / "report.html"
    return (folder / "report.html").read_text(encoding="utf-8")


def sections(page: str) -> list[str]:
    return [str(each["id"]) for each in Tags(page).all("section")]


def studies(page: str) -> list[str]:
    return [str(each["id"]) for each in Tags(page).all("article") if each["class"] == "study"]


def article(page: str, name: str) -> str:
    """What is said of one study."""
    found = re.search(f'<article class="study" id="study-{name}">(.*?)</article>', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_each_study_has_a_section_in_the_order_of_the_catalogue(tmp_path: Path) -> None:
    keep_study(TARGETED, tmp_path / "random-patch")
    keep_study(RUN, tmp_path / "effectiveness")
    shown = page(tmp_path)
    assert studies(shown) == ["study-effectiveness", "study-random-patch"]
    effectiveness = article(shown, "effectiveness")
    assert effectiveness.count("<table>") == 3
    assert effectiveness.count("<img ") == effectiveness.count("<figcaption>") == 4
    assert "Table 3. ASR (MC)" in effectiveness
    assert "notice" not in effectiveness
    assert STUDIES["random-patch"].question in article(shown, "random-patch")
    assert "12 images" in effectiveness


def test_the_verdict_is_of_the_first_study_that_wanted_benign_maps(tmp_path: Path) -> None:
    keep_study(TARGETED, tmp_path / "random-patch")
    assert f"<title>{SHOWING.question} " in page(tmp_path)
    keep_study(RUN, tmp_path / "gap")
    assert f"<title>{HIDING.question} " in page(tmp_path)


def test_detectors_transfer_and_gap_come_from_the_folders_of_their_studies(tmp_path: Path) -> None:
    keep_study(RUN, tmp_path / "effectiveness")
    assert {"detection", "transfer", "gap"}.isdisjoint(sections(page(tmp_path)))
    for name in ("evasiveness", "transfer", "gap"):
        keep_study(RUN, tmp_path / name)
    attackers = (("pgd", None), ("adv2", "cam"), ("adv2", "grad"))
    rows = [row for attack in attackers for row in detection_rows("fs", *attack, scores=[0.5, 2.0])]
    write_detections(tmp_path / "evasiveness", benign_rows("fs") + rows)
    pairs = [(source, shown) for source in ("cam", "grad", None) for shown in ("cam", "grad")]
    table = [transfer_row(*pair, distance=0.1) for pair in pairs]
    write_rows(tmp_path / "transfer" / transfers.TABLE, table, transfers.SCHEMA)
    write_rows(tmp_path / "gap" / gap.TABLE, [gap_row("adv2", "cam", 0.5, 0.9)], gap.SCHEMA)
    shown = page(tmp_path)
    assert {"verdict", "detection", "transfer", "gap", "studies", "gallery"} <= set(sections(shown))
    assert "Proposition 1" in article(shown, "gap")
    assert "notice" not in article(shown, "gap")
    indexed = re.search(r'<nav aria-label="Sections">(.*?)</nav>', shown, re.DOTALL)
    assert indexed is not None
    assert [link["href"] for link in Tags(indexed[1]).all("a")] == [f"#{name}" for name in sections(shown)]


def test_an_unfinished_study_says_so_and_the_others_are_shown(tmp_path: Path) -> None:
    keep_study(RUN, tmp_path / "effectiveness")
    (keep_study(RUN, tmp_path / "spatial") / OUTCOMES).unlink()
    keep_study(RUN, tmp_path / "case-study")  # its attack alone
    shown = page(tmp_path)
    for name in ("spatial", "case-study"):
        assert "Not finished yet; run it again." in article(shown, name)
        assert "<table>" not in article(shown, name)
    assert "<table>" in article(shown, "effectiveness")


def test_a_study_alone_that_is_not_finished_has_no_verdict_yet(tmp_path: Path) -> None:
    (keep_study(RUN, tmp_path / "effectiveness") / OUTCOMES).unlink()
    shown = page(tmp_path)
    assert "Not finished yet; run it again." in article(shown, "effectiveness")
    assert "gallery" not in sections(shown)


def test_a_study_of_another_version_says_so(tmp_path: Path) -> None:
    older = keep_study(RUN, tmp_path / "random-patch") / OUTCOMES
    write_table(older, RUN.outcomes().drop_columns(["benign_l1", "success_png"]))
    said = article(page(tmp_path), "random-patch")
    assert "has columns other than those this version writes; delete it and run again." in said
    assert "<table>" not in said


@pytest.mark.parametrize("name", ["localisation", "sanity", "aid", "gap", "transfer", "case-study", "evasiveness"])
def test_a_damaged_table_is_said_in_a_sentence(name: str, tmp_path: Path) -> None:
    folder = keep_study(RUN, tmp_path / name)
    for file in STUDIES[name].study.leaves:
        if file != OUTCOMES:
            (folder / file).write_bytes(b"damaged")
    said = article(page(tmp_path), name)
    assert "is missing or damaged; delete it and run the command again." in said
    assert "<table>" not in said


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = keep_study(RUN, tmp_path / "case-study", classes=[HOSTILE_CLASS, "b"])
    table = {"id": [HOSTILE_ID], "class_true": [0], "class_predicted": [1]}
    write_table(folder / case_study.PREDICTIONS, pa.table(table, case_study.PREDICTION_COLUMNS))
    shown = page(tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in article(shown, "case-study")
    assert [tag for tag in Tags(shown).found if "onerror" in tag[1]] == []
    assert "alert(1)" not in "".join(re.findall(r"<script>(.*?)</script>", shown, re.DOTALL))
    assert len(Tags(shown).all("script")) == len(Tags(page(tmp_path / "case-study")).all("script")) == 2


def test_a_run_among_studies_has_a_report_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_study(RUN, tmp_path / "effectiveness")
    keep_study(RUN, tmp_path / "random-class")
    shown = page(tmp_path / "effectiveness")
    assert studies(shown) == ["study-effectiveness"]
    assert not (tmp_path / "report.html").exists()
    monkeypatch.chdir(tmp_path / "effectiveness")
    assert studies(page(Path())) == ["study-effectiveness"]


def test_an_attack_in_a_folder_named_like_a_study_is_none(tmp_path: Path) -> None:
    folder = keep_study(RUN, tmp_path / "case-study", shares_stages=False)
    (tmp_path / "stages").rename(folder / "stages")
    shown = page(folder)
    assert "studies" not in sections(shown)
    assert "gallery" in sections(shown)
    assert done(tmp_path) == {}
    with pytest.raises(UnderfireError, match="contains no run"):
        write_report_of(tmp_path)


def test_what_is_neither_run_nor_studies_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gap").mkdir()
    with pytest.raises(UnderfireError, match=r"contains no run \(no run.json\)"):
        write_report_of(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "gap"]


def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    keep_study(RUN, tmp_path / "effectiveness")
    assert page(tmp_path) == page(tmp_path)
    info = read_json(tmp_path / "effectiveness" / "run.json")
    write_json(tmp_path / "effectiveness" / "run.json", {**info, "model": {"name": "densenet"}})
    assert "Fig. 17." in page(tmp_path)
    assert open_run(tmp_path / "effectiveness").info["model"] == {"name": "densenet"}
