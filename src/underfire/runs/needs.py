"""What a stage is computed from: tensors of other stages, by the part that they play.

    needs(Craft(targets, attack, benign, None))     # image, target and goal, each a Need

Most stages want the rows of the images at hand and no others. Few look at all images of a run, whoever's rows are
computed: they have a pool, and are computed in one piece.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from underfire.attacks import engine
from underfire.core.rows import in_parts
from underfire.runs.specs import (
    Believed,
    Bound,
    CalibratedNoise,
    Craft,
    Detect,
    Explain,
    ExplainElsewhere,
    ExplainRandomised,
    Identified,
    Pictured,
    RandomPoints,
    Repeat,
    Reported,
    Saved,
    Select,
    SignNoise,
    Spec,
    TargetClasses,
    TargetMaps,
    Vary,
    key,
)
from underfire.runs.store import Stored

SHARD = 64  # images that are computed in one piece, about
NOTHING_PAUSED = engine.Paused((), {})


@dataclass(frozen=True)
class Need:
    """A tensor of the stage of that key: its rows for the images at hand or, if pooled, for those of the pool.

    What is needed `on_demand` is not read before it is looked at, so that not all of it is in memory.
    """

    stage: str
    tensor: str
    pooled: bool = False
    on_demand: bool = False


@dataclass(frozen=True)
class WholePool:
    """The first n images that the stage of that key holds."""

    stage: str
    n: int


class Travelling:
    """Row tensors that go to another process as NumPy's arrays, where there is such a type: pickling a tensor takes far
    longer."""

    tensors: Mapping[str, Tensor]

    def __getstate__(self) -> dict[str, Any]:
        held = {name: rows.detach().cpu() for name, rows in self.tensors.items()}
        packed = {name: rows if rows.dtype is torch.bfloat16 else rows.numpy() for name, rows in held.items()}
        return {**vars(self), "tensors": packed}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        packed: Mapping[str, Any] = state["tensors"]
        held = {name: rows if isinstance(rows, Tensor) else torch.tensor(rows) for name, rows in packed.items()}
        vars(self).update({**state, "tensors": held})


@dataclass(frozen=True)
class StageInputs(Travelling):
    """The images at hand, what is needed of them by the part that it plays, and how far some of them are already."""

    ids: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    pool: tuple[str, ...] = ()
    paused: engine.Paused = NOTHING_PAUSED
    on_demand: Mapping[str, Stored] = field(default_factory=dict)

    def __getitem__(self, part: str) -> Tensor:
        return self.tensors[part]


def pool_of(spec: Spec) -> WholePool | None:
    """The images that all rows of a stage depend on, if there are such."""
    if isinstance(spec, CalibratedNoise):
        return WholePool(key(spec.of), spec.among)
    if isinstance(spec, TargetMaps) and spec.among is not None:
        return WholePool(key(spec.of.of), spec.among)
    return None


def shards(ids: tuple[str, ...], batch_size: int) -> Iterable[tuple[str, ...]]:
    """The images in pieces that are computed one at a time: whole batches, however many workers there are."""
    size = max(1, SHARD // batch_size) * batch_size
    return in_parts(ids, size)


@singledispatch
def needs(spec: Any) -> Mapping[str, Need]:
    """What a stage is computed from, by part; TypeError for a stage that is chosen and not computed."""
    raise TypeError(f"{type(spec).__name__} cannot be computed from ids")


@needs.register
def _(spec: TargetClasses | RandomPoints | ExplainRandomised) -> Mapping[str, Need]:
    return _rows(spec.of, "image", "label")


@needs.register
def _(spec: TargetMaps) -> Mapping[str, Need]:
    pooled = spec.among is not None
    return {
        "target": Need(key(spec.of), "target"),
        "label": Need(key(spec.of.of), "label", pooled),
        "benign": Need(key(spec.benign), "map", pooled),
    }


@needs.register
def _(spec: CalibratedNoise) -> Mapping[str, Need]:
    images = key(spec.of), "image"
    return {
        "pool's label": Need(key(spec.of), "label", pooled=True),
        "pool's image": Need(*images, pooled=True, on_demand=True),
        "image": Need(*images, on_demand=True),
    }


@needs.register
def _(spec: Explain | ExplainElsewhere) -> Mapping[str, Need]:
    return {"image": _image(spec.of), "class": _explained(spec.of)}


@needs.register
def _(spec: Vary | Repeat) -> Mapping[str, Need]:
    return {**_rows(spec.of.of, "image", "label"), "benign": Need(key(spec.of), "map")}


@needs.register
def _(spec: Believed) -> Mapping[str, Need]:
    craft = crafted(spec.of)
    return {
        "image": Need(key(craft), "image"),
        "target": Need(key(craft.of), "target"),
        "map": Need(key(spec.of), "map"),
    }


@needs.register
def _(spec: SignNoise) -> Mapping[str, Need]:
    return {"benign": Need(key(spec.of.of.of), "image"), "image": Need(key(spec.of), "image")}


@needs.register
def _(spec: Bound) -> Mapping[str, Need]:
    return {
        "image": Need(key(spec.of), "image"),
        "benign": Need(key(spec.targets.of), "image"),
        "target": Need(key(spec.targets), "target"),
    }


@needs.register
def _(spec: Saved) -> Mapping[str, Need]:
    targets = spec.of.of if isinstance(spec.of, Craft) else spec.of.targets
    return {"image": _image(spec), **({} if targets is None else _rows(targets, "target"))}


@needs.register
def _(spec: Reported) -> Mapping[str, Need]:
    return {"image": Need(spec.of, "image")}


@needs.register
def _(spec: Detect) -> Mapping[str, Need]:
    shown = [key(Reported(spec.of, each)) for each in spec.scorer.interpreters]
    seen = {f"{name} {i}": Need(stage, name) for i, stage in enumerate(shown) for name in ("predicted", "map")}
    return {"image": Need(spec.of, "image"), **seen}


@needs.register
def _(spec: Craft) -> Mapping[str, Need]:
    first = {
        "goal": spec.goal and Need(key(spec.goal), "map"),
        "anchor": spec.anchor and Need(key(spec.anchor), "probabilities"),
        "noise": spec.noise and Need(key(spec.noise), "map_l1"),
        "start": spec.start and Need(key(spec.start), "theta"),
    }
    return {**_rows(spec.of.of, "image"), **_rows(spec.of, "target"), **{k: v for k, v in first.items() if v}}


def left_of(spec: Identified, inputs: StageInputs, done: Collection[str]) -> StageInputs:
    """The inputs of those images alone that are not done."""
    left = [i for i, name in enumerate(inputs.ids) if name not in done]
    ids = tuple(inputs.ids[i] for i in left)
    pooled = {part for part, need in needs(spec).items() if need.pooled}
    tensors = {part: rows if part in pooled else rows[left] for part, rows in inputs.tensors.items()}
    paused = [place for place, i in enumerate(inputs.paused.index) if i in left]
    at_work = engine.Paused(
        tuple(left.index(inputs.paused.index[place]) for place in paused),
        {name: rows[paused] for name, rows in inputs.paused.rows.items()},
    )
    stored = {part: rows if part in pooled else replace(rows, ids=ids) for part, rows in inputs.on_demand.items()}
    return StageInputs(ids, tensors, inputs.pool, at_work, stored)


def crafted(maps: Explain) -> Craft:
    """The attack whose images are explained; TypeError if it is none."""
    if not isinstance(maps.of, Craft):
        raise TypeError(f"{type(maps.of).__name__} holds no attack")
    return maps.of


def _rows(spec: Spec, *names: str) -> dict[str, Need]:
    return {name: Need(key(spec), name) for name in names}


def _image(of: Pictured) -> Need:
    """The images of a stage; of those that were saved, as they were before."""
    return Need(key(of.of if isinstance(of, Saved) else of), "image")


def _explained(of: Pictured) -> Need:
    """The classes that maps of these images explain."""
    if isinstance(of, Select):
        return Need(key(of), "label")
    if isinstance(of, SignNoise):
        return _explained(of.of.of.of)
    return Need(key(of), "predicted")
