"""What a page says first, to those who decide: one sentence, one number, what holds for it, and a row per interpreter.

A page of attacks has `attacks_lead`; whatever else a run folder is about makes a Lead of its own for `write_report`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import SOLVERS, attack_name, attacker, interpreter_name
from underfire.core.io import rows_where
from underfire.core.text import capital, counted, percent
from underfire.data.image_set import Numbering
from underfire.metrics.intervals import wilson
from underfire.report.tallies import Tally, place_of
from underfire.report.verdict import Verdict, in_one_sentence
from underfire.report.view import as_text
from underfire.report.wording import SHOWING, Words

FOREIGN = "It was made elsewhere; nothing is known of it but these images."


@dataclass(frozen=True)
class LeadNumber:
    """The number of a page, with its 95 % interval and what it is the share of; `shows` is an address in the page."""

    value: str
    interval: str
    meaning: str
    shows: str


@dataclass(frozen=True)
class LeadCell:
    """One attack against one interpreter: its share as a number and in words; `shows` leads to the images meant."""

    attack: str
    value: str
    counts: str
    interval: str
    shows: str


@dataclass(frozen=True)
class LeadRow:
    """One interpreter; its cells are in the order of the lead's attacks, None where there is no outcome."""

    interpreter: str
    claim: str
    cells: tuple[LeadCell | None, ...]


@dataclass(frozen=True)
class Lead:
    """The first screen; `image` is the id of the one whose pictures stand in the cells, if any has pictures."""

    question: str
    sentence: str
    number: LeadNumber | None
    conditions: tuple[tuple[str, str], ...]
    attacks: tuple[str, ...]
    rows: tuple[LeadRow, ...]
    definitions: tuple[tuple[str, str], ...]
    shares: str  # what the numbers in the cells are shares of
    image: str | None = None


def attacks_lead(
    verdicts: Sequence[Verdict], outcomes: pa.Table, info: Mapping[str, Any], words: Words, image: str | None
) -> Lead:
    """The lead of a run of attacks: the interpreter that is deceived most often, and all of them under every attack."""
    attacks = tuple(dict.fromkeys(each.attack for verdict in verdicts for each in _plain_first(verdict)))
    return Lead(
        question=words.question,
        sentence=in_one_sentence(verdicts) if verdicts else "",
        number=_number(verdicts),
        conditions=tuple(_conditions(outcomes, info)),
        attacks=attacks,
        rows=tuple(_row(each, attacks) for each in verdicts),
        definitions=tuple(_definitions(attacks, verdicts)),
        shares=f"share of maps, of the images on which the classifier was fooled, that {_wanted(words)}",
        image=image,
    )


def _wanted(words: Words) -> str:
    return "look as wanted" if words is SHOWING else "warn nobody"


def showing(**chosen: str) -> str:
    """An address in the page: the gallery, filtered by attack, interpreter and ending."""
    return f"#{urlencode(chosen)}"


def _plain_first(verdict: Verdict) -> list[Tally]:
    """The tallies that have a column: of every solver the attack that ignores the map, and ADV²."""
    shown = [each for each in verdict.tallies if each.evades is None]
    return sorted(shown, key=lambda each: (place_of(each), bool(each.map_aware)))


def _number(verdicts: Sequence[Verdict]) -> LeadNumber | None:
    judged = [each for each in verdicts if each.leading.seen]
    if not judged:
        return None
    worst = max(judged, key=lambda each: each.leading.share)
    tally, name = worst.leading, interpreter_name(worst.interpreter)
    did = worst.words.kept if tally.map_aware else worst.words.left
    among = f", which is deceived most often of {len(judged)} interpreters" if len(judged) > 1 else ""
    return LeadNumber(
        value=percent(tally.share),
        interval=_interval(tally),
        meaning=f"{attack_name(tally.attack)} {did} on {tally.plausible} of the "
        f"{counted(tally.seen, 'image')} on which it fooled the classifier, as shown by {name}{among}.",
        shows=showing(attack=tally.attack, interpreter=worst.interpreter, ending="deceived"),
    )


def _interval(tally: Tally) -> str:
    low, high = wilson(tally.plausible, tally.seen)
    return f"{100 * low:.0f}–{100 * high:.0f} %"


def _row(verdict: Verdict, attacks: Sequence[str]) -> LeadRow:
    tallies = {each.attack: each for each in verdict.tallies}
    cells = tuple(_cell(tallies[each], verdict) if each in tallies else None for each in attacks)
    return LeadRow(verdict.interpreter, capital(verdict.claim.format("it")), cells)


def _cell(tally: Tally, verdict: Verdict) -> LeadCell:
    shows = showing(attack=tally.attack, interpreter=verdict.interpreter, ending="deceived")
    if not tally.seen:
        return LeadCell(tally.attack, "–", f"fooled on {tally.fooled} of {tally.n}", "", shows)
    counts = f"{tally.plausible} of {counted(tally.seen, 'image')}"
    return LeadCell(tally.attack, percent(tally.share), counts, _interval(tally), shows)


def _conditions(outcomes: pa.Table, info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Budget, accuracy of the classifier, images."""
    moves = [each.get("perturbation", {}) for each in info.get("recipe", ())]
    bound = [each for each in moves if each.get("eps")]
    limits = {"L2Ball": "in L2, over all values"}
    budgets = sorted((limits.get(each.get("type"), "for each pixel value"), each["eps"]) for each in bound)
    for limit, eps in dict(budgets).items():  # the largest of each
        yield "Budget", f"ε = {as_text(eps)} {limit}"
    if region := info.get("spec", {}).get("region"):
        yield "Region", f"no pixel changes outside of {region}"
    if (others := rows_where(outcomes, solver=None)).num_rows:
        yield "Change", f"up to {255 * pc.max(others['linf']).as_py():.3g}/255 of any pixel value"
    if "flow_mean" in outcomes.column_names and (flow := pc.mean(outcomes["flow_mean"]).as_py()) is not None:
        yield "Bending", f"{flow:.2f} pixels on average"
    selection = info.get("selection", {})
    if info.get("labels_by") == Numbering.PREDICTED:
        yield "Classifier", "not judged: what it reports of an image is taken for true"
    elif examined := selection.get("examined"):
        right = examined - selection.get("misclassified", 0)
        yield "Classifier", f"{percent(right / examined)} right, on {right} of {examined} examined"
    if outcomes.num_rows:
        yield "Attacked", f"{counted(len(pc.unique(outcomes['id'])), 'image')}, of those that are right"


def _definitions(attacks: Sequence[str], verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    """What a reader has to know of the names in the lead."""
    for solver in SOLVERS.values():
        if solver.name in attacks:
            yield solver.title, f"It {solver.does} until the classifier errs, and ignores the map."
        if solver.map_aware in attacks:
            aware = solver.map_aware_title
            yield aware, f"{solver.title} on classifier and explanation at once: {verdicts[0].words.aim}"
    yield from ((attack_name(each), FOREIGN) for each in attacks if attacker(each) is None)
    yield from {name: text for each in verdicts for name, text in each.words.terms.items()}.items()
    if warned := verdicts and verdicts[0].words.warned:
        yield "Warned", warned
