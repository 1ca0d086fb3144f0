"""The verdict in words: would the explanation have warned you, or was it fooled too?

The headline follows the ADV² that keeps the largest share of maps plausible, of those of all solvers in the run, and
claims no more than the 95 % interval of that share allows. Where another map than the benign one was wanted,
"plausible" is the map that looks like the wanted one. Where benign maps of other images are often plausible, too, the
word is not used: maps are unchanged within natural variation, or changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isinf
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import attack_name, class_blindness, interpreter_name
from underfire.core.text import capital, counted, enumerated, percent
from underfire.metrics.floors import INDISTINCT
from underfire.metrics.intervals import FEW, images_to_decide, wilson
from underfire.metrics.maps import FAINT, UNCHANGED, UNSEEN
from underfire.report.tallies import Tally, is_alike, place_of, tallies_of, told_apart, unrelated_share
from underfire.report.wording import HIDING, VARYING, Words
from underfire.runs.outcomes import completed

NEARLY_ALL, MOST, HARDLY_ANY = 0.9, 0.5, 0.1  # shares of plausible maps between which the headlines change


@dataclass(frozen=True)
class Verdict:
    """What is said of one interpreter; the claim is the headline's first part, with {} for the interpreter's name."""

    interpreter: str
    claim: str
    headline: str
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]
    tallies: tuple[Tally, ...]
    leading: Tally  # the ADV² that the claim follows
    words: Words


def judge(outcomes: pa.Table, words: Words = HIDING) -> list[Verdict]:
    """One verdict per interpreter, in the order in which they first appear in the table."""
    outcomes = told_apart(completed(outcomes), words)
    return [_judge(outcomes, name, words) for name in dict.fromkeys(outcomes["interpreter"].to_pylist())]


def in_one_sentence(verdicts: Sequence[Verdict]) -> str:
    """What is claimed of all interpreters, those that are deceived most often first."""
    names: dict[str, list[str]] = {}
    for each in sorted(verdicts, key=lambda each: -each.leading.share):
        names.setdefault(each.claim, []).append(interpreter_name(each.interpreter))
    return f"{capital('; '.join(claim.format(enumerated(its)) for claim, its in names.items()))}."


def missing_parts(outcomes: pa.Table, info: Mapping[str, Any]) -> list[str]:
    """Sentences that say what a partial run lacks."""
    if not outcomes.num_rows:
        return ["This run contains no outcome yet, so there is nothing to judge."]
    requested = info.get("selection", {}).get("requested")
    images = len(pc.unique(outcomes["id"]))
    expected = requested if requested is not None else images
    lacks = []
    for interpreter in dict.fromkeys(outcomes["interpreter"].to_pylist()):
        for each in tallies_of(completed(outcomes), interpreter):
            if each.n < expected:
                lacks.append(
                    f"{attack_name(each.attack)} against {interpreter_name(interpreter)} covers {each.n} of {expected} "
                    "images."
                )
    return lacks


def _judge(outcomes: pa.Table, interpreter: str, words: Words) -> Verdict:
    unrelated = unrelated_share(outcomes, interpreter)
    if words is HIDING and is_alike(outcomes, interpreter):
        words = VARYING
    tallies = tallies_of(outcomes, interpreter)
    basic = [each for each in tallies if each.basic]
    leading = max(basic or tallies, key=lambda each: (each.n > 0, each.seen > 0, each.share))
    told = sorted(tallies, key=_map_aware_first)
    claim = _claim(leading, words)
    return Verdict(
        interpreter=interpreter,
        claim=claim,
        headline=f"{capital(claim.format(interpreter_name(interpreter)))}{_open_question(leading)}.",
        sentences=tuple(_sentence(each, words) for each in told),
        cautions=(*class_blindness(interpreter), *_indistinct(unrelated, words), *_cautions(tallies, leading, words)),
        tallies=tuple(each for each in told if each.n),
        leading=leading,
        words=words,
    )


def _indistinct(unrelated: float, words: Words) -> Iterator[str]:
    """What keeps an overlap with the benign map from meaning anything."""
    others = f"{percent(unrelated)} of the benign maps of other images would be, too"
    if words is VARYING:
        yield (
            f"No map is called plausible here: {others}. What counts is whether a map stays within natural variation, "
            "as far as harmless changes of its image move it."
        )
    elif words is HIDING and unrelated > INDISTINCT:
        yield f"That a map is plausible says little here: {others}. Measure natural variation: --variation all."


def _map_aware_first(each: Tally) -> tuple[int, bool, bool]:
    """Solver by solver ADV², the plain attack, and then the others in their order."""
    return place_of(each), each.evades is not None, not each.map_aware


def _claim(adv2: Tally, words: Words) -> str:
    """The strongest claim of which the interval of the share leaves no doubt."""
    if not adv2.n:
        return "nothing is known of {} yet"
    if not adv2.fooled:
        return "nothing put {} to the test"
    if not adv2.seen:
        return "{} had nothing to show"
    nearly_all, most, some, hardly_any = words.headlines
    low, high = wilson(adv2.plausible, adv2.seen)
    if low < MOST < high:
        return f"whether {{}} {words.doubt} is undecided"
    if low >= NEARLY_ALL or high <= HARDLY_ANY:
        return f"{{}} {nearly_all if low >= NEARLY_ALL else hardly_any}"
    return f"{{}} {most if low >= MOST else some}"


def _open_question(adv2: Tally) -> str:
    """What would decide the next stronger claim; empty where there is none or the share does not suggest it."""
    if not adv2.seen:
        return ""
    low, high = wilson(adv2.plausible, adv2.seen)
    if low < MOST < high:
        return f" on {counted(adv2.seen, 'image')}: {_deciding(adv2, MOST)}"
    if low >= NEARLY_ALL or high <= HARDLY_ANY or HARDLY_ANY < adv2.share < NEARLY_ALL:
        return ""
    return f"; whether nearly always is undecided: {_deciding(adv2, NEARLY_ALL if low >= MOST else HARDLY_ANY)}"


def _deciding(tally: Tally, threshold: float) -> str:
    """How many images, of which as many are fooled and seen as of these, would decide at this share."""
    needed = images_to_decide(tally.share, threshold) * tally.n / tally.seen
    return (
        "at this share more images will not decide it"
        if isinf(needed)
        else f"about {ceil(needed)} images would decide it"
    )


def _sentence(each: Tally, words: Words) -> str:
    """The counts behind the claim."""
    title = attack_name(each.attack)
    if not each.n:
        return f"There is no outcome of {title} in this run."
    if not each.fooled:
        return f"{title} fooled the classifier on none of {counted(each.n, 'image')}, so its maps say nothing."
    fooled = f"{title} fooled the classifier on {each.fooled} of {counted(each.n, 'image')}"
    blank = f"there is nothing to see in the {words.wanted} map"
    if not each.seen:
        return f"{fooled}, on all of which {blank}."
    kept = words.kept if each.map_aware else words.left
    whole = f"on {each.plausible}" if each.seen == each.n else f"on {each.plausible} of those {each.seen}"
    still = (
        f", {each.endings[UNCHANGED]} of them to within its own noise"
        if 0 < each.endings[UNCHANGED] < each.plausible
        else ""
    )
    apart = f"; on {each.endings[UNSEEN]} of these {blank}. On the others it" if each.endings[UNSEEN] else " and"
    return f"{fooled}{apart} {kept} {whole} ({percent(each.share)}){still}."


def _cautions(tallies: list[Tally], leading: Tally, words: Words) -> list[str]:
    """What keeps the claim from being read as more than it is."""
    cautions = []
    if 0 < leading.seen < FEW:
        low, high = wilson(leading.plausible, leading.seen)
        cautions.append(
            f"Few images: judged on {counted(leading.seen, 'image')}, the true share of {words.counted} may be "
            f"anywhere from {percent(low)} to {percent(high)} (95 % interval)."
        )
    for each in tallies:
        if each.map_aware is None:
            cautions.append(
                f"{capital(attack_name(each.attack))} was made elsewhere; whether it was after the map is not known, "
                "and one that is may hide better. For comparison: underfire attack, with as large a budget."
            )
    for each in tallies:
        if each.basic and each.fooled and each.failed:
            title = attack_name(each.attack)
            cautions.append(f"On {each.failed} of {each.n} images {title} failed; of these the verdict says nothing.")
    for each in tallies:
        if each.map_aware is False and each.share >= MOST:
            cautions.append(words.unmoved.format(attack_name(each.attack)))
    if constant := sum(each.constant for each in tallies):
        noun = "map is" if constant == 1 else "maps are"
        cautions.append(f"{constant} {noun} constant and explain nothing; do not trust their IoU.")
    if leading.unseen:
        cautions.append(
            f"{counted(leading.unseen, 'image')} of {leading.n} counted apart: the {words.wanted} map spans less than "
            f"{percent(FAINT)} of the scale, so that nobody could tell whether it changed."
        )
    return cautions
