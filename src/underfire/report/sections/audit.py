"""What an audit found: its first screen, the security curve, what lasts on files, and what speaks against it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from underfire.attacks.names import attack_name, interpreter_name
from underfire.core.errors import UnderfireError
from underfire.core.plots import budgets
from underfire.core.text import counted
from underfire.metrics.intervals import wilson
from underfire.report.figures import Plot, embedded
from underfire.report.lead import Lead, LeadCell, LeadNumber, LeadRow, showing
from underfire.studies.audit_summary import budget, median_of, shown, verdict
from underfire.studies.audits import AUDIT, Audit, Audited, SuiteMember, read_audit

FORMS = {"png": "PNG", "jpeg95": "JPEG, quality 95", "jpeg75": "JPEG, quality 75"}
DEFINITIONS = {
    "natural": "A map is plausible if it is no further from the benign one than harmless changes of its image move it.",
    "overlap": "A map is plausible if its IoU with the benign one exceeds ½.",
}


@dataclass(frozen=True)
class AuditPart:
    """What the section shows."""

    audit: Audit
    curve: Plot
    tables: tuple["AuditTable", ...]


@dataclass(frozen=True)
class AuditTable:
    """One interpreter: its attacks, files and flags, in words; the flags that were raised come first."""

    interpreter: str
    definition: str
    median: str
    members: tuple[tuple[str, str, str, str], ...]  # title, attacked, fooled, betrayed
    lasting: tuple[tuple[str, str, str], ...]  # form, class, class and map
    raised: tuple[tuple[str, str], ...]
    silent: tuple[tuple[str, str], ...]


def compose(path: Path) -> AuditPart:
    """What audit.json says; UnderfireError if it is damaged."""
    audit = read_audit(path)
    drawn = {}
    for each in audit.interpreters:
        rows = [(255 * p.eps, p.betrayed.value, p.betrayed.low, p.betrayed.high) for p in each.curve.points]
        across, share, low, high = np.array(rows, dtype=np.float64).T
        drawn[interpreter_name(each.interpreter)] = across, share, low, high
    picture = budgets(drawn, 255 * audit.eps, "budget ε, in steps of 8 bits", "share of images betrayed")
    return AuditPart(audit, embedded(picture), tuple(map(_table, audit.interpreters)))


def lead(folder: Path, image: str | None) -> Lead | None:
    """The first screen of an audit; None where the folder holds none, or one that cannot be read."""
    try:
        audit = read_audit(folder / AUDIT)
    except UnderfireError:
        return None
    worst, first = audit.worst, audit.interpreters[0].curve.attack
    attacks = tuple(dict.fromkeys((audit.interpreters[0].members[0].attack, first)))
    return Lead(
        question="On which share of images would nobody have noticed?",
        sentence=verdict(audit),
        number=LeadNumber(
            value=shown(worst.robust).partition(" [")[0],
            interval=f"{100 * worst.robust.low:.0f}–{100 * worst.robust.high:.0f} %",
            meaning=f"joint robust accuracy of {interpreter_name(worst.interpreter)}: the share of correctly "
            f"classified images that no attack of the suite betrays. {DEFINITIONS[worst.definition]}",
            shows=showing(attack=first, interpreter=worst.interpreter, ending="deceived"),
        ),
        conditions=tuple(_conditions(audit)),
        attacks=attacks,
        rows=tuple(_row(each, attacks) for each in audit.interpreters),
        definitions=(
            ("Betrayed", "The class is the attacker's, and the map is plausible on a file: nobody would have noticed."),
            ("Plain robust accuracy", "Images that PGD does not fool, whatever the map shows."),
            ("Caution", "Nobody has the benign map at hand when a picture arrives."),
        ),
        shares="share of the images that an attack met which it betrays",
        image=image,
    )


def _conditions(audit: Audit) -> Iterator[tuple[str, str]]:
    yield "Budget", f"ε = {budget(audit.eps)} for each pixel value"
    yield "Classifier", f"accuracy {shown(audit.model.accuracy)} on the images examined"
    yield "Plain robust accuracy", shown(audit.worst.plain_robust)
    yield "Attacked", f"{counted(audit.n, 'image')}, suite {audit.suite}"
    if audit.detector is not None:
        yield "Detector", f"{audit.detector.name}, at {100 * audit.detector.fpr:g} % false positives"


def _row(each: Audited, attacks: tuple[str, ...]) -> LeadRow:
    members = {member.attack: member for member in each.members}
    raised = sum(flag.raised for flag in each.flags)
    claim = f"joint robust accuracy {shown(each.robust)}; half are betrayed within {median_of(each)}; "
    return LeadRow(
        each.interpreter,
        f"{claim}{counted(raised, 'flag')} raised",
        tuple(_cell(members[attack], each) if attack in members else None for attack in attacks),
    )


def _cell(member: SuiteMember, of: Audited) -> LeadCell:
    betrayed = member.betrayed[of.definition]
    low, high = wilson(betrayed, member.attacked)
    return LeadCell(
        attack=member.attack,
        value=f"{100 * betrayed / member.attacked:.0f} %",
        counts=f"{betrayed} of {counted(member.attacked, 'image')}",
        interval=f"{100 * low:.0f}–{100 * high:.0f} %",
        shows=showing(attack=member.attack, interpreter=of.interpreter, ending="deceived"),
    )


def _table(each: Audited) -> AuditTable:
    return AuditTable(
        interpreter=each.interpreter,
        definition=DEFINITIONS[each.definition],
        median=median_of(each),
        members=tuple(
            (attack_name(m.attack), str(m.attacked), str(m.fooled), str(m.betrayed[each.definition]))
            for m in each.members
        ),
        lasting=tuple((FORMS[form.form], shown(form.success), shown(form.betrayed)) for form in each.lasting),
        raised=tuple((flag.name, flag.sentence) for flag in each.flags if flag.raised),
        silent=tuple((flag.name, flag.sentence) for flag in each.flags if not flag.raised),
    )
