"""The store's one writer: reads what stages need, has their rows computed, and stores them.

    run_stage(spec, ids, store, context)

A stage is computed shard by shard, so that no more than one shard's images are in memory at a time.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from torch import Tensor

from underfire.attacks import engine
from underfire.attacks.engine import Progress
from underfire.runs.compute import Context, compute_as_fits
from underfire.runs.needs import NOTHING_PAUSED, StageInputs, needs, pool_of, shards
from underfire.runs.specs import Craft, Spec, describe, key
from underfire.runs.store import Store, Stored


def run_stage(spec: Spec, ids: tuple[str, ...], store: Store, context: Context) -> bool:
    """Compute and store the rows of these ids that the store lacks; False if it lacks none."""
    missing = set(ids) - set(store.done(key(spec)))
    if missing:
        store.create(key(spec), describe(spec))
        tally = StageProgress(context.on_step, len(missing))
        for part in pieces(spec, ids, missing, context.batch_size):
            _run_piece(spec, part, store, replace(context, on_step=tally.of(len(part))))
        store.index(key(spec))
    return bool(missing)


def pieces(spec: Spec, ids: tuple[str, ...], missing: Collection[str], batch_size: int) -> Iterator[tuple[str, ...]]:
    """Those of a stage's ids that are missing, as they are computed: by shards or, where it has a pool, at once."""
    for shard in shards(ids, batch_size) if pool_of(spec) is None else [ids]:
        if part := tuple(name for name in shard if name in missing):
            yield part


def read_inputs(spec: Spec, ids: tuple[str, ...], store: Store) -> StageInputs:
    """What the store holds of all that these rows are computed from."""
    pool = pool_of(spec)
    pooled = () if pool is None else store.done(pool.stage)[: pool.n]
    tensors, on_demand = dict[str, Tensor](), dict[str, Stored]()
    for part, need in needs(spec).items():
        rows = Stored(store, need.stage, need.tensor, pooled if need.pooled else ids)
        if need.on_demand:
            on_demand[part] = rows
        else:
            tensors[part] = rows[:]
    paused = _paused(spec, ids, store) if isinstance(spec, Craft) else NOTHING_PAUSED
    return StageInputs(ids, tensors, pooled, paused, on_demand)


def _run_piece(spec: Spec, ids: tuple[str, ...], store: Store, context: Context) -> None:
    """What is at work when it is killed goes on from its last quantum."""

    def pause(at_work: engine.Paused) -> None:
        store.pause(key(spec), [ids[i] for i in at_work.index], at_work.rows)

    for part, tensors in compute_as_fits(spec, read_inputs(spec, ids, store), replace(context, on_pause=pause)):
        store.append(key(spec), part, tensors)
    store.forget(key(spec))


def _paused(spec: Craft, ids: tuple[str, ...], store: Store) -> engine.Paused:
    """How far those of these images are that were at work when they were last computed."""
    names, held = store.paused(key(spec))
    here = [place for place, name in enumerate(names) if name in ids]
    return engine.Paused(tuple(ids.index(names[i]) for i in here), {name: leaf[here] for name, leaf in held.items()})


class StageProgress:
    """The progress of a stage of so many images, which is computed a part at a time."""

    def __init__(self, on_step: Callable[[Progress], None], total: int) -> None:
        self._on_step, self._total = on_step, total
        self._before = self._now = Progress(0, 0, 0, 0)

    def of(self, part: int) -> Callable[[Progress], None]:
        """Who hears of the progress of the next part, of so many images; later ones are taken to cost as much."""
        self._before = _sum(self._before, self._now)
        later = self._total - self._before.images - part

        def on_step(progress: Progress) -> None:
            self._now, done = progress, _sum(self._before, progress)
            planned = done.planned_steps + progress.planned_steps * later // part
            self._on_step(replace(done, planned_steps=planned))

        return on_step


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(*(a + b for a, b in zip(vars(one).values(), vars(other).values(), strict=True)))
