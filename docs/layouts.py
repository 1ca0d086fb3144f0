"""What a table of results looks like, by the kind of file that it is made of.

    LAYOUTS["attacks"](rows)        # rows of averages.csv as cells of text, the first line of which heads the others

Numbers are .52 [.39, .65]: a value with its 95 % interval. A row has the columns of its file, as "of" the n of its run
and as "run" its name.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Any

from underfire.attacks.names import attack_name, interpreter_name, made_for
from underfire.metrics.intervals import Estimate
from underfire.report.tables import ALL, FLOOR_NAMES, FOOLED
from underfire.studies.audit_summary import budget, median_of
from underfire.studies.audits import Audit, Audited, Flag, Share

JPEGS = ("jpeg95", "jpeg75")
FLOORS = tuple(FLOOR_NAMES.values())
BENIGN = {
    "as they come": ("fpr", "held_out"),
    "correct": ("fpr_correct", "correct"),
    "misclassified": ("fpr_misclassified", "misclassified"),
}
TIED = "\N{NO-BREAK SPACE}"
NOTHING = Estimate(nan, nan, nan, 0)

Row = Mapping[str, str]
Cells = list[list[str]]
Found = dict[str, Estimate]  # by measure


def shown(found: Estimate, measure: str, of: int) -> str:
    """.52 [.39, .65]; with "of 12" where it is of fewer images than `of`."""
    few = f" of {found.n}" if 0 < found.n < of else ""
    return f"{plain(found, measure)}{interval(found, measure)}{few}"


def plain(found: Estimate, measure: str) -> str:
    """.52; – where it is of no image."""
    return number(found.value, spec_of(found, measure)) if found.n else "–"


def interval(found: Estimate, measure: str) -> str:
    """[.39, .65], which stays beside the value in a narrow column; empty where there is none."""
    spec = spec_of(found, measure)
    return f"{TIED}[{number(found.low, spec)},{TIED}{number(found.high, spec)}]" if found.has_interval else ""


def spec_of(found: Estimate, measure: str) -> str:
    """Two digits for shares and overlaps; three, or two that count, for distances and confidences."""
    if measure == "budget":
        return "g"
    if not re.search("L1|L2|MC", measure.upper()):
        return ".2f"
    return ".4f" if 0 < found.value < 0.01 else ".3f"


def number(value: float, spec: str) -> str:
    """Without a nought before the point."""
    return re.sub(r"^(−?)0\.", r"\1.", f"{value:{spec}}".replace("-", "−"))


def estimate(row: Row, value: str = "value", low: str = "low", high: str = "high", n: str = "n") -> Estimate:
    """What these columns of a row hold."""
    found, least, most = (float(row[name] or nan) for name in (value, low, high))
    return Estimate(found, least, most, int(row[n] or 0))


def attacks(rows: Sequence[Row]) -> Cells:
    """averages.csv: a line for each interpreter and attack; intervals of the distance and of what is judged by it."""
    head = ["interpreter", "attack", "n", "ASR", "MC", "ΔL1", "floats", "IoU", "plausible", "natural"]
    cells = [[*head, "JPEG 95", "JPEG 75"]]
    for (interpreter, attack), found in averages(rows).items():
        if attack not in FLOORS:
            n = found["asr"].n
            with_intervals = [shown(found[each], each, n) for each in ("map_l1", "plausible", "within_natural")]
            line = [interpreter_name(interpreter), attack_name(attack), str(n), several(found, "asr")]
            line += [several(found, "mc"), with_intervals[0], several(found, "map_l1_float")]
            line += [several(found, "iou_mean"), *with_intervals[1:]]
            line += [several(found, *lasting(form)) for form in JPEGS]
            cells.append(line)
    return cells


def files(rows: Sequence[Row]) -> Cells:
    """averages.csv of several runs: success and distance as numbers and as files give them back."""
    cells = [["run", "interpreter", "attack", "n", "floats", "PNG", "JPEG 95", "JPEG 75"]]
    for name in dict.fromkeys(row["run"] for row in rows):
        for (interpreter, attack), found in averages([row for row in rows if row["run"] == name]).items():
            if attack not in FLOORS:
                line = [name, interpreter_name(interpreter), attack_name(attack), str(found["asr"].n)]
                line += [several(found, "success_float", "map_l1_float"), several(found, "asr", "map_l1")]
                cells.append([*line, *(several(found, *lasting(form)) for form in JPEGS)])
    return cells


def lasting(form: str) -> tuple[str, str]:
    """What is measured on such files."""
    return f"success_{form}", f"map_l1_{form}"


def floors(rows: Sequence[Row]) -> Cells:
    """averages.csv: what attacks are to be held against, as distance, overlap and share that is plausible."""
    cells, found = [["interpreter", *FLOORS]], averages(rows)
    for name in interpreters(rows):
        beside = (several(found[name, floor], "map_l1", "iou_mean", "plausible") for floor in FLOORS)
        cells.append([interpreter_name(name), *beside])
    return cells


def explanations(rows: Sequence[Row]) -> Cells:
    """averages.csv of PGD and ADV2: a line for each interpreter."""
    cells = [["explanation", "PGD ΔL1", "ADV² ΔL1", "left", "plausible: PGD · ADV²", "other image · mean map"]]
    found = averages(rows)
    for name in interpreters(rows):
        pgd, adv2, *beside = (found[name, of] for of in ("pgd", "adv2", "other image", "mean map"))
        moved = [shown(of["map_l1"], "map_l1", of["asr"].n) for of in (pgd, adv2)]
        left = f"{100 * adv2['map_l1'].value / pgd['map_l1'].value:.0f} %"
        shares = " · ".join(several(of, "plausible") for of in (pgd, adv2))
        distances = " · ".join(several(of, "map_l1") for of in beside)
        cells.append([interpreter_name(name), *moved, left, shares, distances])
    return cells


def interpreters(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["interpreter"] for row in rows))


def averages(rows: Sequence[Row]) -> dict[tuple[str, str], Found]:
    """By interpreter, and attack or floor: over all images, but the confidence over those that fooled."""
    found = nothing_yet()
    for row in rows:
        if not row["attack"] or row["over"] == (FOOLED if row["measure"] == "mc" else ALL):
            found[row["interpreter"], row["attack"] or row["over"]][row["measure"]] = estimate(row)
    return found


def nothing_yet() -> defaultdict[Any, Found]:
    """Estimates by what they are of and by measure, to be filled."""
    return defaultdict(lambda: defaultdict(lambda: NOTHING))


def several(found: Found, *measures: str) -> str:
    """.52 · .188."""
    return " · ".join(plain(found[each], each) for each in measures)


def detection(rows: Sequence[Row]) -> Cells:
    """detection-matrix.csv: the share of benign images as they come, and of each attacker's, that is flagged; AUC."""
    attackers = list(dict.fromkeys((row["attack"], row["interpreter"]) for row in rows))
    one = len({interpreter for _, interpreter in attackers if interpreter}) < 2
    names = (attack_name(attack) if one else made_for(attack, made or None) for attack, made in attackers)
    by_detector: dict[str, list[str]] = {}
    for row in rows:
        line = by_detector.setdefault(row["detector"], [benign(row, "as they come")])
        flagged = shown(estimate(row, "detected"), "detected", int(row["of"]))
        line.append(f"{flagged} · {number(float(row['auc'] or nan), '.2f')}")
    return [["detector", "false positives", *names], *([f"`{name}`", *line] for name, line in by_detector.items())]


