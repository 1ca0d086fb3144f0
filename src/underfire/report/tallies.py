"""How the images under attack ended, counted for each attack and interpreter.

Every image ends in one of four ways: the classifier was not fooled; it was fooled and the map changed visibly, so
whoever looks at the map is warned; it was fooled and the map stayed plausible or did not move at all; or there is
nothing to see in the benign map, and the image is counted apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import SOLVERS, in_order
from underfire.core.io import rows_where
from underfire.metrics.floors import INDISTINCT
from underfire.metrics.maps import CHANGED, DECEIVING, UNCHANGED, UNSEEN
from underfire.report.wording import HIDING, Words
from underfire.runs.outcomes import floors


@dataclass(frozen=True)
class Tally:
    """How the images of one attack against one interpreter ended."""

    attack: str
    solver: str | None  # None, like map_aware, if the attack is not one of ours
    map_aware: bool | None
    evades: str | None
    n: int
    endings: Mapping[str, int]  # how many fooled the classifier with a map of each judgement
    constant: int  # maps without any structure
    unseen: int  # maps that should look like one in which there is nothing to see, fooled or not

    @property
    def basic(self) -> bool:
        """Whether it is ADV² against one interpreter and no detector."""
        return bool(self.map_aware) and self.evades is None

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


def place_of(each: Tally) -> int:
    """That of its solver; attacks of others come last."""
    return len(SOLVERS) if each.solver is None else list(SOLVERS).index(each.solver)


def told_apart(outcomes: pa.Table, words: Words) -> pa.Table:
    """The table in which maps of interpreters whose unrelated maps are alike are judged by natural variation alone."""
    alike = pa.array([name for name in pc.unique(outcomes["interpreter"]).to_pylist() if is_alike(outcomes, name)])
    if words is not HIDING or not len(alike):
        return outcomes
    seen = pc.not_equal(outcomes["judgement"], UNSEEN)
    concerned = pc.and_(pc.is_in(outcomes["interpreter"], alike), seen)
    judgement = pc.if_else(outcomes["within_natural"], UNCHANGED, CHANGED)
    place = outcomes.column_names.index("judgement")
    return outcomes.set_column(place, "judgement", pc.if_else(concerned, judgement, outcomes["judgement"]))


def is_alike(outcomes: pa.Table, interpreter: str) -> bool:
    """Whether unrelated maps are often plausible, and natural variation is known, which says more."""
    alike = unrelated_share(outcomes, interpreter) > INDISTINCT
    return alike and not rows_where(outcomes, interpreter=interpreter)["within_natural"].null_count


def unrelated_share(outcomes: pa.Table, interpreter: str) -> float:
    """Share of pairs of unrelated benign maps that would be called plausible; 0 where it is not known."""
    beside = floors(outcomes, interpreter)
    return beside["unrelated"]["plausible"].value if "unrelated" in beside else 0.0


def tallies_of(outcomes: pa.Table, interpreter: str) -> list[Tally]:
    """The plain attack and ADV² of every solver in the run, and what else was aimed at this interpreter; where there is
    no attack of ours, those of others."""
    ours = outcomes.filter(pc.is_in(outcomes["solver"], pa.array(SOLVERS)))
    ours, held = (ours, set(ours["solver"].to_pylist())) if ours.num_rows else (outcomes, set[str]())
    facts: dict[str, Any] = {}
    for each in (SOLVERS[name] for name in held):
        facts |= {each.name: (each.name, False, None), each.map_aware: (each.name, True, None)}
    tried = rows_where(ours, interpreter=interpreter)
    columns = (tried[name].to_pylist() for name in ("attack", "solver", "map_aware", "evades"))
    facts |= {attack: its for attack, *its in zip(*columns, strict=True)}
    return [_tally(rows_where(tried, attack=attack), attack, *facts[attack]) for attack in in_order(facts)]


def _tally(rows: pa.Table, attack: str, solver: str | None, map_aware: bool | None, evades: str | None) -> Tally:
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
