"""Would a detector have noticed? Sentences for the verdict, the matrix of detectors and attackers, and ROC curves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch

from underfire.attacks.names import (
    SOLVERS,
    attack_name,
    attacker,
    detector_name,
    detector_part,
    family_name,
    in_order,
    interpreter_name,
)
from underfire.core.errors import UnderfireError
from underfire.core.io import read_json, rows_where
from underfire.core.plots import curves
from underfire.core.text import capital, percent
from underfire.detection.calibration import roc
from underfire.metrics.intervals import Estimate
from underfire.report.figures import Plot, embedded
from underfire.report.sections.part import complete_table
from underfire.studies.detections import (
    CHECK,
    COLUMNS,
    DETECTORS,
    Calibration,
    DetectionRate,
    FalsePositives,
    matrix,
)
from underfire.studies.detections import calibrations as calibrations_of

Attacks = tuple[str, str | None]  # an attack and the interpreter that it was made for, if any


@dataclass(frozen=True)
class Rate:
    """A rate of flagged images as it is printed; `rate` is None where there is no image."""

    rate: float | None
    value: str
    interval: str
    auc: str = ""


NOTHING = Rate(None, "–", "")
BENIGN = ("benign, as they come", "classified correctly", "misclassified")


@dataclass(frozen=True)
class Line:
    """One detector: its false alarms, and what it makes of every attacker."""

    detector: str
    threshold: float
    benign: tuple[Rate, ...]  # as they come, classified correctly, misclassified
    rates: tuple[Rate, ...]


@dataclass(frozen=True)
class Detection:
    """All that the section shows; `target` is the false-positive rate that was calibrated for, None if unknown."""

    target: float | None
    fitted: int
    checked: tuple[tuple[str, int], ...]  # kind of benign images, and number of them
    caution: str
    columns: tuple[tuple[str, str, int], ...]  # attack, interpreter or "", number of successful images
    families: tuple[tuple[str, tuple[Line, ...]], ...]
    curves: tuple[tuple[str, Plot], ...]  # title and plot
    noticed: Mapping[str, tuple[str, ...]]  # sentences by interpreter
    problem: str = ""


def compose(path: Path) -> Detection:
    """What a table of detections says; UnderfireError if it is damaged or not finished."""
    table = complete_table(path, COLUMNS, optional=("interpreter", "success", "correct"))
    for name in dict.fromkeys(table["detector"].to_pylist()):
        if not rows_where(table, detector=name, part=CHECK, correct=True).num_rows:
            raise UnderfireError(f"{path} lacks held-out benign images of {name}; run underfire detect again.")
    target, problem = _target(path.with_name(DETECTORS))
    calibrations, cells = calibrations_of(table), matrix(table)
    families = {each.family: [other for other in calibrations if other.family == each.family] for each in calibrations}
    columns, held_out = _attackers(cells), calibrations[0].false_positives
    return Detection(
        target=target,
        fitted=calibrations[0].fitted,
        checked=tuple((kind, each.n) for kind, each in zip(BENIGN, _kinds(held_out), strict=True)),
        caution=held_out.caution,
        columns=tuple(
            (attack_name(attack), interpreter_name(made or ""), _successful(cells, (attack, made)))
            for attack, made in columns
        ),
        families=tuple(
            (_title(family), tuple(_line(each, cells, columns) for each in its)) for family, its in families.items()
        ),
        curves=tuple(_curves(table, families, columns, target)),
        noticed=_noticed(list(families), cells, target),
        problem=problem,
    )


def _attackers(cells: list[DetectionRate]) -> list[Attacks]:
    attackers = dict.fromkeys((each.attack, each.interpreter) for each in cells)
    return [each for attack in in_order(attack for attack, _ in attackers) for each in attackers if each[0] == attack]


def _successful(cells: list[DetectionRate], attacks: Attacks) -> int:
    return max(each.successes.n for each in cells if (each.attack, each.interpreter) == attacks)


def _line(calibration: Calibration, cells: list[DetectionRate], columns: list[Attacks]) -> Line:
    name = calibration.detector
    found = {(each.attack, each.interpreter): each for each in cells if each.calibration.detector == name}
    return Line(
        detector=detector_part(name),
        threshold=calibration.threshold,
        benign=tuple(_rate(each, None) for each in _kinds(calibration.false_positives)),
        rates=tuple(_rate(its.successes, its.auc) if (its := found.get(each)) else NOTHING for each in columns),
    )


def _kinds(found: FalsePositives) -> tuple[Estimate, ...]:
    """The rates of BENIGN."""
    return found.overall, found.correct, found.misclassified


def _rate(rate: Estimate, auc: float | None) -> Rate:
    if not rate.n:
        return NOTHING
    interval = f"{100 * rate.low:.0f}–{100 * rate.high:.0f}"
    return Rate(rate.value, percent(rate.value), interval, "" if auc is None else f"{auc:.2f}")


def _curves(
    table: pa.Table, families: Mapping[str, list[Calibration]], columns: list[Attacks], target: float | None
) -> Iterator[tuple[str, Plot]]:
    """A plot per family, of the detector that combines the others."""
    for calibrations in families.values():
        combined = min((each.detector for each in calibrations), key=lambda name: name.count(":"))
        rows = rows_where(table, detector=combined)
        benign = torch.tensor(rows_where(rows, part=CHECK, correct=True)["score"].to_numpy())
        points = {}
        for attack, made in columns:
            successes = rows_where(rows, attack=attack, interpreter=made, success=True)["score"].to_numpy()
            if len(successes):
                curve = roc(benign, torch.tensor(successes))
                made_for = "" if made is None else f"for {interpreter_name(made)}"
                points[attack_name(attack), made_for] = (curve.fpr.numpy(), curve.tpr.numpy())
        if points:
            picture = curves(points, target, "benign images flagged", "attacked images flagged")
            yield capital(detector_name(combined)), embedded(picture)


def _noticed(families: list[str], cells: list[DetectionRate], target: float | None) -> dict[str, tuple[str, ...]]:
    """For each interpreter and family what its best detector makes of ADV², and of the worst that adapts to it."""
    sentences: dict[str, tuple[str, ...]] = {}
    attacks = {each.attack for each in cells}
    for base in (solver.map_aware for solver in SOLVERS.values() if solver.map_aware in attacks):
        for made in dict.fromkeys(each.interpreter for each in cells if each.attack == base):
            for family in families:
                ours = [each for each in cells if each.calibration.family == family]
                if made is not None and (sentence := _sentence(ours, base, made, target)):
                    sentences[made] = (*sentences.get(made, ()), sentence)
    return sentences


def _sentence(cells: list[DetectionRate], base: str, made: str, target: float | None) -> str:
    """Empty where no image of this attack succeeded."""
    against = [each for each in cells if (each.attack, each.interpreter) == (base, made) and each.successes.n]
    if not against:
        return ""
    best = max(against, key=lambda each: (each.successes.value, each.auc or 0))
    n = best.successes.n
    images = f"1 successful {attack_name(base)} image" if n == 1 else f"{n} successful {attack_name(base)} images"
    told = (
        f"{'At the calibrated threshold' if target is None else f'At {100 * target:g} % false alarms'}, "
        f"{detector_name(best.calibration.detector)} would have flagged {percent(best.successes.value)} of the "
        f"{images} made for {interpreter_name(made)}{', as the best of its kind' if len(against) > 1 else ''}"
    )
    adapted = [each for each in cells if each.calibration == best.calibration and _adapts(each, base, made)]
    if not adapted:
        return f"{told}."
    worst = min(adapted, key=lambda each: each.successes.value)
    hardest = "" if len(adapted) == 1 else f", the hardest of {len(adapted)} adaptive attacks,"
    rate = percent(worst.successes.value)
    return f"{told}; of those of {attack_name(worst.attack)}{hardest} it would have flagged {rate}."


def _adapts(each: DetectionRate, base: str, made: str) -> bool:
    """Whether this is an adaptive attack of the same solver on this interpreter, and succeeded somewhere."""
    known = attacker(each.attack)
    if known is None or known.evades is None or known.solver.map_aware != base:
        return False
    return each.interpreter in (made, None) and each.successes.n > 0


def _target(path: Path) -> tuple[float | None, str]:
    """The false-positive rate that was calibrated for, or the sentence that says why it is not known."""
    try:
        target = float(read_json(path)["spec"]["fpr"])
    except UnderfireError as problem:
        return None, str(problem)
    except (KeyError, TypeError, ValueError):
        target = 0.0
    if 0 < target < 1:
        return target, ""
    return None, f"{path} does not say for which rate of false alarms the detectors are calibrated."


def _title(family: str) -> str:
    return capital(family_name(family))
