"""The section of an audit: its first screen, and what becomes of a record that cannot be read."""

from pathlib import Path
from typing import Any

import pytest

from underfire.core.errors import UnderfireError
from underfire.report.sections.audit import compose, lead
from underfire.studies.audit_summary import markdown, verdict
from underfire.studies.audits import AUDIT, Audit

SHARE = {"value": 0.25, "low": 0.1, "high": 0.5, "n": 8}


def record(**changes: Any) -> Audit:
    """Of two interpreters; the second resists more."""
    first: dict[str, Any] = {
        "interpreter": "cam",
        "definition": "natural",
        "robust": SHARE,
        "robust_by": {"natural": SHARE, "overlap": {**SHARE, "value": 0.0}},
        "plain_robust": {**SHARE, "value": 0.0},
        "plausible_under_pgd": SHARE,
        "members": [
            {"attack": name, "title": name, "attacked": 8, "fooled": 8, "betrayed": {"natural": k, "overlap": 8}}
            for name, k in (("pgd", 0), ("adv2", 6))
        ],
        "lasting": [{"form": form, "success": SHARE, "betrayed": SHARE} for form in ("png", "jpeg95", "jpeg75")],
        "curve": {
            "attack": "adv2",
            "points": [{"eps": eps / 255, "betrayed": {**SHARE, "value": eps / 16}} for eps in (4, 8, 16)],
            "median": 8 / 255,
            "median_low": 4 / 255,
            "median_high": None,
        },
        "distances": [{"what": "PGD", "quartiles": (0.1, 0.2, 0.3)}],
        "flags": [
            {"name": "few images", "raised": True, "number": 8, "limit": 100, "sentence": "Judged on <8> images."},
            {"name": "8 bits", "raised": False, "number": 0, "limit": 0, "sentence": "0 images."},
        ],
        "betrayed": {"a.png": "adv2"},
    }
    second = {**first, "interpreter": "grad", "robust": {**SHARE, "value": 0.5}}
    given: dict[str, Any] = {
        "underfire": "0",
        "command": "underfire audit",
        "model": {"name": "tiny", "fingerprint": "f", "accuracy": SHARE},
        "images": "photos",
        "n": 8,
        "eps": 8 / 255,
        "suite": "quick",
        "seed": 0,
        "detector": None,
        "interpreters": [first, second],
    }
    return Audit.model_validate({**given, **changes})


def test_the_first_screen_says_what_the_worst_interpreter_comes_to(tmp_path: Path) -> None:
    (tmp_path / AUDIT).write_text(record().model_dump_json())
    found = lead(tmp_path, "a.png")
    assert found is not None
    assert found.sentence == (
        "Within ε = 8/255 an attacker deceives classifier and CAM at once on 75 % of 8 images: joint robust accuracy "
        "25 % [10, 50]."
    )
    assert found.number is not None
    assert found.number.value == "25 %"
    assert [row.interpreter for row in found.rows] == ["cam", "grad"]
    assert [cell.value if cell else None for cell in found.rows[0].cells] == ["0 %", "75 %"]


def test_a_detector_is_one_more_to_be_deceived() -> None:
    detector = {"name": "fs", "threshold": 1.0, "fpr": 0.05}
    assert "deceives classifier, CAM and fs at once" in verdict(record(detector=detector))


def test_raised_flags_stand_before_silent_ones(tmp_path: Path) -> None:
    (tmp_path / AUDIT).write_text(record().model_dump_json())
    (table, _) = compose(tmp_path / AUDIT).tables
    assert table.raised == (("few images", "Judged on <8> images."),)
    assert table.silent == (("8 bits", "0 images."),)


def test_the_summary_has_a_row_for_each_interpreter_and_a_line_for_each_flag() -> None:
    page = markdown(record())
    assert page.count("\n| CAM |") == page.count("\n| GRAD |") == 1
    assert page.count("* CAM, few images") == 1
    assert "8 bits" not in page


def test_what_cannot_be_read_leads_nothing(tmp_path: Path) -> None:
    assert lead(tmp_path, None) is None
    (tmp_path / AUDIT).write_text('{"version": 2}')
    assert lead(tmp_path, None) is None
    with pytest.raises(UnderfireError, match="not an audit of this version"):
        compose(tmp_path / AUDIT)
