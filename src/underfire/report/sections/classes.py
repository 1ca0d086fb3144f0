"""Which classes are confused for which: what attacks came to for each class, and for pairs of true and target class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import attack_name, interpreter_name
from underfire.core.io import groups, rows_where
from underfire.core.text import percent
from underfire.metrics.intervals import wilson
from underfire.metrics.maps import DECEIVING, UNSEEN
from underfire.report.view import class_name

SHOWN = 12  # lines of a table

FEWEST_OF_A_CLASS = 2  # images; with fewer, classes say nothing that images do not


@dataclass(frozen=True)
class ClassLine:
    """One class, or one pair: images attacked, and of those that fooled the classifier the share that deceived."""

    name: str
    n: int
    deceived: int
    seen: int
    share: float

    @property
    def interval(self) -> str:
        low, high = wilson(self.deceived, self.seen)
        return f"{100 * low:.0f}–{100 * high:.0f}"

    @property
    def value(self) -> str:
        return percent(self.share)


@dataclass(frozen=True)
class ClassTable:
    """One interpreter under ADV²: classes, those with most images first, and pairs, those deceived most often first."""

    interpreter: str
    attack: str
    classes: tuple[ClassLine, ...]
    pairs: tuple[ClassLine, ...]
    more: int  # classes that are not shown


def compose(outcomes: pa.Table, names: Sequence[str]) -> list[ClassTable]:
    """One table per interpreter and ADV² that evades nothing; none where no class has several images."""
    rows = rows_where(outcomes, map_aware=True, evades=None)
    return [each for _, its in groups(rows, "interpreter", "attack") for each in _table(its, names)]


def _table(rows: pa.Table, names: Sequence[str]) -> Iterator[ClassTable]:
    interpreter, attack = rows["interpreter"][0].as_py(), rows["attack"][0].as_py()
    classes = [_line(class_name(names, true), its) for (true,), its in groups(rows, "class_true")]
    if max(each.n for each in classes) < FEWEST_OF_A_CLASS:
        return
    pairs = [
        _line(f"{class_name(names, true)} → {class_name(names, target)}", its)
        for (true, target), its in groups(rows, "class_true", "class_target")
    ]
    frequent = sorted(classes, key=lambda each: (-each.n, each.name))
    worst = sorted(pairs, key=lambda each: (-each.deceived, -each.share, each.name))
    yield ClassTable(
        interpreter=interpreter_name(interpreter),
        attack=attack_name(attack),
        classes=tuple(frequent[:SHOWN]),
        pairs=tuple(each for each in worst[:SHOWN] if each.deceived),
        more=max(0, len(classes) - SHOWN),
    )


def _line(name: str, rows: pa.Table) -> ClassLine:
    seen = rows.filter(pc.and_(rows["success"], pc.not_equal(rows["judgement"], UNSEEN)))
    deceived = pc.sum(pc.is_in(seen["judgement"], pa.array(DECEIVING))).as_py() or 0
    return ClassLine(name, rows.num_rows, deceived, seen.num_rows, deceived / seen.num_rows if seen.num_rows else 0.0)
