"""An audit in words: one sentence, the flags that were raised, and a page of Markdown for a pull request."""

from collections.abc import Iterator

from underfire.attacks.names import interpreter_name
from underfire.core.text import counted, enumerated, percent
from underfire.metrics.betrayal import DEFINITIONS
from underfire.studies.audits import Audit, Audited, Share


def verdict(audit: Audit) -> str:
    """What it comes to for the explanation that fares worst."""
    worst, detector = audit.worst, audit.detector
    deceived = ("classifier", interpreter_name(worst.interpreter), *((detector.name,) if detector else ()))
    return (
        f"Within ε = {budget(audit.eps)} an attacker deceives {enumerated(deceived)} at once on "
        f"{_complement(worst.robust)} of {counted(audit.n, 'image')}: joint robust accuracy {shown(worst.robust)}."
    )


def raised(audit: Audit) -> Iterator[str]:
    """A line for each flag that was raised."""
    for each in audit.interpreters:
        for flag in each.flags:
            if flag.raised:
                yield f"{interpreter_name(each.interpreter)}, {flag.name}: {flag.sentence}"


def markdown(audit: Audit) -> str:
    """Numbers, what they mean, and what speaks against them."""
    heads = ("explanation", "joint robust accuracy", "plain robust accuracy", "median smallest ε", "first on JPEG 75")
    rows = [
        (
            interpreter_name(each.interpreter),
            f"**{shown(each.robust)}**",
            shown(each.plain_robust),
            median_of(each),
            shown(each.lasting[-1].betrayed),
        )
        for each in audit.interpreters
    ]
    lines = [
        "### underfire audit",
        "",
        verdict(audit),
        "",
        _row(heads),
        _row(["---"] * len(heads)),
        *map(_row, rows),
        "",
    ]
    lines += [f"* {line}" for line in raised(audit)] or ["No honesty flag was raised."]
    meanings = "; ".join(f"“{name}”: {text}" for name, text in DEFINITIONS.items())
    lines += [
        "",
        f"{audit.model.name}, accuracy {shown(audit.model.accuracy)} on the images examined; {audit.images}, "
        f"n = {audit.n}; suite {audit.suite}, seed {audit.seed}, underfire {audit.underfire}. An image is betrayed if "
        f"it is classified as the attacker wants, with a plausible map{_and_unflagged(audit)}. Plausible, {meanings}; "
        "the stricter counts.",
        "",
        f"`{audit.command}`",
        "",
    ]
    return "\n".join(lines)


def shown(share: Share) -> str:
    """As a percentage with its interval."""
    if share.value is None:
        return "–"
    return f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"


def budget(eps: float) -> str:
    """In 255ths, as the field writes it."""
    return f"{255 * eps:.3g}/255"


def median_of(each: Audited) -> str:
    """The smallest budget that betrays half of the images, or a bound of it."""
    return f"> {budget(each.curve.points[-1].eps)}" if each.curve.median is None else budget(each.curve.median)


def _complement(share: Share) -> str:
    return "–" if share.value is None else percent(1 - share.value)


def _and_unflagged(audit: Audit) -> str:
    return "" if audit.detector is None else f", and {audit.detector.name} does not flag it"


def _row(cells: "tuple[str, ...] | list[str]") -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
