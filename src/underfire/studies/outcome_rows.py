"""The table of outcomes, made of what stages hold: one row per image x attack x interpreter.

    tables = outcome_table(interpreters, attacks, select, ids, store)       # one for each attack and interpreter

Attacks are ours or anybody's; columns that only ours can tell are null for those of others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from underfire.attacks.target_maps import NO_DONOR
from underfire.core.io import nullable
from underfire.core.rng import image_keys
from underfire.core.rows import in_parts
from underfire.core.types import Flags, Labels
from underfire.metrics.floors import between_images, natural, partners
from underfire.metrics.maps import compare_draws, is_faint, judged, l2, linf
from underfire.runs.needs import SHARD
from underfire.runs.outcomes import ON_FILE, outcomes_schema
from underfire.runs.plan import MeasuredAttack, PlannedInterpreter
from underfire.runs.specs import Craft, Given, Select, TargetMaps, key
from underfire.runs.store import Store
from underfire.studies.stage_rows import StageRows


def outcome_table(
    interpreters: tuple[PlannedInterpreter, ...],
    attacks: tuple[MeasuredAttack, ...],
    select: Select,
    ids: tuple[str, ...],
    store: Store,
) -> Iterator[pa.Table]:
    """One row per image x attack x interpreter, each attack's map against the target map and the benign one."""
    for shown in interpreters:
        beside = floors(shown, select, ids, store)
        for attack in attacks:
            if shown.name in attack.scored.maps:
                yield outcomes_of(attack, shown, select, ids, beside, store)


@dataclass(frozen=True)
class _Measured:
    """Some rows of the table but for their judgement, and what all rows of an attack are judged by."""

    table: pa.Table
    distance: Tensor
    overlap: Tensor
    noise: Tensor
    faint: Tensor


@dataclass(frozen=True)
class Floors:
    """What the distances of these images' maps are to be held against (see `metrics.floors`), by column."""

    ids: tuple[str, ...]
    columns: Mapping[str, pa.Array]


def outcomes_of(
    attack: MeasuredAttack,
    shown: PlannedInterpreter,
    select: Select,
    ids: tuple[str, ...],
    beside: Floors,
    store: Store,
) -> pa.Table:
    """The rows of one attack on some or all of the images of `beside`, which are read some at a time."""
    measured = [_measured(attack, shown, select, StageRows(part, store), beside.ids) for part in in_parts(ids, SHARD)]
    table = pa.concat_tables(each.table for each in measured)
    names = ("distance", "overlap", "noise", "faint")
    judgement = judged(*(torch.cat([getattr(each, name) for each in measured]) for name in names))
    place = table.column_names.index("judgement")
    table = table.set_column(place, table.schema.field(place), pa.array(judgement, pa.string()))
    return _with_floors(table, beside)


