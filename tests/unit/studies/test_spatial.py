"""What bending does: the paper prints no numbers."""

from printed import by_name, held_run, names_of
from underfire.studies import spatial


def test_bending_has_no_anchors() -> None:
    found = by_name(spatial.tables(held_run("stadv", "adv2-stadv")))
    assert names_of(found["stadv-asr"]) == [("StAdv",), ("ADV² on StAdv",)]
    assert not any(table.has_anchors for table in found.values())
