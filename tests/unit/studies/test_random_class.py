"""Table 8 and the numbers of Fig. 13: rows, columns and the paper's numbers."""

from printed import by_name, held_run, names_of, numbers, printed
from underfire.studies import random_class


def test_table_8_and_the_bars_beside_it() -> None:
    found = by_name(random_class.tables(held_run("pgd", "adv2")))
    assert found["table-8"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert printed(found["table-8"])[1] == numbers("1 .99 1 .99 1 .99 1 1")
    assert names_of(found["figure-13"]) == [("ΔL1, benign",), ("ΔL1, target",), ("IoU, benign",), ("IoU, target",)]
    near = [cell[0].ours for cell in found["figure-13"].rows[0].cells]  # the maps in memory are the benign ones
    assert [each.value for each in near if each] == [0.0] * 4
