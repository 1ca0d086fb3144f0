"""Many stages at once, by workers: whatever is ready is begun as soon as one of them is free.

    for planned, seconds in dispatch(stages, ids, store, context, crew, on_step): ...

The pieces are those of `underfire.runs.driver`, so that rows are the same bits; a piece is ready when the store holds
what it needs. Stages with a pool are computed here. This process alone reads and writes the store.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

from torch import Tensor

from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.core.rows import in_parts
from underfire.runs.compute import Context, compute_as_fits
from underfire.runs.driver import pieces, read_inputs, run_stage
from underfire.runs.needs import StageInputs, Travelling, needs, pool_of
from underfire.runs.plan import Planned
from underfire.runs.specs import Craft, Identified, describe, key
from underfire.runs.store import Store

TRIES = 3  # of a piece, before it is left out


@dataclass(frozen=True)
class Computed(Travelling):
    """Rows of some images."""

    ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Ended:
    """A worker is free again; `problem` says why it did not finish, if it did not."""

    problem: str | None = None


Event = Computed | Progress | Ended


@runtime_checkable
class Crew(Protocol):
    """Workers that compute pieces of stages, known by their places."""

    @property
    def places(self) -> Collection[int]:
        """Of all that are there, at work or free."""
        ...

    def begin(self, place: int, spec: Identified, inputs: StageInputs, batch_size: int) -> None:
        """Have a free worker compute rows."""
        ...

    def heard(self) -> Iterable[tuple[int, Event]]:
        """What workers have done since; waits until there is something. The last event of a piece is Ended."""
        ...

    def drop(self) -> None:
        """Make whoever is at work free again."""
        ...


@dataclass(frozen=True, eq=False)
class Piece:
    """Images of a stage that are computed in one go, and how often that has failed."""

    planned: Planned
    ids: tuple[str, ...]
    failures: int = 0

    @cached_property
    def stage(self) -> str:
        return key(self.planned.spec)

    @cached_property
    def pooled(self) -> bool:
        """Whether it is computed from all images."""
        return pool_of(self.planned.spec) is not None

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The stages that it is computed from."""
        return tuple({need.stage for need in needs(self.planned.spec).values()})

    @property
    def steps(self) -> int:
        """That an image takes; maps and the like count as one."""
        spec = self.planned.spec
        return spec.attack.steps if isinstance(spec, Craft) else 1


def dispatch(
    stages: Iterable[Planned],
    ids: tuple[str, ...],
    store: Store,
    context: Context,
    crew: Crew,
) -> Iterator[tuple[Planned, float]]:
    """Compute and store what stages lack; each with the seconds that workers spent on it, as soon as it is complete.

    UnderfireError, once all else is computed, names the images of pieces that failed `TRIES` times.
    """
    yield from _Shift(tuple(stages), ids, store, context, crew).work()


def compute_parts(
    spec: Identified, parts: Sequence[StageInputs], context: Context, crew: Crew | None
) -> list[Mapping[str, Tensor]]:
    """What is computed of each part, whose rows come all at once, in their order; by a crew where there is one.

    Nothing is stored.

    UnderfireError if workers fail `TRIES` times on a part.
    """
    if crew is None:
        return [tensors for part in parts for _, tensors in compute_as_fits(spec, part, context)]
    found, failures = dict[int, Mapping[str, Tensor]](), Counter[int]()
    waiting, at_work = list(range(len(parts))), dict[int, int]()
    try:
        while waiting or at_work:
            for place in crew.places:
                if waiting and place not in at_work:
                    at_work[place] = waiting.pop(0)
                    crew.begin(place, spec, parts[at_work[place]], context.batch_size)
            for place, event in crew.heard():
                if isinstance(event, Computed):
                    found[at_work[place]] = event.tensors
                elif isinstance(event, Ended):
                    number = at_work.pop(place)
                    if event.problem is not None:
                        waiting.append(number)
                        failures[number] += 1
                    if failures[number] == TRIES:
                        raise UnderfireError(f"Workers failed {TRIES} times: {event.problem}")
    finally:
        crew.drop()
    return [found[number] for number in range(len(parts))]


