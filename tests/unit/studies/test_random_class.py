"""Table 8 and the numbers of Fig. 13: rows, columns and the paper's numbers."""

from printed import by_name, held_run, names_of, numbers, printed
from underfire.studies import random_class


def test_table_8_and_the_bars_beside_it() -> None:
    found = by_name(random_class.tables(held_run("pgd", "adv2")))
    assert found["table-8"].columns == ("GRAD", "CAM", "MASK", "RTS")
    assert printed(found["table-8"])[1] == numbers("1 .99 1 .99 1 .99 1 1")
    assert names_of(found["figure-13"]) == [("ΔL1, benign",), ("ΔL1, target",), ("IoU, benign",), ("IoU, target",)]
    numbers_of_rows = [[cell[0].ours for cell in row.cells] for row in found["figure-13"].rows]
    means = [[round(each.value, 6) for each in row if each] for row in numbers_of_rows]
    assert means == [[0.05] * 4, [0.05] * 4, [0.9] * 4, [0.92] * 4], "as in the outcomes"
