"""The parts of the report that studies add: their numbers are the tables', and damage is said in a sentence."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tiny_report import (
    FakeRun,
    Tags,
    benign_rows,
    detection_rows,
    drawn_from,
    gap_row,
    render,
    transfer_row,
    write_detections,
    write_rows,
)
from underfire.core.io import write_json
from underfire.core.plots import curves
from underfire.detection.calibration import roc
from underfire.report import write_report
from underfire.report.sections import detection
from underfire.studies import detections as detecting
from underfire.studies import gap, transfers
from underfire.studies.detections import DETECTORS

pytestmark = pytest.mark.usefixtures("no_plots")

HOSTILE = '"><script>alert(1)</script>$x^{'
EVADING = "adv2-evading-fs:median:3"


@pytest.fixture
def run(tmp_path: Path) -> FakeRun:
    return FakeRun(("a.jpg", "b.jpg"), path=tmp_path)


def text_of(page: str, section: str) -> str:
    """What one section says."""
    found = page[page.index(f'<section id="{section}"') :].partition("</section>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", found)).split()).replace("\xa0", " ")


def everything() -> list[dict[str, Any]]:
    """Two squeezers and their maximum, and a pair of interpreters; median 3×3 sees ADV² but not what evades it."""
    rows = []
    seen = {"fs:bits:2": (0.5, 0.2), "fs:median:3": (2.0, 0.2), "fs": (1.5, 1.5), "ensemble:cam+grad": (0.2, 3.0)}
    for detector, (basic, evading) in seen.items():
        rows += benign_rows(detector)
        rows += detection_rows(detector, "pgd", scores=[1.2, 0.3], failed=[5.0])
        for interpreter in ("cam", "grad"):
            rows += detection_rows(detector, "adv2", interpreter, scores=[basic, basic, basic, 0.1])
            rows += detection_rows(detector, EVADING, interpreter, scores=[evading, 0.0])
        rows += detection_rows(detector, "adv2-ensemble", scores=[0.9, 1.1], failed=[0.0])
    return rows


# ------------------------------------------------------------------ detection


def test_the_matrix_holds_the_numbers_of_the_table(run: FakeRun, tmp_path: Path) -> None:
    table = write_detections(tmp_path, everything())
    page = render(run, tmp_path)
    lines = re.findall(r'<tr>\s*<th scope="row">(.*?)</tr>', page[page.index('class="matrix"') :], re.S)[:4]
    numbers = [[int(each) for each in re.findall(r"<b>(\d+) %</b>", line)] for line in lines]
    areas = [[float(each) for each in re.findall(r"AUC ([\d.]+)", line)] for line in lines]
    attackers = [("pgd", None), *((a, i) for a in ("adv2", EVADING) for i in ("cam", "grad")), ("adv2-ensemble", None)]
    by_place = {(each.calibration.detector, each.attack, each.interpreter): each for each in detecting.matrix(table)}
    for each, rates, auc in zip(detecting.calibrations(table), numbers, areas, strict=True):
        found = [by_place[each.detector, attack, made] for attack, made in attackers]
        assert rates == [10, 10, *(round(100 * cell.successes.value) for cell in found)]
        assert auc == pytest.approx([cell.auc for cell in found], abs=0.0051)
    assert numbers[1] == [10, 10, 50, 75, 75, 0, 0, 50]
    text = text_of(page, "detection")
    assert "Every threshold was set on 10 benign images that are classified correctly and were not attacked" in text
    assert "for 5 % false alarms among such" in text
    assert "None of the held-out images is misclassified" in text
    for title in ("benign, as they come n = 10", "classified correctly n = 10", "misclassified n = 0",
                  "Feature squeezing 2 bits", "Ensemble disagreement CAM and GRAD", "PGD n = 2",
                  "ADV² evading median 3×3 for GRAD n = 2", "ADV² on the ensemble n = 2"):  # fmt: skip
        assert title in text


def test_false_alarms_are_told_apart_by_whether_the_classifier_is_right(run: FakeRun, tmp_path: Path) -> None:
    rows = benign_rows("fs") + detection_rows("fs", part="check", failed=[2.0, 2.0, 0.5, 0.5, 0.5])
    write_detections(tmp_path, rows + detection_rows("fs", "pgd", scores=[1.2]))
    found = detection.compose(tmp_path / detecting.TABLE)
    ((_, (line,)),) = found.families
    assert found.checked == (("benign, as they come", 15), ("classified correctly", 10), ("misclassified", 5))
    assert [each.value for each in line.benign] == ["20 %", "10 %", "40 %"]
    assert line.benign[2].interval == "12–77"
    assert "Misclassified images held out are few, 5: their rate is rough." in text_of(
        render(run, tmp_path), "detection"
    )


def test_the_verdict_says_what_the_best_detectors_make_of_it(run: FakeRun, tmp_path: Path) -> None:
    write_detections(tmp_path, everything())
    found = detection.compose(tmp_path / detecting.TABLE)
    assert set(found.noticed) == {"cam", "grad"}
    squeezing, disagreement = found.noticed["cam"]
    assert squeezing == (
        "At 5 % false alarms, feature squeezing (median 3×3) would have flagged 75 % of the 4 successful ADV² images "
        "made for CAM, as the best of its kind; of those of ADV² evading median 3×3, the hardest of 2 adaptive "
        "attacks, it would have flagged 0 %."
    )
    assert disagreement.startswith("At 5 % false alarms, ensemble disagreement (CAM and GRAD) would have flagged 0 %")
    assert "best of its kind" not in disagreement
    page = render(run, tmp_path)
    verdict = page[page.index('<article class="verdict">') :].partition("</article>")[0]
    assert squeezing in verdict


def test_attacks_that_never_succeeded_are_left_blank(run: FakeRun, tmp_path: Path) -> None:
    rows = benign_rows("fs") + detection_rows("fs", "adv2", "cam", failed=[0.5, 3.0])
    rows += detection_rows("fs", "adv2", "grad", scores=[3.0])
    write_detections(tmp_path, rows)
    found = detection.compose(tmp_path / detecting.TABLE)
    ((_, (line,)),) = found.families
    assert [cell.value for cell in line.rates] == ["–", "100 %"]
    assert found.columns == (("ADV²", "CAM", 0), ("ADV²", "GRAD", 1))
    assert found.noticed == {
        "grad": ("At 5 % false alarms, feature squeezing would have flagged 100 % of the 1 successful ADV² image made "
                 "for GRAD.",)
    }  # fmt: skip
    assert "for CAM <small>n = 0" in " ".join(render(run, tmp_path).split()).replace("</small> ", " ")


def test_curves_are_those_of_the_combined_detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def draw(points: Any, *rest: Any) -> bytes:
        drawn.append((points, rest[0]))
        return curves(points, *rest)

    monkeypatch.setattr(detection, "curves", draw)
    write_detections(tmp_path, everything())
    found = detection.compose(tmp_path / detecting.TABLE)
    assert [title for title, _ in found.curves] == ["Feature squeezing", "Ensemble disagreement (CAM and GRAD)"]
    (points, mark), _ = drawn
    assert mark == 0.05
    assert set(points) == {
        ("PGD", ""), ("ADV²", "for CAM"), ("ADV²", "for GRAD"), ("ADV² evading median 3×3", "for CAM"),
        ("ADV² evading median 3×3", "for GRAD"), ("ADV² on the ensemble", ""),
    }  # fmt: skip
    held_out = torch.tensor([0.1 * number for number in range(1, 10)] + [2.0])
    expected = roc(held_out.double(), torch.tensor([1.5, 1.5, 1.5, 0.1]).double())
    for seen, wanted in zip(points["ADV²", "for CAM"], (expected.fpr, expected.tpr), strict=True):
        np.testing.assert_allclose(seen, wanted.numpy())


def test_hostile_names_of_detectors_and_attackers_stay_text(run: FakeRun, tmp_path: Path) -> None:
    rows = benign_rows(HOSTILE) + detection_rows(HOSTILE, HOSTILE, HOSTILE, scores=[3.0])
    rows += detection_rows(HOSTILE, "adv2", "cam", scores=[3.0]) + benign_rows("fs:" + HOSTILE)
    write_detections(tmp_path, rows, target=HOSTILE)
    for name, schema, row in (
        (transfers.TABLE, transfers.SCHEMA, transfer_row(HOSTILE, HOSTILE, 0.1, attack=HOSTILE, model=HOSTILE)),
        (gap.TABLE, gap.SCHEMA, gap_row(HOSTILE, HOSTILE, 0.1, 0.2)),
    ):
        write_rows(tmp_path / name, [row], schema)
    page = render(run, tmp_path)
    assert "<script>alert" not in page
    assert len(Tags(page).all("script")) == 2
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "does not say for which rate" in text_of(page, "detection")


# ------------------------------------------------------------------ transfer


def test_transfer_counts_the_sources_that_deceive_their_own_interpreter_best(run: FakeRun, tmp_path: Path) -> None:
    rows = [
        transfer_row("cam", "cam", 0.05), transfer_row("cam", "grad", 0.2), transfer_row("cam", "rts", 0.3),
        transfer_row("grad", "cam", 0.01), transfer_row("grad", "grad", 0.05), transfer_row("grad", "rts", 0.3),
        transfer_row(None, "cam", 0.4), transfer_row(None, "grad", 0.4),
        transfer_row("cam", "cam", 0.3, model="other", model_fingerprint="f1", own=False),
    ]  # fmt: skip
    write_rows(tmp_path / transfers.TABLE, rows, transfers.SCHEMA)
    page = render(run, tmp_path)
    text = text_of(page, "transfer")
    assert (
        "For 1 of 2 sources the map of the interpreter that was attacked is nearer to the benign one than that of "
        "every other; not so for ADV² for GRAD."
    ) in text
    pictures = [each for each in Tags(page).all("img") if (each["alt"] or "").startswith("Heat-map")]
    assert [(each["alt"] or "").rpartition(" ")[2] for each in pictures] == ["tiny", "other"]


def test_transfer_to_another_classifier_compares_with_the_own_distance(tmp_path: Path) -> None:
    rows = [transfer_row("cam", "cam", 0.3, own=0.05) | {"own": False}]
    assert "For 1 of 1 sources" in _transferred(tmp_path, rows)
    rows = [transfer_row("cam", "cam", 0.05), transfer_row(None, "cam", 0.4)]
    assert "nothing is compared" in _transferred(tmp_path, rows)


def _transferred(folder: Path, rows: list[dict[str, Any]]) -> str:
    write_rows(folder / transfers.TABLE, rows, transfers.SCHEMA)
    return text_of(render(FakeRun(("a.jpg",), path=folder), folder), "transfer")


# ------------------------------------------------------------------ gap


def test_the_gap_shows_the_losses_their_error_and_the_maps_of_ig(run: FakeRun, tmp_path: Path) -> None:
    rows = [gap_row("benign", None, 0, 0), gap_row("noise", None, 0.01, 0.2), gap_row("pgd", None, 0.5, 1.4)]
    rows += [gap_row("adv2", "cam", 0.9 + 0.01 * i, 1.0) for i in range(8)]
    rows[2]["ig_iou"] = None
    write_rows(tmp_path / gap.TABLE, rows, gap.SCHEMA)
    text = text_of(render(run, tmp_path), "gap")
    assert "benign 0.000 0.000 0.000 – – 0.125 0.625" in text
    assert "PGD 0.500 1.400 0.900 0.2 % 0.2 % 0.125 –" in text
    assert "ADV² for CAM 0.935 [0.9" in text
    assert "0.065 [0.0" in text
    assert "bound holds" not in text


# ------------------------------------------------------------------ what is not there, and what is damaged

ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "detection": everything,
    "transfer": lambda: [transfer_row("cam", "cam", 0.05), transfer_row("cam", "grad", 0.1)],
    "gap": lambda: [gap_row("pgd", None, 0.5, 0.9)],
}
FILES = {
    "detection": (detecting.TABLE, detecting.COLUMNS),
    "transfer": (transfers.TABLE, transfers.SCHEMA),
    "gap": (gap.TABLE, gap.SCHEMA),
}


def test_a_run_without_studies_has_no_such_sections(run: FakeRun, tmp_path: Path) -> None:
    page = render(run, tmp_path)
    assert [section for section in FILES if f'id="{section}"' in page] == []


@pytest.mark.parametrize("section", FILES)
@pytest.mark.parametrize("damage", ["bytes", "columns", "rows", "values", "unit"])
def test_a_damaged_file_is_said_in_a_sentence(section: str, damage: str, run: FakeRun, tmp_path: Path) -> None:
    name, schema = FILES[section]
    rows, path = ROWS[section](), tmp_path / name
    number = next(field.name for field in schema if field.type == pa.float64())
    if damage == "bytes":
        path.write_bytes(b"PAR1 and then nothing")
    elif damage == "columns":
        write_rows(path, rows, schema.remove(0))
    elif damage == "rows":
        write_rows(path, [], schema)
    elif damage == "values":
        write_rows(path, [*rows, {**rows[0], number: None}], schema)
    else:
        texts = schema.set(schema.get_field_index(number), pa.field(number, pa.string()))
        write_rows(path, [{**row, number: "much"} for row in rows], texts)
    page = render(run, tmp_path)
    notice = text_of(page, section)
    assert name in notice
    assert notice.endswith((".", "again"))
    assert "<table" not in page[page.index(f'id="{section}"') :].partition("</section>")[0]
    assert len(drawn_from(page)["cards"]) == 2


def test_detections_that_cannot_be_compared_are_said(run: FakeRun, tmp_path: Path) -> None:
    attacked = detection_rows("fs", "adv2", "cam", scores=[3.0])
    for rows, said in (
        (attacked, "lacks held-out benign images of fs"),
        (benign_rows("fs") + detection_rows("fs", "adv2", "cam", scores=[float("nan")]), "scores are NaN"),
    ):
        write_detections(tmp_path, rows)
        assert said in text_of(render(run, tmp_path), "detection")


def test_a_detector_that_missed_an_attacker_leaves_the_cell_blank(run: FakeRun, tmp_path: Path) -> None:
    write_detections(tmp_path, everything() + benign_rows("consistency:cam"))
    found = detection.compose(tmp_path / detecting.TABLE)
    (line,) = dict(found.families)["Self-consistency"]
    assert {cell.value for cell in line.rates} == {"–"}
    assert len(found.curves) == 2
    render(run, tmp_path)


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"spec": 3}', b'{"spec": {"fpr": "much"}}',
                                     b'{"spec": {"fpr": NaN}}', b'{"spec": {"fpr": 5}}'])  # fmt: skip
def test_detections_without_their_settings_are_shown_without_the_rate(
    content: bytes | None, run: FakeRun, tmp_path: Path
) -> None:
    write_detections(tmp_path, everything())
    settings = tmp_path / DETECTORS
    settings.unlink() if content is None else settings.write_bytes(content)
    page = render(run, tmp_path)
    assert "detectors.json" in text_of(page, "detection")
    assert "At the calibrated threshold, feature squeezing (median 3×3) would have flagged 75 %" in page


def test_the_rate_that_was_calibrated_for_is_the_one_that_is_said(run: FakeRun, tmp_path: Path) -> None:
    write_detections(tmp_path, everything())
    write_json(tmp_path / DETECTORS, {"spec": {"fpr": 0.025}})
    page = render(run, tmp_path)
    assert "for 2.5 % false alarms" in text_of(page, "detection")
    assert "At 2.5 % false alarms" in page


def test_tables_may_lie_outside_the_run(run: FakeRun, tmp_path: Path) -> None:
    """Those that are named are read there, others where they always are."""
    write_detections(tmp_path, everything())
    (tmp_path / "study").mkdir()
    away = tmp_path / "study" / gap.TABLE
    write_rows(away, [gap_row("adv2", "cam", 0.5, 0.9)], gap.SCHEMA)
    page = write_report(run, tmp_path / "report.html", {gap.TABLE: away}).read_text(encoding="utf-8")
    assert "ADV² for CAM 0.500 0.900 0.400" in text_of(page, "gap")
    assert "median 3×3" in text_of(page, "detection")
    assert 'id="gap"' not in render(run, tmp_path)
