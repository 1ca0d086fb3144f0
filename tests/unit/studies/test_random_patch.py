"""Tables 6 and 7: rows, columns and the paper's numbers."""

from printed import by_name, held_run, names_of, numbers, printed
from underfire.studies import random_patch


def test_tables_6_and_7() -> None:
    found = by_name(random_patch.tables(held_run("adv2")))
    assert found["table-6"].columns == found["table-7"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert names_of(found["table-6"]) == [("ADV²",)]
    assert printed(found["table-6"]) == [numbers("1 .98 1 1 .99 .95 1 1")]
    assert names_of(found["table-7"]) == [("ΔbL1",), ("ΔtL1",)]
    assert printed(found["table-7"]) == [numbers(".16 .50 .42 .49"), numbers(".10 .04 .15 .07")]