def false_positives(rows: Sequence[Row]) -> Cells:
    """detection-matrix.csv: the share that is flagged of benign images as they come, and by how they are classified."""
    by_detector = {row["detector"]: [benign(row, each) for each in BENIGN] for row in rows}
    heads = [f"{each} (n = {rows[0][n]})" for each, (_, n) in BENIGN.items()]
    return [["detector", *heads], *([f"`{name}`", *line] for name, line in by_detector.items())]


def benign(row: Row, which: str) -> str:
    rate, n = BENIGN[which]
    return shown(estimate(row, rate, f"{rate}_low", f"{rate}_high", n), rate, 0)


def transfers(rows: Sequence[Row]) -> Cells:
    """transfer-averages.csv: who an image was made for by who shows it; ΔL1 · IoU, and own − transferred."""
    shown_by, found = interpreters(rows), nothing_yet()
    for row in rows:
        found[row["attack"], row["source"], row["interpreter"]][row["measure"]] = estimate(row)
    cells = [["made for", *map(interpreter_name, shown_by)]]
    for attack, source in dict.fromkeys((row["attack"], row["source"]) for row in rows):
        by_interpreter = (transferred(found[attack, source, name]) for name in shown_by)
        cells.append([made_for(attack, source or None), *by_interpreter])
    return cells