class _Shift:
    """What is waiting, at work and done."""

    def __init__(
        self, stages: tuple[Planned, ...], ids: tuple[str, ...], store: Store, context: Context, crew: Crew
    ) -> None:
        self._ids, self._store, self._context, self._crew = ids, store, context, crew
        self._held = dict[str, set[str]]()
        self._waiting = [piece for planned in stages for piece in self._pieces(planned)]
        self._open = Counter(piece.stage for piece in self._waiting)
        self._at_work = dict[int, tuple[Piece, float]]()
        self._failed = list[tuple[Piece, str]]()
        self._seconds = defaultdict[str, float](float)
        self._overall = _Overall(context.on_step, self._waiting, len(stages))

    def work(self) -> Iterator[tuple[Planned, float]]:
        try:
            while True:
                yield from self._compute_pooled()
                self._assign()
                if not self._at_work and self._ready() is None:
                    break
                for place, event in self._crew.heard():
                    yield from self._take(place, event)
        finally:
            self._crew.drop()
        if self._failed:
            raise _what_failed(self._failed)

    def _pieces(self, planned: Planned) -> Iterator[Piece]:
        missing = set(self._ids) - self._rows_of(key(planned.spec))
        if missing:
            self._store.create(key(planned.spec), describe(planned.spec))
        for part in pieces(planned.spec, self._ids, missing, self._context.batch_size):
            yield Piece(planned, part)

    def _rows_of(self, stage: str) -> set[str]:
        if stage not in self._held:
            self._held[stage] = set(self._store.done(stage))
        return self._held[stage]

    def _is_ready(self, piece: Piece) -> bool:
        wanted = self._ids if piece.pooled else piece.ids
        return all(self._rows_of(stage).issuperset(wanted) for stage in piece.needed)

    def _compute_pooled(self) -> Iterator[tuple[Planned, float]]:
        """Stages that look at all images are computed by this process."""
        for piece in [each for each in self._waiting if each.pooled and self._is_ready(each)]:
            begun = time.perf_counter()
            self._waiting.remove(piece)
            unheard = replace(self._context, on_step=lambda progress: None)
            run_stage(piece.planned.spec, self._ids, self._store, unheard)
            self._stored(piece, piece.ids)
            yield from self._closed(piece, time.perf_counter() - begun)

    def _ready(self) -> Piece | None:
        """What a worker can begin, the first in the order of the plan."""
        ready = (each for each in self._waiting if not each.pooled and self._is_ready(each))
        return next(ready, None)

    def _assign(self) -> None:
        """Begin what is ready as long as there is a free worker."""
        for place in self._crew.places:
            if place not in self._at_work and (piece := self._ready()) is not None:
                self._waiting.remove(piece)
                self._at_work[place] = piece, time.perf_counter()
                inputs = read_inputs(piece.planned.spec, piece.ids, self._store)
                self._crew.begin(place, piece.planned.spec, inputs, self._context.batch_size)

    def _take(self, place: int, event: Event) -> Iterator[tuple[Planned, float]]:
        piece, begun = self._at_work[place]
        if isinstance(event, Computed):
            self._store.append(piece.stage, event.ids, event.tensors)
            self._stored(piece, event.ids)
        elif isinstance(event, Progress):
            self._overall.advance(piece, event)
        else:
            del self._at_work[place]
            if event.problem is not None:
                self._retry(piece, event.problem)
            yield from self._closed(piece, time.perf_counter() - begun)

    def _stored(self, piece: Piece, ids: tuple[str, ...]) -> None:
        self._rows_of(piece.stage).update(ids)
        self._overall.store(piece, len(ids))

    def _retry(self, piece: Piece, problem: str) -> None:
        """Before everything else, batch by batch, so that one image costs no more than its batch."""
        left = tuple(name for name in piece.ids if name not in self._rows_of(piece.stage))
        batches = in_parts(left, self._context.batch_size)
        again = [Piece(piece.planned, batch, piece.failures + 1) for batch in batches]
        self._open[piece.stage] += len(again)
        if piece.failures + 1 < TRIES:
            self._waiting[:0] = again
        else:
            self._failed += [(each, problem) for each in again]

    def _closed(self, piece: Piece, seconds: float) -> Iterator[tuple[Planned, float]]:
        self._seconds[piece.stage] += seconds
        self._open[piece.stage] -= 1
        self._overall.end(piece)
        if not self._open[piece.stage]:
            self._store.index(piece.stage)
            yield piece.planned, self._seconds[piece.stage]


class _Overall:
    """The progress of all stages together, in steps; rows count as images once for each stage."""

    def __init__(self, on_step: Callable[[Progress], None], everything: list[Piece], stages: int) -> None:
        self._on_step, self._stages = on_step, stages
        self._planned = sum(piece.steps * len(piece.ids) for piece in everything)
        self._within = dict[Piece, int]()  # steps of images at work
        self._steps = self._rows = 0

    def advance(self, piece: Piece, progress: Progress) -> None:
        """A worker is so far with its piece."""
        done = piece.steps * len(piece.ids) * progress.steps // max(1, progress.planned_steps)
        self._within[piece] = max(0, done - piece.steps * progress.images)
        self._say()

    def store(self, piece: Piece, rows: int) -> None:
        self._within[piece] = 0
        self._rows += rows
        self._steps += piece.steps * rows
        self._say()

    def end(self, piece: Piece) -> None:
        self._within.pop(piece, None)

    def _say(self) -> None:
        steps = self._steps + sum(self._within.values())
        self._on_step(Progress(self._rows // self._stages, 0, steps, self._planned))


def _what_failed(failed: list[tuple[Piece, str]]) -> UnderfireError:
    sentences = [
        f"{piece.planned.label} failed {TRIES} times on {', '.join(piece.ids)}: {problem}" for piece, problem in failed
    ]
    return UnderfireError(f"{' '.join(sentences)} All that does not depend on it is stored; run the command again.")
