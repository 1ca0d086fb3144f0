"""Which classes are confused for which: what an attack came to for each class, and each pair of class and target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import attack_name, in_order, interpreter_name
from underfire.core.io import groups, rows_where
from underfire.metrics.intervals import wilson
from underfire.metrics.maps import DECEIVING, UNSEEN
from underfire.report.view import class_name

SHOWN = 10  # lines of a table
FEWEST_OF_A_CLASS = 2  # images; with fewer, classes say nothing that images do not


@dataclass(frozen=True)
class ClassCell:
    """What one interpreter showed: how many of the images that fooled the classifier deceived."""

    deceived: int
    seen: int

    @property
    def interval(self) -> str:
        """Of the share; nothing where it is a share of none."""
        if not self.seen:
            return ""
        low, high = wilson(self.deceived, self.seen)
        return f"{100 * low:.0f}–{100 * high:.0f} %"


@dataclass(frozen=True)
class ClassLine:
    """One class, or one pair, and its images under attack."""

    name: str
    n: int
    cells: tuple[ClassCell, ...]

    @property
    def deceived(self) -> int:
        return sum(each.deceived for each in self.cells)


@dataclass(frozen=True)
class ClassTable:
    """One ADV²: classes, those with most images first, and pairs of several images, those that deceive most first."""

    attack: str
    interpreters: tuple[str, ...]
    classes: tuple[ClassLine, ...]
    pairs: tuple[ClassLine, ...]
    more: int  # classes that are not shown


def compose(outcomes: pa.Table, names: Sequence[str]) -> list[ClassTable]:
    """One table per ADV² that evades nothing; none where no class has several images."""
    rows = rows_where(outcomes, map_aware=True, evades=None)
    attacks = in_order(rows["attack"].to_pylist())
    return [table for each in attacks for table in _table(rows_where(rows, attack=each), names)]


def _table(rows: pa.Table, names: Sequence[str]) -> Iterator[ClassTable]:
    interpreters = tuple(dict.fromkeys(rows["interpreter"].to_pylist()))
    classes = [_line(class_name(names, true), its, interpreters) for (true,), its in groups(rows, "class_true")]
    pairs = [
        _line(f"{class_name(names, true)} → {class_name(names, target)}", its, interpreters)
        for (true, target), its in groups(rows, "class_true", "class_target")
    ]
    if max(each.n for each in classes) >= FEWEST_OF_A_CLASS:
        frequent = sorted(classes, key=lambda each: (-each.n, each.name))
        several = [each for each in pairs if each.n >= FEWEST_OF_A_CLASS]
        worst = sorted(several, key=lambda each: (-each.deceived, -each.n, each.name))
        shown = tuple(frequent[:SHOWN]), tuple(worst[:SHOWN])
        titles = tuple(map(interpreter_name, interpreters))
        yield ClassTable(attack_name(rows["attack"][0].as_py()), titles, *shown, more=len(classes[SHOWN:]))


def _line(name: str, rows: pa.Table, interpreters: Sequence[str]) -> ClassLine:
    by_interpreter: Mapping[str, pa.Table] = {each: rows_where(rows, interpreter=each) for each in interpreters}
    return ClassLine(name, len(pc.unique(rows["id"])), tuple(map(_cell, by_interpreter.values())))


def _cell(rows: pa.Table) -> ClassCell:
    seen = rows.filter(pc.and_(rows["success"], pc.not_equal(rows["judgement"], UNSEEN)))
    return ClassCell(pc.sum(pc.is_in(seen["judgement"], pa.array(DECEIVING))).as_py() or 0, seen.num_rows)
