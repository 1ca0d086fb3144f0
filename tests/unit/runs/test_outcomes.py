"""Averages over the outcomes of a run, and how its maps are judged."""

import math
from pathlib import Path

import pyarrow as pa
import pytest

from underfire.attacks.names import SOLVERS
from underfire.metrics.intervals import wilson
from underfire.metrics.maps import DISTANCES
from underfire.runs.outcomes import ON_FILE, completed, outcomes_schema, quoted, summarise


def outcomes() -> pa.Table:
    """Two images under PGD and ADV2 measured by CAM, one under PGD by GRAD; PGD fails on the second image."""
    return pa.table(
        {
            "interpreter": ["cam", "cam", "cam", "cam", "grad"],
            "attack": ["pgd", "adv2", "pgd", "adv2", "pgd"],
            "success": [True, True, False, True, False],
            "confidence": [0.9, 0.8, 0.3, 1.0, 0.1],
            "linf": [0.01, 0.02, 0.03, 0.04, 0.05],
            "success_png": [False, True, False, True, False],
            "repeat_l1": [0.01, 0.01, 0.02, 0.02, 0.0],
            "benign_l1": [0.3, 0.2, 0.1, 0.2, 0.4],
            "map_l1": [0.4, 0.1, 0.2, 0.3, 0.5],
            "map_l2": [0.5, 0.2, 0.3, 0.4, 0.6],
            "iou_mean": [0.5, 0.9, 0.7, 0.8, 0.1],
            "iou_half": [0.1, 0.2, 0.3, 0.4, 0.5],
            "iou_top15": [0.5, 0.4, 0.3, 0.2, 0.1],
            "target_constant": [False] * 5,
        }
    )


def test_summary_groups_by_interpreter_and_attack_in_order_of_appearance() -> None:
    assert [(s.interpreter, s.attack, s.asr.n) for s in summarise(outcomes())] == [
        ("cam", "pgd", 2),
        ("cam", "adv2", 2),
        ("grad", "pgd", 1),
    ]


def test_summary_averages_all_images_and_successes_apart() -> None:
    pgd, adv2, failed = summarise(outcomes())
    assert (pgd.asr.value, adv2.asr.value, failed.asr.value) == (0.5, 1.0, 0.0)
    assert (pgd.mc.value, pgd.mc.n) == (0.9, 1), "confidence counts successes only"
    assert adv2.mc.value == pytest.approx(0.9)
    assert (failed.mc.n, failed.successes["map_l1"].n, failed.all_images["map_l1"].value) == (0, 0, 0.5)
    assert (
        set(pgd.all_images)
        == set(pgd.successes)
        == {*DISTANCES, "benign_l1", "repeat_l1", "linf", "plausible", "unseen", "success_png"}
    )
    for name in (*DISTANCES, "benign_l1", "repeat_l1", "linf", "success_png"):
        column = outcomes()[name].to_pylist()
        assert pgd.all_images[name].value == pytest.approx((column[0] + column[2]) / 2)
        assert pgd.successes[name].value == column[0]


def test_flows_are_averaged_where_images_were_bent() -> None:
    """A run of another solver has the columns without values; an older run has none."""
    lengths = pa.array([0.5, None, 0.1, None, None], pa.float64())
    bent, *others = summarise(outcomes().append_column("flow_mean", lengths).append_column("flow_smoothness", lengths))
    assert bent.all_images["flow_mean"].value == pytest.approx(0.3)
    assert bent.successes["flow_smoothness"].value == 0.5
    assert not any(name in each.all_images for each in others for name in SOLVERS["stadv"].columns)


def test_maps_of_older_tables_are_judged_anew() -> None:
    """IoU one half is not above it, one of .7 is."""
    pgd, adv2, _ = summarise(outcomes())
    assert (pgd.all_images["plausible"].value, adv2.all_images["plausible"].value) == (0.5, 1.0)


