"""The verdict in words: would the explanation have warned you, or was it fooled too?

Every image under attack ends in one of four ways: the classifier was not fooled; it was fooled and the map changed
visibly, so whoever looks at the map is warned; it was fooled and the map stayed plausible or did not move at all; or
there is nothing to see in the benign map, and the image is counted apart. Where another map than the benign one was
wanted, "plausible" is the map that looks like the wanted one. The headline follows the ADV² that keeps the largest
share of maps plausible, of those of all solvers in the run, and claims no more than the 95 % interval of that share
allows. Where benign maps of other images are often plausible, too, the word is not used: maps are unchanged within
natural variation, or changed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isinf
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import SOLVERS, attack_name, in_order, interpreter_name
from underfire.core.io import rows_where
from underfire.metrics.floors import INDISTINCT
from underfire.metrics.intervals import FEW, images_to_decide, wilson
from underfire.metrics.maps import CHANGED, DECEIVING, FAINT, UNCHANGED, UNSEEN
from underfire.report.wording import HIDING, VARYING, Words
from underfire.runs.outcomes import completed, floors

NEARLY_ALL, MOST, HARDLY_ANY = 0.9, 0.5, 0.1  # shares of plausible maps between which the headlines change


@dataclass(frozen=True)
class Tally:
    """How the images of one attack against one interpreter ended."""

    attack: str
    solver: str
    map_aware: bool
    evades: str | None
    n: int
    endings: Mapping[str, int]  # how many fooled the classifier with a map of each judgement
    constant: int  # maps without any structure
    unseen: int  # maps that should look like one in which there is nothing to see, fooled or not

    @property
    def basic(self) -> bool:
        """Whether it is ADV² against one interpreter and no detector."""
        return self.map_aware and self.evades is None

    @property
    def fooled(self) -> int:
        return sum(self.endings.values())

    @property
    def failed(self) -> int:
        return self.n - self.fooled

    @property
    def seen(self) -> int:
        """Fooled, and there is a map to judge."""
        return self.fooled - self.endings[UNSEEN]

    @property
    def plausible(self) -> int:
        """Fooled, and the map stayed plausible or did not move."""
        return sum(self.endings[judgement] for judgement in DECEIVING)

    @property
    def share(self) -> float:
        return self.plausible / self.seen if self.seen else 0.0


@dataclass(frozen=True)
class Verdict:
    """What is said of one interpreter."""

    interpreter: str
    headline: str
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]
    tallies: tuple[Tally, ...]


def judge(outcomes: pa.Table, words: Words = HIDING) -> list[Verdict]:
    """One verdict per interpreter, in the order in which they first appear in the table."""
    outcomes = told_apart(completed(outcomes), words)
    return [_judge(outcomes, name, words) for name in dict.fromkeys(outcomes["interpreter"].to_pylist())]


def told_apart(outcomes: pa.Table, words: Words) -> pa.Table:
    """The table in which maps of interpreters whose unrelated maps are alike are judged by natural variation alone."""
    alike = pa.array([name for name in pc.unique(outcomes["interpreter"]).to_pylist() if _is_alike(outcomes, name)])
    if words is not HIDING or not len(alike):
        return outcomes
    seen = pc.not_equal(outcomes["judgement"], UNSEEN)
    concerned = pc.and_(pc.is_in(outcomes["interpreter"], alike), seen)
    judgement = pc.if_else(outcomes["within_natural"], UNCHANGED, CHANGED)
    place = outcomes.column_names.index("judgement")
    return outcomes.set_column(place, "judgement", pc.if_else(concerned, judgement, outcomes["judgement"]))


def _is_alike(outcomes: pa.Table, interpreter: str) -> bool:
    """Whether unrelated maps are often plausible, and natural variation is known, which says more."""
    alike = _unrelated(outcomes, interpreter) > INDISTINCT
    return alike and not rows_where(outcomes, interpreter=interpreter)["within_natural"].null_count


def _unrelated(outcomes: pa.Table, interpreter: str) -> float:
    """Share of pairs of unrelated benign maps that would be called plausible; 0 where it is not known."""
    beside = floors(outcomes, interpreter)
    return beside["unrelated"]["plausible"].value if "unrelated" in beside else 0.0


def missing_parts(outcomes: pa.Table, info: Mapping[str, Any]) -> list[str]:
    """Sentences that say what a partial run lacks."""
    if not outcomes.num_rows:
        return ["This run contains no outcome yet, so there is nothing to judge."]
    requested = info.get("selection", {}).get("requested")
    images = len(pc.unique(outcomes["id"]))
    expected = requested if requested is not None else images
    lacks = []
    for interpreter in dict.fromkeys(outcomes["interpreter"].to_pylist()):
        for each in _tallies(completed(outcomes), interpreter):
            if each.n < expected:
                lacks.append(
                    f"{attack_name(each.attack)} against {interpreter_name(interpreter)} covers {each.n} of {expected} "
                    "images."
                )
    return lacks


def _tally(rows: pa.Table, attack: str, solver: str, map_aware: bool, evades: str | None) -> Tally:
    """Count the endings of one attack against one interpreter."""
    success, judgement = rows["success"].to_numpy().astype(bool), np.array(rows["judgement"].to_pylist(), dtype=object)
    return Tally(
        attack=attack,
        solver=solver,
        map_aware=map_aware,
        evades=evades,
        n=len(success),
        endings={each: int((success & (judgement == each)).sum()) for each in (*DECEIVING, CHANGED, UNSEEN)},
        constant=int(rows["map_constant"].to_numpy().astype(bool).sum()),
        unseen=int((judgement == UNSEEN).sum()),
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _tallies(outcomes: pa.Table, interpreter: str) -> list[Tally]:
    """The plain attack and ADV² of every solver in the run, and what else was aimed at this interpreter."""
    ours = outcomes.filter(pc.is_in(outcomes["solver"], pa.array(SOLVERS)))
    held = set(ours["solver"].to_pylist()) or list(SOLVERS)[:1]
    facts: dict[str, Any] = {}
    for each in (SOLVERS[name] for name in held):
        facts |= {each.name: (each.name, False, None), each.map_aware: (each.name, True, None)}
    tried = rows_where(ours, interpreter=interpreter)
    columns = (tried[name].to_pylist() for name in ("attack", "solver", "map_aware", "evades"))
    facts |= {attack: its for attack, *its in zip(*columns, strict=True)}
    return [_tally(rows_where(tried, attack=attack), attack, *facts[attack]) for attack in in_order(facts)]


def _judge(outcomes: pa.Table, interpreter: str, words: Words) -> Verdict:
    unrelated = _unrelated(outcomes, interpreter)
    if words is HIDING and _is_alike(outcomes, interpreter):
        words = VARYING
    tallies = _tallies(outcomes, interpreter)
    basic = [each for each in tallies if each.basic]
    leading = max(basic, key=lambda each: (each.n > 0, each.seen > 0, each.share))
    told = sorted(tallies, key=_map_aware_first)
    return Verdict(
        interpreter=interpreter,
        headline=f"{_headline(interpreter_name(interpreter), leading, words)}.",
        sentences=tuple(_sentence(each, words) for each in told),
        cautions=(*_indistinct(unrelated, words), *_cautions(tallies, leading, words)),
        tallies=tuple(each for each in told if each.n),
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
    return list(SOLVERS).index(each.solver), each.evades is not None, not each.map_aware


def _headline(name: str, adv2: Tally, words: Words) -> str:
    """The strongest claim of which the interval of the share leaves no doubt, and what would decide the next."""
    if not adv2.n:
        return f"{name} has not been judged yet"
    if not adv2.fooled:
        return f"{name} was not put to the test"
    if not adv2.seen:
        return f"{name} had nothing to show"
    nearly_all, most, some, hardly_any = words.headlines
    low, high = wilson(adv2.plausible, adv2.seen)
    if low < MOST < high:
        return f"Whether {name} {words.doubt} is undecided on {_images(adv2.seen)}: {_deciding(adv2, MOST)}"
    if low >= NEARLY_ALL or high <= HARDLY_ANY:
        return f"{name} {nearly_all if low >= NEARLY_ALL else hardly_any}"
    claim = f"{name} {most if low >= MOST else some}"
    if HARDLY_ANY < adv2.share < NEARLY_ALL:
        return claim
    return f"{claim}; whether nearly always is undecided: {_deciding(adv2, NEARLY_ALL if low >= MOST else HARDLY_ANY)}"


def _deciding(tally: Tally, threshold: float) -> str:
    """How many images, of which as many are fooled and seen as of these, would decide at this share."""
    needed = images_to_decide(tally.share, threshold) * tally.n / tally.seen
    return (
        "at this share more images will not decide it"
        if isinf(needed)
        else f"about {ceil(needed)} images would decide it"
    )


def _images(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def _sentence(each: Tally, words: Words) -> str:
    """The counts behind the claim."""
    title = attack_name(each.attack)
    if not each.n:
        return f"There is no outcome of {title} in this run."
    if not each.fooled:
        return f"{title} fooled the classifier on none of {_images(each.n)}, so its maps say nothing."
    fooled = f"{title} fooled the classifier on {each.fooled} of {_images(each.n)}"
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
            f"Few images: judged on {_images(leading.seen)}, the true share of {words.counted} may be anywhere from "
            f"{percent(low)} to {percent(high)} (95 % interval)."
        )
    for each in tallies:
        if each.basic and each.fooled and each.failed:
            title = attack_name(each.attack)
            cautions.append(f"On {each.failed} of {each.n} images {title} failed; of these the verdict says nothing.")
    for each in tallies:
        if not each.map_aware and each.share >= MOST:
            cautions.append(words.unmoved.format(attack_name(each.attack)))
    if constant := sum(each.constant for each in tallies):
        noun = "map is" if constant == 1 else "maps are"
        cautions.append(f"{constant} {noun} constant and explain nothing; do not trust their IoU.")
    if leading.unseen:
        cautions.append(
            f"{_images(leading.unseen)} of {leading.n} counted apart: the {words.wanted} map spans less than "
            f"{percent(FAINT)} of the scale, so that nobody could tell whether it changed."
        )
    return cautions
