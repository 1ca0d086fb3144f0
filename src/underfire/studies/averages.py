"""The averages of an attack's outcomes as the paper prints and draws them: attacks by interpreters, ours beside its."""

from collections.abc import Mapping
from dataclasses import dataclass

from underfire.attacks.names import attack_name, in_order, interpreter_name
from underfire.metrics.intervals import Estimate
from underfire.runs.folder import Run
from underfire.runs.outcomes import AttackSummary, quoted, summarise
from underfire.studies.figures import Bars, Series
from underfire.studies.paper import Pair
from underfire.studies.tables import Cell, Row, Table, Value

Printed = Mapping[tuple[str, str], Pair]  # the paper's numbers by attack and interpreter


@dataclass(frozen=True)
class Averages:
    """What became of a run's images under each attack, by attack and interpreter in the order of the outcomes."""

    summaries: Mapping[tuple[str, str], AttackSummary]

    @classmethod
    def of(cls, run: Run) -> "Averages":
        """Of the images as a PNG file gives them back: it is files that leave the machine."""
        return cls({(each.attack, each.interpreter): each for each in summarise(quoted(run.outcomes()))})

    @property
    def interpreters(self) -> list[str]:
        return list(dict.fromkeys(interpreter for _, interpreter in self.summaries))

    @property
    def attacks(self) -> list[str]:
        """In the order in which they are shown."""
        return in_order(attack for attack, _ in self.summaries)

    @property
    def basic(self) -> list[str]:
        """The plain attack and ADV2 of each solver, without what knows more of the defender."""
        basic = {attack for (attack, _), each in self.summaries.items() if each.solver and each.evades is None}
        return [each for each in self.attacks if each in basic]

    @property
    def plain(self) -> list[str]:
        """Those of the basic ones whose images are the same for all interpreters."""
        map_aware = {attack for (attack, _), each in self.summaries.items() if each.map_aware}
        return [each for each in self.basic if each not in map_aware]

    @property
    def headings(self) -> tuple[str, ...]:
        """The interpreters as they head columns."""
        return tuple(map(interpreter_name, self.interpreters))

    def mean(self, attack: str, interpreter: str, column: str) -> Estimate | None:
        """Over all images; None where the interpreter did not see the attack, or a version before 0.2 did not look."""
        summary = self.summaries.get((attack, interpreter))
        return None if summary is None else summary.all_images.get(column)


def success_table(means: Averages, name: str, title: str, printed: Printed) -> Table:
    """ASR (MC): attacks by interpreters."""
    rows = []
    for attack in means.attacks:
        cells: list[Cell] = []
        for interpreter in means.interpreters:
            summary = means.summaries.get((attack, interpreter))
            asr, mc = (None, None) if summary is None else (summary.asr, summary.mc)
            paper_asr, paper_mc = printed.get((attack, interpreter), (None, None))
            cells.append((Value("ASR", asr, paper_asr, percent=True), Value("MC", mc, paper_mc)))
        rows.append(Row((attack_name(attack),), tuple(cells)))
    return Table(name, title, ("",), means.headings, tuple(rows))


def distance_table(means: Averages, name: str, title: str, printed: Printed) -> Table:
    """L1 and L2 by interpreter and attack."""
    rows = []
    for interpreter in means.interpreters:
        for attack in means.attacks:
            l1, l2 = (means.mean(attack, interpreter, column) for column in ("map_l1", "map_l2"))
            paper_l1, paper_l2 = printed.get((attack, interpreter), (None, None))
            names = interpreter_name(interpreter), attack_name(attack)
            rows.append(Row(names, ((Value("ΔL1", l1, paper_l1),), (Value("ΔL2", l2, paper_l2),))))
    return Table(name, title, ("Interpreter", "Attack"), ("ΔL1", "ΔL2"), tuple(rows))


def iou_table(means: Averages, name: str, title: str) -> Table:
    """IoU and the share of plausible maps: attacks by interpreters."""
    rows = []
    for attack in means.attacks:
        cells: list[Cell] = []
        for interpreter in means.interpreters:
            iou, plausible = (means.mean(attack, interpreter, column) for column in ("iou_mean", "plausible"))
            cells.append((Value("IoU", iou), Value("plausible", plausible, percent=True)))
        rows.append(Row((attack_name(attack),), tuple(cells)))
    note = "In brackets the share of plausible or unchanged maps, where there is anything to see."
    return Table(name, title, ("",), means.headings, tuple(rows), note)


def distance_bars(means: Averages, printed: Printed) -> Bars:
    """L1 of the plain attacks and ADV2, the paper's beside it."""
    return "ΔL1", _series(means, "map_l1", {pair: l1 for pair, (l1, _) in printed.items()})


def iou_bars(means: Averages) -> Bars:
    """IoU of the plain attacks and ADV2."""
    return "IoU", _series(means, "iou_mean", {})


def _series(means: Averages, column: str, printed: Mapping[tuple[str, str], float]) -> list[Series]:
    return [
        Series(
            attack_name(attack),
            [means.mean(attack, name, column) for name in means.interpreters],
            [printed.get((attack, name)) for name in means.interpreters],
        )
        for attack in means.basic
    ]