def test_facts_of_attacks_in_older_tables_are_those_of_their_names() -> None:
    names = ["pgd", "adv2-stadv", "adv2-evading-fs:median:3", "adv2-ensemble", "deepfool"]
    table = outcomes().set_column(outcomes().column_names.index("attack"), "attack", pa.array(names))
    facts = completed(table).select(["solver", "map_aware", "evades"]).to_pylist()
    assert [tuple(each.values()) for each in facts] == [
        ("pgd", False, None),
        ("stadv", True, None),
        ("pgd", True, "fs:median:3"),
        ("pgd", True, "ensemble"),
        (None, None, None),
    ]
    assert completed(completed(table)).equals(completed(table))


def test_shares_have_wilsons_interval() -> None:
    """Where all agree it is no point."""
    _, adv2, _ = summarise(outcomes())
    for each in (adv2.asr, adv2.all_images["success_png"], adv2.all_images["plausible"]):
        assert (each.value, each.low, each.high) == (1, *wilson(2, 2))


def test_an_attack_that_never_succeeds_has_no_plausible_map() -> None:
    """Whatever the maps of its images look like."""
    *_, failed = summarise(outcomes())
    assert failed.asr.value == 0
    assert failed.successes["plausible"].n == 0
    assert math.isnan(failed.successes["plausible"].value)


def test_where_there_is_nothing_to_see_no_map_is_plausible() -> None:
    judgements = pa.array(["nothing to see", "plausible", "changed", "unchanged", "changed"])
    pgd, adv2, _ = summarise(outcomes().append_column("judgement", judgements))
    assert (pgd.all_images["plausible"].n, pgd.all_images["plausible"].value) == (1, 0)
    assert pgd.all_images["unseen"].value == 0.5
    assert (pgd.successes["plausible"].n, pgd.successes["unseen"].value) == (0, 1)
    assert (adv2.all_images["plausible"].n, adv2.all_images["plausible"].value) == (2, 1)


def test_overlaps_that_are_not_there_are_left_out() -> None:
    place = outcomes().column_names.index("iou_half")
    pgd, adv2, _ = summarise(outcomes().set_column(place, "iou_half", pa.array([None, 0.2, 0.3, None, 0.5])))
    assert (pgd.all_images["iou_half"].value, pgd.all_images["iou_half"].n) == (0.3, 1)
    assert adv2.all_images["iou_half"].value == 0.2


def test_tables_quote_what_a_png_file_holds_and_keep_the_floats_beside() -> None:
    """The first map stays plausible no longer once its image is rounded, and one attack fails."""
    table = outcomes().append_column("benign_iou", outcomes()["iou_mean"]).drop_columns(["success_png"])
    table = table.append_column("natural_l1", pa.array([0.25] * 5)).append_column(
        "within_natural", pa.array([True] * 5)
    )
    for name in ON_FILE:
        table = table.append_column(f"{name}_png", table[name])
    changes = {
        "iou_mean_png": [0.4] * 5,
        "success_png": [False, *[True] * 4],
        "benign_l1_png": [0.3, 0.2, 0.1, 0.2, 0.4],
    }
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    found = quoted(table)
    for name in ON_FILE:
        assert found[name].equals(table[f"{name}_png"])
        assert found[f"{name}_float"].equals(table[name])
    assert found["within_natural"].to_pylist() == [False, True, True, True, False]
    assert found["judgement"].to_pylist() == ["changed"] * 5
    assert [each.asr.value for each in summarise(found)] == [0.5, 1, 1]
    assert summarise(found)[0].all_images["success_float"].value == 0.5


def test_older_tables_are_quoted_as_they_are() -> None:
    assert quoted(outcomes()).equals(completed(outcomes()))


def test_the_page_of_run_folders_lists_every_column() -> None:
    page = Path(__file__).parents[3] / "docs" / "run-folder.md"
    section = page.read_text(encoding="utf-8").partition("## outcomes.parquet")[2].partition("\n## ")[0]
    lines = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    listed = [name.strip() for names in lines[1:] for name in names.split(",")]
    assert sorted(listed) == sorted(outcomes_schema().names)
