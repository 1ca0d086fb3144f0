"""Honesty flags: what speaks against the numbers of an audit, each with the number that raised it and its limit.

for flag in flags(Case(trail, outcomes, walk, settings, classifier)): ...
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from underfire.attacks.names import attack_name, attacker, interpreter_name
from underfire.core.io import rows_where
from underfire.core.text import capital, counted
from underfire.interpreters.adapters.adapter import Adapter
from underfire.interpreters.adapters.probe import AGREES, probe
from underfire.metrics.betrayal import Definition, plausible
from underfire.metrics.intervals import FEW, mean_interval
from underfire.metrics.maps import UNSEEN, rank_correlation
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AuditSettings
from underfire.runs.outcomes import quoted
from underfire.runs.specs import Believed, ExplainRandomised, Spec, key
from underfire.studies.audit_walk import RANDOMISED, Trail, Walk
from underfire.studies.audits import Flag

INSENSITIVE = 0.5  # share of maps that PGD leaves plausible
NOISY = 0.25  # own noise, as a share of what ADV2 leaves
STALE, LEAST = 2.0, 0.01  # times the own noise, which counts for at least as much
LATE = 0.1  # by which the last fifth of the steps brought the median closer


@dataclass(frozen=True)
class Case:
    """One interpreter before its flags: the walk before it, and its rows of the outcomes."""

    trail: Trail
    outcomes: pa.Table
    walk: Walk
    settings: AuditSettings
    classifier: Classifier

    @cached_property
    def plain(self) -> pa.Table:
        return quoted(rows_where(self.outcomes, attack=self.trail.plain.name))

    @cached_property
    def first(self) -> pa.Table:
        return quoted(rows_where(self.outcomes, attack=self.trail.first.name))

    def read(self, spec: Spec, name: str) -> torch.Tensor:
        return self.walk.store.read(key(spec), name, self.trail.ids)

    @property
    def name(self) -> str:
        return interpreter_name(self.trail.shown.name)

    @property
    def noise(self) -> float:
        return float(self.first["repeat_l1"].to_numpy().mean())


def plausible_maps(rows: pa.Table, form: str = "") -> dict[Definition, npt.NDArray[np.bool_]]:
    """By each definition the rows whose map nobody would notice; `form` names files, as in "_jpeg95"."""
    unseen = np.array(rows["judgement"].to_pylist(), dtype=object) == UNSEEN
    moved, overlap = (rows[f"{name}{form}"].to_numpy() for name in ("benign_l1", "benign_iou"))
    return plausible(moved, overlap, rows["natural_l1"].to_numpy(), unseen)


def flags(case: Case) -> Iterator[Flag]:
    """All of them, raised or not."""
    yield _insensitive(case)
    yield _unlearned(case)
    yield _own_noise(case)
    yield _stale_belief(case)
    yield from _truncated(case)
    yield _ignorance_wins(case)
    yield from _black_box_wins(case)
    yield _not_monotone(case)
    yield _eight_bits(case)
    yield _few_images(case)
    yield _clipped_selection(case)
    yield _steps_not_enough(case)


def _insensitive(of: Case) -> Flag:
    left = float(plausible_maps(of.plain)[of.trail.definition].mean())
    says = f"PGD, which ignores the map, leaves {left:.0%} of {of.name}'s maps plausible"
    more = ": it hardly reacts, and hiding from it takes no effort" if left > INSENSITIVE else ""
    return _over("interpreter insensitive", left, INSENSITIVE, f"{says}{more}.")


def _unlearned(of: Case) -> Flag:
    """Sanity check (Adebayo et al. 2018): maps of a classifier with random weights, and those of other images.

    The limit is the upper end of the interval of the latter's correlation, paired image by image.
    """
    shown = of.trail.shown
    maps = of.read(shown.benign[0], "map")
    random = of.read(ExplainRandomised(of.walk.plan.select, shown.interpreter, RANDOMISED, of.settings.seed), "map")
    alike, others = (rank_correlation(maps, each).numpy() for each in (random, maps.roll(1, 0)))
    number, more = float(alike.mean()), mean_interval(alike - others)
    limit = number - (more.low if more.has_interval else more.value)
    says = f"maps of a classifier with random weights correlate with {of.name}'s by {number:.2f}"
    return _over("weights do not matter", number, limit, f"{says}, those of other images by {limit:.2f} at most.")


def _own_noise(of: Case) -> Flag:
    limit = NOISY * float(np.mean(of.first["benign_l1"].to_numpy()))
    says = f"two maps of one image are {of.noise:.3f} apart, a quarter of what ADV² leaves is {limit:.3f}"
    return _over("own noise", of.noise, limit, f"{says}.")


def _stale_belief(of: Case) -> Flag:
    maps = next(
        each.scored.maps[of.trail.shown.name] for each in of.walk.plan.attacks if each.craft == of.trail.first.craft
    )
    apart, limit = float(of.read(Believed(maps[0]), "map_l1").mean()), STALE * max(of.noise, LEAST)
    says = f"the attacker's maps of what it returned are {apart:.3f} from the deployed ones"
    more = ": it may not know what it attacks" if apart > limit else ""
    return _over("stale belief", apart, limit, f"{says}{more}.")


def _truncated(of: Case) -> Iterator[Flag]:
    """Of explanations that are not ours."""
    interpreter = of.trail.shown.interpreter
    if isinstance(interpreter, Adapter):
        height, width = of.walk.store.read(key(of.walk.plan.select), "image", of.trail.ids[:1]).shape[2:]
        cosine = probe(interpreter, of.classifier, (height, width)).cosine
        says = "no gradient" if cosine is None else f"a gradient of cosine {cosine:.2f} to that of differences"
        sentence = f"the attacker follows {of.name} by {says}; with less than {AGREES:g} attacks may be too weak."
        yield Flag(
            name="gradient truncated",
            raised=cosine is None or cosine < AGREES,
            number=cosine,
            limit=AGREES,
            sentence=capital(sentence),
        )


def _ignorance_wins(of: Case) -> Flag:
    """White box must do what an attack does that knows nothing of the interpreter."""
    trail = of.trail
    aware = {name for each in trail.members for name in each.betrays(trail.definition)}
    only = [name for name in trail.plain.betrays(trail.definition) if name not in aware]
    says = f"{counted(len(only), 'image')} betrayed by PGD and by no attack that is after the map"
    return _over("ignorance wins", len(only), 0, f"{says}.")


def _black_box_wins(of: Case) -> Iterator[Flag]:
    """Where a suite asks queries: whoever follows gradients must do what is done without."""
    by = {each.name: set(each.betrays(of.trail.definition)) for each in of.trail.everything}
    asking = {name for name in by if (known := attacker(name)) and known.solver.counts == "queries"}
    if asking:
        others = set[str]().union(*(ids for name, ids in by.items() if name not in asking))
        only = set[str]().union(*(by[name] for name in asking)) - others
        says = f"{counted(len(only), 'image')} betrayed by queries alone and by no attack with gradients"
        yield _over("black box beats white box", len(only), 0, f"{says}.")


def _not_monotone(of: Case) -> Flag:
    lost, n = len(of.trail.lost), of.trail.doubled
    return _over("budget not monotone", lost, 0, f"{lost} of {n} betrayed images are not within twice the budget.")


def _eight_bits(of: Case) -> Flag:
    rows, definition = rows_where(of.outcomes, attack=of.trail.first.name), of.trail.definition
    unrounded = rows["success"].to_numpy().astype(bool) & plausible_maps(rows)[definition]
    rounded = of.first["success"].to_numpy().astype(bool) & plausible_maps(of.first)[definition]
    lost = int((unrounded & ~rounded).sum())
    return _over("8 bits", lost, 0, f"{counted(lost, 'image')} betrayed as numbers and not as a PNG file.")


def _few_images(of: Case) -> Flag:
    n = len(of.trail.ids)
    return Flag(name="few images", raised=n < FEW, number=n, limit=FEW, sentence=f"Judged on {counted(n, 'image')}.")


def _clipped_selection(of: Case) -> Flag:
    n, asked = len(of.trail.ids), of.settings.n
    sentence = f"{counted(n, 'image')} of {asked} asked for were found."
    return Flag(name="clipped selection", raised=n < asked, number=n, limit=asked, sentence=sentence)


def _steps_not_enough(of: Case) -> Flag:
    """Over the images that took all steps and were fooled before the last fifth of them, by the attacker's reading."""
    craft = of.trail.first.craft
    closest, before = (of.read(craft, name).double() for name in ("closest", "closest_before"))
    chosen = ~of.read(craft, "settled") & (before < 1)
    late = float(before[chosen].median()) if chosen.any() else 0.0
    gain = 1 - float(closest[chosen].median()) / late if late else 0.0
    says = f"the last fifth of the steps of {attack_name(of.trail.first.name)} brought the median map {gain:.0%} closer"
    return _over("steps not enough", gain, LATE, f"{says}.")


def _over(name: str, number: float | int, limit: float | int, sentence: str) -> Flag:
    return Flag(name=name, raised=number > limit, number=number, limit=limit, sentence=capital(sentence))