def transferred(found: Found) -> str:
    """.136 · .44 (−.100 [−.110, −.090]); the difference is of images that were made for another interpreter."""
    less = found["difference"]
    paired = f" ({plain(less, 'map_l1')}{interval(less, 'map_l1')})" if less.n else ""
    return several(found, "map_l1", "iou_mean") + paired


def study(rows: Sequence[Row]) -> Cells:
    """A study's own table: its columns or, where there is but one, its measures side by side."""
    names = list(rows[0])
    stub = names[: names.index("column")]
    across = "column" if len({row["column"] for row in rows}) > 1 else "measure"
    heads = list(dict.fromkeys(row[across] for row in rows))
    lines: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for row in rows:
        paper = f" (paper {number(float(row['paper']), 'g')})" if row["paper"] else ""
        cell = shown(estimate(row, "ours"), row["measure"], int(row["of"])) + paper
        lines.setdefault(tuple(row[each] for each in stub), {}).setdefault(row[across], []).append(cell)
    table = [["" if each == "row" else each for each in stub] + heads]
    return table + [[*name, *(" · ".join(line.get(head, ())) for head in heads)] for name, line in lines.items()]


def audits(found: Sequence[Audit]) -> Cells:
    """audit.json: a line for each explanation."""
    heads = ["explanation", "model", "n", "joint robust accuracy", "by the other definition", "plain robust accuracy"]
    cells = [[*heads, "betrayed of those met", "median smallest ε", "first on JPEG 95 · 75", "flags raised"]]
    for audit in found:
        for each in audit.interpreters:
            (other,) = (share for name, share in each.robust_by.items() if name != each.definition)
            met = (f"{of.title}: {of.betrayed[each.definition]} of {of.attacked}" for of in each.members)
            lasting = " · ".join(part(of.betrayed) for of in each.lasting if of.form.startswith("jpeg"))
            flags = (raised(flag) for flag in each.flags if flag.raised)
            robust = f"**{part(each.robust)}** ({each.definition})"
            line = [*named(audit, each), str(audit.n), robust]
            line += [part(other), part(each.plain_robust), "; ".join(met), median_of(each), lasting]
            cells.append([*line, ", ".join(flags) or "none"])
    return cells


def curves(found: Sequence[Audit]) -> Cells:
    """audit.json: the share of images betrayed within each budget."""
    points = found[0].interpreters[0].curve.points
    cells = [["explanation", "model", *(f"≤ {budget(point.eps)}" for point in points)]]
    for audit in found:
        for each in audit.interpreters:
            shares = (number(point.betrayed.value or 0.0, ".2f") for point in each.curve.points)
            cells.append([*named(audit, each), *shares])
    return cells


def named(audit: Audit, each: Audited) -> list[str]:
    """The explanation with the detector that is deployed beside it, if any, and the model without its file."""
    beside = f", detector {audit.detector.name}" if audit.detector else ""
    return [interpreter_name(each.interpreter) + beside, audit.model.name.rpartition(":")[2]]


def raised(flag: Flag) -> str:
    return flag.name if flag.number is None else f"{flag.name} ({flag.number:.3g})"


def part(share: Share) -> str:
    found = Estimate(nan if share.value is None else share.value, share.low, share.high, share.n)
    return shown(found, "share", 0)


LAYOUTS: Mapping[str, Callable[[Any], Cells]] = {
    "attacks": attacks,
    "files": files,
    "floors": floors,
    "explanations": explanations,
    "detection": detection,
    "false-positives": false_positives,
    "transfers": transfers,
    "study": study,
    "audits": audits,
    "curves": curves,
}
