"""The table of outcomes: one row per image x attack x interpreter, and its averages."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from underfire.attacks.names import SOLVERS, attacker
from underfire.core.io import rows_where
from underfire.data.corruptions import FILES
from underfire.metrics.intervals import Estimate, mean_interval, share
from underfire.metrics.maps import DECEIVING, DISTANCES, PLAUSIBLE, UNSEEN, judged

OUTCOMES = "outcomes.parquet"

# what is measured again on images as a file gives them back, a column for each of FILES
ON_FILE: Mapping[str, pa.DataType] = {
    "success": pa.bool_(),
    "confidence": pa.float64(),
    "map_l1": pa.float64(),
    "map_l2": pa.float64(),
    "iou_mean": pa.float64(),
    "benign_l1": pa.float64(),
    "benign_iou": pa.float64(),
}

_COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "attack": pa.string(),
    "solver": pa.string(),  # how it moves images
    "map_aware": pa.bool_(),  # whether it is after a map
    "evades": pa.string(),  # the detector that it hides from, if any
    "interpreter": pa.string(),
    "class_true": pa.int64(),
    "class_target": pa.int64(),
    "class_predicted": pa.int64(),
    "confidence": pa.float64(),
    "success": pa.bool_(),
    "map_l1": pa.float64(),
    "map_l2": pa.float64(),
    "iou_mean": pa.float64(),
    "iou_half": pa.float64(),
    "iou_top15": pa.float64(),  # these three are null where neither map has such a cell
    "judgement": pa.string(),  # "unchanged", "plausible", "changed" or "nothing to see"; see `metrics.maps`
    "benign_l1": pa.float64(),  # mean |map - benign map|
    "benign_iou": pa.float64(),
    "target_map_of": pa.string(),  # the image whose benign map is the target map, where it is another one's
    "map_constant": pa.bool_(),
    "target_constant": pa.bool_(),  # the map it should look like shows nothing
    "repeat_l1": pa.float64(),  # of two maps of the same benign image: the interpreter's own noise
    "natural_l1": pa.float64(),  # to the benign map under harmless changes of the image; 95 % of them stay within it
    "natural_iou": pa.float64(),
    "within_natural": pa.bool_(),  # benign_l1 is no larger
    "unrelated_l1": pa.float64(),  # between the benign map and that of another image
    "unrelated_iou": pa.float64(),
    "mean_map_l1": pa.float64(),  # between the benign map and the mean of all others
    "mean_map_iou": pa.float64(),
    "linf": pa.float64(),
    "l2": pa.float64(),  # length of the change, over all values of the image
    "success_last": pa.bool_(),  # of the last iterate; all other columns are of the best one
    **{f"{measure}_{form}": kind for form in FILES for measure, kind in ON_FILE.items()},
    "steps": pa.int64(),
    "reason": pa.string(),
}


def outcomes_schema() -> pa.Schema:
    """The columns of the table; those that solvers measure of their own follow l2 and are null for others' attacks.

    The unit of each is said where it is measured (see `Perturbation.measures`).
    """
    schema = pa.schema(list(_COLUMNS.items()))
    place = schema.get_field_index("l2") + 1
    for name in reversed(_own_columns()):
        schema = schema.insert(place, pa.field(name, pa.float64()))
    return schema


def _own_columns() -> list[str]:
    return [name for solver in SOLVERS.values() for name in solver.columns]


COLUMNS_SCHEMA = outcomes_schema()


FLAGS = ("success_last", *(f"success_{form}" for form in ("float", *FILES)), "within_natural")
FLOORS = ("natural", "unrelated", "mean_map")  # see `metrics.floors`
MEASURED = (
    *DISTANCES,
    "benign_l1",
    "benign_iou",
    "repeat_l1",
    "linf",
    "l2",
    *FLAGS,
    *(f"{measure}_{form}" for form in ("float", *FILES) for measure in ON_FILE if measure != "success"),
    *_own_columns(),
)


@dataclass(frozen=True)
class AttackSummary:
    """One attack against one interpreter: averages over all images and over the successful ones alone.

    Both hold "unseen", the share of images whose map had nothing to show, "plausible", the share of unchanged or
    plausible maps among the others, and of MEASURED what the table holds.
    """

    interpreter: str
    attack: str
    solver: str | None  # None if the attack is not one of ours
    map_aware: bool | None
    evades: str | None
    asr: Estimate
    mc: Estimate  # mean confidence of the successes
    all_images: Mapping[str, Estimate]
    successes: Mapping[str, Estimate]


def summarise(outcomes: pa.Table) -> list[AttackSummary]:
    """One AttackSummary per (interpreter, attack) in the order in which they first appear in the table."""
    outcomes = completed(outcomes)
    pairs = dict.fromkeys(zip(*(outcomes[name].to_pylist() for name in ("interpreter", "attack")), strict=True))
    return [_summarise(rows_where(outcomes, interpreter=name, attack=attack)) for name, attack in pairs]


def floors(outcomes: pa.Table, interpreter: str) -> dict[str, dict[str, Estimate]]:
    """What an interpreter's distances and overlaps are to be held against, each image counted once.

    Each of FLOORS that was measured has "map_l1", "iou_mean" and "plausible".
    """
    rows = rows_where(outcomes, interpreter=interpreter)
    held = [name for name in FLOORS if f"{name}_l1" in rows.column_names]
    held = [name for name in held if rows[f"{name}_iou"].null_count < rows.num_rows]
    _, first = np.unique(rows["id"].to_pylist(), return_index=True)
    rows = rows.take(pa.array(first))
    return {name: _floor(*(rows[f"{name}_{measure}"].to_numpy() for measure in ("l1", "iou"))) for name in held}


def _floor(distance: npt.NDArray[Any], overlap: npt.NDArray[Any]) -> dict[str, Estimate]:
    alike = share(overlap[~np.isnan(overlap)] > PLAUSIBLE)
    means = {
        name: mean_interval(each, within=(0.0, inf)) for name, each in (("map_l1", distance), ("iou_mean", overlap))
    }
    return {**means, "plausible": alike}


def quoted(outcomes: pa.Table) -> pa.Table:
    """The table as it is quoted: with what images are once they are saved as PNG files in place of what they are as
    floats, which moves to columns of its own, as in "success_float".

    As it is where that was not measured, by versions before 0.2.
    """
    outcomes = completed(outcomes)
    if "map_l1_png" not in outcomes.column_names or outcomes["map_l1_png"].null_count == outcomes.num_rows:
        return outcomes
    for name in ON_FILE:
        outcomes = outcomes.append_column(f"{name}_float", outcomes[name])
        outcomes = _with(outcomes, name, outcomes[f"{name}_png"])
    outcomes = _with(outcomes, "within_natural", pc.less_equal(outcomes["benign_l1"], outcomes["natural_l1"]))
    return _judged(outcomes, pc.equal(outcomes["judgement"], UNSEEN))


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def completed(outcomes: pa.Table) -> pa.Table:
    """The table with the columns that tables of versions before 0.2 lack, or call otherwise: facts of attacks,
    judgements, and whether an attack lasts in 8 bits."""
    names = {"success_8bit": "success_png"}
    outcomes = outcomes.rename_columns([names.get(name, name) for name in outcomes.column_names])
    if "solver" not in outcomes.column_names:
        outcomes = _with_facts(outcomes)
    if "judgement" in outcomes.column_names:
        return outcomes
    return _judged(
        outcomes.append_column("judgement", pa.nulls(outcomes.num_rows, pa.string())), outcomes["target_constant"]
    )


def _with_facts(outcomes: pa.Table) -> pa.Table:
    """What attacks' names say; null where a name is not one of ours."""
    known = [attacker(name) for name in outcomes["attack"].to_pylist()]
    facts = {
        "solver": [each and each.solver.name for each in known],
        "map_aware": [each and each.map_aware for each in known],
        "evades": [each and each.evades for each in known],
    }
    for name, values in facts.items():
        outcomes = outcomes.append_column(name, pa.array(values, _COLUMNS[name]))
    return outcomes