def _measured(
    attack: MeasuredAttack, shown: PlannedInterpreter, select: Select, rows: StageRows, everyone: tuple[str, ...]
) -> _Measured:
    made, goal, drawn, ids = attack.scored.images, shown.goal, attack.scored.maps[shown.name], rows.ids
    wanted, benign, label = rows.maps(shown.wanted), rows.maps(shown.benign), rows.of(select, "label")
    image, before = rows.of(made, "image"), rows.of(select, "image")
    distances, noise = _distances(rows.maps(drawn), wanted, benign), compare_draws(benign, benign)["map_l1"]
    donors = rows.of(goal, "donor").tolist() if isinstance(goal, TargetMaps) else [NO_DONOR] * len(ids)
    columns: dict[str, Any] = {
        "id": ids,
        "attack": [attack.name] * len(ids),
        "solver": [attack.solver] * len(ids),
        "map_aware": [attack.map_aware] * len(ids),
        "evades": [attack.evades] * len(ids),
        "interpreter": [shown.name] * len(ids),
        "class_true": label.tolist(),
        "class_predicted": rows.of(made, "predicted").tolist(),
        "confidence": rows.of(made, "confidence").tolist(),
        "success": rows.of(made, "success").tolist(),
        **nullable(distances),
        "target_map_of": [None if donor == NO_DONOR else everyone[donor] for donor in donors],
        "map_constant": rows.of(drawn[0], "constant").tolist(),
        "target_constant": rows.of(shown.wanted[0], "constant").tolist(),
        "repeat_l1": noise.tolist(),
        "linf": linf(image, before).tolist(),
        "l2": l2(image, before).tolist(),
        **_known(made, rows),
    }
    target = torch.tensor(columns["class_target"]) if "class_target" in columns else None
    for form, scored in attack.files.items():
        measured = _distances(rows.maps(scored.maps[shown.name]), wanted, benign)
        measured["confidence"] = rows.of(scored.images, "confidence")
        success = fooled(rows.of(scored.images, "predicted"), label, target)
        on_file = {"success": success.tolist(), **nullable(measured)}
        columns |= {f"{name}_{form}": on_file[name] for name in ON_FILE}
    schema = outcomes_schema()
    table = pa.table({**{name: pa.nulls(len(ids)) for name in schema.names}, **columns}, schema)
    return _Measured(table, distances["map_l1"], distances["iou_mean"], noise, is_faint(wanted[0]))


def fooled(predicted: Labels, label: Labels, target: Labels | None) -> Flags:
    """Whether the target class is reported or, where there is none, any but the true one."""
    return predicted != label if target is None else predicted == target


@singledispatch
def _known(made: Any, rows: StageRows) -> dict[str, Any]:
    """The columns of what is known of an attack beside its images."""
    raise TypeError(f"{type(made).__name__} holds no attacked images")


@_known.register
def _(made: Craft, rows: StageRows) -> dict[str, Any]:
    measured = made.attack.perturbation.measures(rows.of(made, "theta"))
    return {
        "class_target": rows.of(made.of, "target").tolist(),
        "success_last": rows.of(made, "success_last").tolist(),
        "steps": rows.of(made, "steps").tolist(),
        "reason": ["settled" if each else "budget" for each in rows.of(made, "settled").tolist()],
        **{name: each.tolist() for name, each in measured.items()},
    }


@_known.register
def _(made: Given, rows: StageRows) -> dict[str, Any]:
    return {} if made.targets is None else {"class_target": rows.of(made.targets, "target").tolist()}


def _distances(maps: list[Tensor], wanted: list[Tensor], benign: list[Tensor]) -> dict[str, Tensor]:
    """From the map that they should look like, and from the benign one."""
    to_benign = compare_draws(maps, benign)
    return {**compare_draws(maps, wanted), "benign_l1": to_benign["map_l1"], "benign_iou": to_benign["iou_mean"]}


def floors(shown: PlannedInterpreter, select: Select, ids: tuple[str, ...], store: Store) -> Floors:
    """Of all images of a run, whose maps are read some at a time."""

    def maps_at(places: Tensor) -> Tensor:
        return store.read(key(shown.benign[0]), "map", [ids[place] for place in places.tolist()])

    everyone = StageRows(ids, store)
    found = between_images(maps_at, partners(image_keys(ids), everyone.of(select, "label"), select.seed))
    if shown.variation is not None:
        found |= natural(*(everyone.of(shown.variation, name) for name in ("map_l1", "iou_mean")))
    return Floors(ids, nullable(found))


def _with_floors(table: pa.Table, beside: Floors) -> pa.Table:
    """The outcomes with the floors of their images."""
    place_of = {name: place for place, name in enumerate(beside.ids)}
    places = pa.array([place_of[name] for name in table["id"].to_pylist()], pa.int64())
    columns = {name: values.take(places) for name, values in beside.columns.items()}
    if "natural_l1" in columns:
        columns["within_natural"] = pc.less_equal(table["benign_l1"], columns["natural_l1"])
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), values)
    return table
