"""The table of outcomes: one row per image x attack x interpreter, and its averages."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import DISTANCES, PLAUSIBLE

OUTCOMES = "outcomes.parquet"


COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "attack": pa.string(),
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
    "iou_top15": pa.float64(),
    "benign_l1": pa.float64(),  # mean |map - benign map|
    "target_map_of": pa.string(),  # the image whose benign map is the target map, where it is another one's
    "map_constant": pa.bool_(),
    "target_constant": pa.bool_(),  # the map it should look like shows nothing
    "repeat_l1": pa.float64(),  # of two maps of the same benign image: the interpreter's own noise
    "linf": pa.float64(),
    "flow_mean": pa.float64(),  # mean distance in pixels over which pixels were moved; null where none was
    "flow_smoothness": pa.float64(),  # l_flow of Eq. 14, likewise
    "success_8bit": pa.bool_(),
    "steps": pa.int64(),
    "reason": pa.string(),
}


COLUMNS_SCHEMA = pa.schema(list(COLUMNS.items()))


FLOW = ("flow_mean", "flow_smoothness")  # of attacks that bend images


MEASURED = (*DISTANCES, "benign_l1", "repeat_l1", "linf", "success_8bit", *FLOW)


@dataclass(frozen=True)
class AttackSummary:
    """One attack against one interpreter: averages over all images and over the successful ones alone."""

    interpreter: str
    attack: str
    asr: Estimate
    mc: Estimate  # mean confidence of the successes
    all_images: Mapping[str, Estimate]  # "plausible", and of MEASURED what the table holds
    successes: Mapping[str, Estimate]


def summarise(outcomes: pa.Table) -> list[AttackSummary]:
    """One AttackSummary per (interpreter, attack) in the order in which they first appear in the table."""
    pairs = dict.fromkeys(zip(*(outcomes[name].to_pylist() for name in ("interpreter", "attack")), strict=True))
    return [_summarise(outcomes, interpreter, attack) for interpreter, attack in pairs]


def _summarise(outcomes: pa.Table, interpreter: str, attack: str) -> AttackSummary:
    chosen = pc.and_(pc.equal(outcomes["interpreter"], interpreter), pc.equal(outcomes["attack"], attack))
    rows = outcomes.filter(chosen)
    success = rows["success"].to_numpy().astype(bool)
    measured = [name for name in MEASURED if name in rows.column_names and not rows[name].null_count]
    values = {name: rows[name].to_numpy() for name in measured}
    values["plausible"] = values["iou_mean"] > PLAUSIBLE
    return AttackSummary(
        interpreter=interpreter,
        attack=attack,
        asr=mean_interval(success),
        mc=mean_interval(rows["confidence"].to_numpy()[success]),
        all_images={name: mean_interval(column) for name, column in values.items()},
        successes={name: mean_interval(column[success]) for name, column in values.items()},
    )