def _judged(outcomes: pa.Table, blank: pa.ChunkedArray) -> pa.Table:
    """The table with its maps judged by its own numbers; there is nothing to see in the blank ones."""
    names = ("map_l1", "iou_mean", "repeat_l1")
    found, faint = np.empty(outcomes.num_rows, dtype=object), torch.tensor(blank.to_numpy())
    pairs = np.array([f"{row['interpreter']} {row['attack']}" for row in outcomes.to_pylist()])
    for pair in np.unique(pairs):
        here = pairs == pair
        distance, overlap, noise = (torch.tensor(outcomes[name].to_numpy()[here]) for name in names)
        found[here] = judged(distance, overlap, noise, faint[torch.from_numpy(here)])
    return _with(outcomes, "judgement", pa.array(found, pa.string()))


def _summarise(rows: pa.Table) -> AttackSummary:
    success = rows["success"].to_numpy().astype(bool)
    everything, judgement = np.ones_like(success), np.array(rows["judgement"].to_pylist(), dtype=object)
    measured = [name for name in MEASURED if name in rows.column_names and rows[name].null_count < rows.num_rows]
    columns = {name: rows[name].to_numpy() for name in measured}
    all_images = _averages(columns, judgement, everything)
    return AttackSummary(
        **{name: rows[name][0].as_py() for name in ("interpreter", "attack", "solver", "map_aware", "evades")},
        asr=share(success),
        mc=mean_interval(rows["confidence"].to_numpy()[success], within=(0.0, 1.0)),
        all_images=all_images,
        successes=all_images if success.all() else _averages(columns, judgement, success),
    )


def _averages(
    columns: Mapping[str, npt.NDArray[Any]], judgement: npt.NDArray[Any], chosen: npt.NDArray[np.bool_]
) -> dict[str, Estimate]:
    """Shares of flags and means of numbers over the chosen rows."""
    seen = chosen & (judgement != UNSEEN)
    shares = {"plausible": share(np.isin(judgement[seen], DECEIVING)), "unseen": share(~seen[chosen])}
    return shares | {
        name: share(values[chosen]) if name in FLAGS else mean_interval(values[chosen], within=(0.0, inf))
        for name, values in columns.items()
    }
