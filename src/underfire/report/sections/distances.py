"""How far maps moved: attacks on one axis with harmless changes of the same images and with maps of other images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import attack_name, in_order
from underfire.core.io import rows_where
from underfire.metrics.maps import PLAUSIBLE
from underfire.report.figures import Plot, Points, colour_of, strips
from underfire.report.wording import SHOWING, Words

BESIDE: Mapping[str, str] = {"natural": "harmless changes", "unrelated": "another image"}
YARDSTICK = "#8c8c8c"


class DistanceAxis(NamedTuple):
    """A metric of maps: the column of attacks, that of what they are held against, its label, a mark, its end."""

    column: str
    beside: str
    label: str
    mark: float | None
    most: float | None


@dataclass(frozen=True)
class MapDistances:
    """One interpreter: a plot for each metric; `beside` says whether there is anything to hold attacks against."""

    interpreter: str
    plots: tuple[tuple[str, Plot], ...]
    beside: bool


def compose(outcomes: pa.Table, words: Words) -> list[MapDistances]:
    """One per interpreter; where another map than the benign one is wanted, attacks stand by themselves."""
    most = pc.max(outcomes["map_l1"]).as_py() if outcomes.num_rows else None
    axes = (
        DistanceAxis("map_l1", "l1", f"ΔL1 to the {words.wanted} map", None, most),
        DistanceAxis("iou_mean", "iou", f"IoU with the {words.wanted} map", PLAUSIBLE, 1.0),
    )
    return [_distances(outcomes, name, axes, words) for name in dict.fromkeys(outcomes["interpreter"].to_pylist())]


def _distances(outcomes: pa.Table, interpreter: str, axes: tuple[DistanceAxis, ...], words: Words) -> MapDistances:
    rows = rows_where(outcomes, interpreter=interpreter)
    plots, held = [], set[str]()
    for axis in axes:
        beside = {} if words is SHOWING else _beside(rows, axis)
        plots.append((axis.label, strips({**_attacked(rows, axis), **beside}, axis.label, axis.mark, axis.most)))
        held |= beside.keys()
    return MapDistances(interpreter, tuple(plots), bool(held))


def _attacked(rows: pa.Table, axis: DistanceAxis) -> dict[str, Points]:
    """The values of a metric and the successes, for each attack for which it has any."""
    rows = rows.filter(pc.is_finite(rows[axis.column]))
    parts = {attack: rows_where(rows, attack=attack) for attack in in_order(rows["attack"].to_pylist())}
    return {attack_name(attack): _points(its, axis.column) for attack, its in parts.items()}


def _points(rows: pa.Table, column: str) -> Points:
    """Of one attack."""
    colour = colour_of(rows["map_aware"][0].as_py(), rows["evades"][0].as_py())
    return Points(rows[column].to_numpy(), rows["success"].to_numpy().astype(bool), colour)


def _beside(rows: pa.Table, axis: DistanceAxis) -> dict[str, Points]:
    """What distances are to be held against, each image counted once; nothing where it was not measured."""
    _, first = np.unique(rows["id"].to_pylist(), return_index=True)
    once, found = rows.take(pa.array(first)), dict[str, Points]()
    for name, title in BESIDE.items():
        column = f"{name}_{axis.beside}"
        if column in once.column_names and once[column].null_count < once.num_rows:
            values = once[column].drop_null().to_numpy()
            found[title] = Points(values, np.ones(len(values), dtype=bool), YARDSTICK)
    return found
