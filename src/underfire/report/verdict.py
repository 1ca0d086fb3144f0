"""The verdict in words: would the explanation have warned you, or was it fooled too?

Every image under attack ends in one of three ways: the classifier was not fooled; it was fooled and the
map changed visibly, so whoever looks at the map is warned; or it was fooled and the map stayed plausible.
Where another map than the benign one was wanted, "plausible" is the map that looks like the wanted one.
The headline follows the ADV² that keeps the largest share of maps plausible, of those of all solvers in the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import MAP_AWARE, PAIRS, PLAIN, attack_name, attacker, in_order, interpreter_name
from underfire.metrics.intervals import wilson
from underfire.metrics.maps import PLAUSIBLE
from underfire.report.wording import HIDING, Words

FEW = 100  # images below which the verdict carries a caution


@dataclass(frozen=True)
class Tally:
    """How the images of one attack against one interpreter ended."""

    attack: str
    n: int
    fooled: int
    plausible: int  # fooled, and the map stayed plausible
    constant: int  # maps without any structure
    blank: int  # target maps without any structure

    @property
    def changed(self) -> int:
        return self.fooled - self.plausible

    @property
    def failed(self) -> int:
        return self.n - self.fooled

    @property
    def share(self) -> float:
        return self.plausible / self.fooled if self.fooled else 0.0


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
    return [_judge(outcomes, name, words) for name in dict.fromkeys(outcomes["interpreter"].to_pylist())]


def missing_parts(outcomes: pa.Table, info: Mapping[str, Any]) -> list[str]:
    """Sentences that say what a partial run lacks."""
    if not outcomes.num_rows:
        return ["This run holds no outcome yet, so there is nothing to judge."]
    requested = info.get("selection", {}).get("requested")
    images = len(pc.unique(outcomes["id"]))
    expected = requested if requested is not None else images
    lacks = []
    for interpreter in dict.fromkeys(outcomes["interpreter"].to_pylist()):
        for each in _tallies(outcomes, interpreter):
            if each.n < expected:
                lacks.append(
                    f"{attack_name(each.attack)} against {interpreter_name(interpreter)} covers {each.n} of {expected} "
                    "images."
                )
    return lacks


def tally(outcomes: pa.Table, interpreter: str, attack: str) -> Tally:
    """Count the endings of one attack against one interpreter."""
    chosen = pc.and_(pc.equal(outcomes["interpreter"], interpreter), pc.equal(outcomes["attack"], attack))
    rows = outcomes.filter(chosen)
    success = rows["success"].to_numpy().astype(bool)
    plausible = success & (rows["iou_mean"].to_numpy() > PLAUSIBLE)
    constant, blank = (int(rows[name].to_numpy().astype(bool).sum()) for name in ("map_constant", "target_constant"))
    return Tally(attack, len(success), int(success.sum()), int(plausible.sum()), constant, blank)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _tallies(outcomes: pa.Table, interpreter: str) -> list[Tally]:
    """The plain attack and ADV² of every solver in the run, and what else was aimed at this interpreter."""
    against = outcomes.filter(pc.equal(outcomes["interpreter"], interpreter))
    tried, held = (
        [attack for attack in dict.fromkeys(table["attack"].to_pylist()) if attacker(attack)]
        for table in (against, outcomes)
    )
    bases = {known.base for attack in held if (known := attacker(attack))}
    expected = [attack for pair in PAIRS if bases & set(pair) for attack in pair] or PAIRS[0]
    return [tally(outcomes, interpreter, attack) for attack in in_order([*expected, *tried])]


def _judge(outcomes: pa.Table, interpreter: str, words: Words) -> Verdict:
    tallies = _tallies(outcomes, interpreter)
    basic = [each for each in tallies if each.attack in MAP_AWARE]
    leading = max(basic, key=lambda each: (each.n > 0, each.fooled > 0, each.share))
    told = sorted(tallies, key=_map_aware_first)
    return Verdict(
        interpreter=interpreter,
        headline=f"{interpreter_name(interpreter)} {_headline(leading, words)}.",
        sentences=tuple(_sentence(each, words) for each in told),
        cautions=tuple(_cautions(tallies, leading, words)),
        tallies=tuple(each for each in told if each.n),
    )


def _map_aware_first(each: Tally) -> tuple[int, bool, bool]:
    """Solver by solver ADV², the plain attack, and then the others in their order."""
    known = attacker(each.attack)
    assert known is not None
    return known.order[0], known.adaptive, known.plain


def _headline(adv2: Tally, words: Words) -> str:
    """The claim, by the share of fooled images whose map stayed plausible."""
    if not adv2.n:
        return "has not been judged yet"
    if not adv2.fooled:
        return "was not put to the test"
    nearly_all, most, some, hardly_any = words.headlines
    if adv2.share >= 0.9:
        return nearly_all
    if adv2.share >= 0.5:
        return most
    return some if adv2.share > 0.1 else hardly_any


def _sentence(each: Tally, words: Words) -> str:
    """The counts behind the claim."""
    title = attack_name(each.attack)
    if not each.n:
        return f"There is no outcome of {title} in this run."
    if not each.fooled:
        return f"{title} fooled the classifier on none of {each.n} images, so its maps say nothing."
    kept = words.left if each.attack in PLAIN else words.kept
    whole = f"on {each.plausible}" if each.fooled == each.n else f"on {each.plausible} of those {each.fooled}"
    return (
        f"{title} fooled the classifier on {each.fooled} of {each.n} images and {kept} {whole} ({percent(each.share)})."
    )


def _cautions(tallies: list[Tally], leading: Tally, words: Words) -> list[str]:
    """What keeps the claim from being read as more than it is."""
    cautions = []
    if 0 < leading.fooled < FEW:
        low, high = wilson(leading.plausible, leading.fooled)
        images = "1 image" if leading.fooled == 1 else f"{leading.fooled} images"
        cautions.append(
            f"Few images: judged on {images}, the true share of {words.counted} may be anywhere from "
            f"{percent(low)} to {percent(high)} (95 % interval)."
        )
    for each in tallies:
        if each.attack in MAP_AWARE and each.fooled and each.failed:
            title = attack_name(each.attack)
            cautions.append(f"On {each.failed} of {each.n} images {title} failed; of these the verdict says nothing.")
    for each in tallies:
        if each.attack in PLAIN and each.fooled and each.share >= 0.5:
            cautions.append(words.unmoved.format(attack_name(each.attack)))
    if constant := sum(each.constant for each in tallies):
        noun = "map is" if constant == 1 else "maps are"
        cautions.append(f"{constant} {noun} constant and explain nothing; do not trust their IoU.")
    if leading.blank:
        one, several = words.blank
        cautions.append(one if leading.blank == 1 else several.format(leading.blank))
    return cautions
