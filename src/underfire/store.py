"""Run folders: append-only shards of named row tensors by stage, and the table of outcomes.

    runs/NAME/run.json              what was asked for, by which versions, how long it took
    runs/NAME/stages/KEY/           spec.json and shard-*.safetensors: image ids and row tensors
    runs/NAME/outcomes.parquet      one row per image x attack x interpreter

Runs that stand beside each other in one folder can share its stages/.

Everything is written to a temporary name and renamed, so a killed run leaves whole shards only: what
is there is done.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from underfire.core.io import read_json, write_atomically, write_json
from underfire.core.types import UnderfireError
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import DISTANCES, PLAUSIBLE

OUTCOMES = "outcomes.parquet"
SHARED = "shares_stages"  # in run.json: whether the stages are in the folder around the run's


class Store:
    """The stages of one run folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, key: str, spec: Mapping[str, Any]) -> None:
        """Make room for a stage and record what it is."""
        path = self.root / "stages" / key / "spec.json"
        if not path.exists():
            write_json(path, spec)

    def done(self, key: str) -> tuple[str, ...]:
        """Ids that have rows, in the order in which they were stored."""
        return tuple(name for shard in self._shards(key) for name in _open_shard(shard)[0])

    def append(self, key: str, ids: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
        """Store rows for new ids as one shard."""
        ids = list(ids)
        number = len(self._shards(key))
        digest = hashlib.blake2b(json.dumps(ids).encode(), digest_size=6).hexdigest()
        path = self.root / "stages" / key / f"shard-{number:05d}-{digest}.safetensors"
        rows = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_atomically(path, lambda temporary: save_file(rows, temporary, metadata={"ids": json.dumps(ids)}))

    def read(self, key: str, name: str, ids: Iterable[str]) -> Tensor:
        """The tensor `name` of a stage: its rows for these ids, in that order; other rows stay on the disk."""
        ids = list(ids)
        wanted, rows = set(ids), dict[str, Tensor]()
        for path in self._shards(key):
            held, shard = _open_shard(path)
            stored = shard.get_slice(name)
            rows |= {each: stored[i] for i, each in enumerate(held) if each in wanted}
        return torch.stack([rows[each] for each in ids])

    def _shards(self, key: str) -> list[Path]:
        return sorted((self.root / "stages" / key).glob("shard-*.safetensors"))


@dataclass(frozen=True)
class Run:
    """A run folder as other programs read it; see `open_run`."""

    path: Path

    @property
    def info(self) -> dict[str, Any]:
        """run.json: command, spec, versions, seed, device, model, wall times, and which stage holds what."""
        return read_json(self.path / "run.json")

    @property
    def shares_stages(self) -> bool:
        """Whether run.json says that the run is one of several in a folder, whose stages they share."""
        return self.info.get(SHARED) is True

    @property
    def store(self) -> Store:
        """The stages: in the run's own folder or, where they are shared, in the folder around it."""
        return Store(self.path.absolute().parent if self.shares_stages else self.path)

    def outcomes(self) -> pa.Table:
        """One row per image x attack x interpreter; empty where nothing was measured yet."""
        path = self.path / OUTCOMES
        if not path.exists():
            return COLUMNS_SCHEMA.empty_table()
        try:
            return pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as problem:
            raise UnderfireError(f"{path} is damaged; delete it and run the command again.") from problem

    def images(
        self, attack: str = "benign", interpreter: str | None = None, only: Collection[str] | None = None
    ) -> "Rows":
        """(ids, float32 N3HW in [0, 1]); `interpreter` says which map the attack was after, if any.

        `only` asks for some ids, here and in `maps`; by default for all.
        """
        return self._rows("image", "image", attack, interpreter, only)

    def thetas(self, attack: str, interpreter: str | None = None) -> "Rows":
        """(ids, float32): what the attack moved, pixels N3HW or, by StAdv, a flow N2HW (see `perturbations.Flow`)."""
        if attack == "benign":
            raise UnderfireError("No attack moved the benign images, so they have no thetas; name an attack.")
        return self._rows("image", "theta", attack, interpreter)

    def maps(self, attack: str, interpreter: str, only: Collection[str] | None = None) -> "Rows":
        """(ids, float32 Nhw): benign maps explain the true class, an attack's the target class.

        Attack "target" names the target maps of a run in which they are not the benign ones.
        """
        return self._rows("map", "map", attack, interpreter, only)

    def _rows(
        self, kind: str, tensor: str, attack: str, interpreter: str | None, only: Collection[str] | None = None
    ) -> "Rows":
        stages = [e for e in self.info.get("stages", ()) if e["kind"] == kind and e["attack"] == attack]
        fitting = [e for e in stages if interpreter is None or e["interpreter"] in (interpreter, None)]
        if len(fitting) > 1:
            names = ", ".join(e["interpreter"] for e in fitting)
            raise UnderfireError(f"Attack '{attack}' was run against {names}: say which one with interpreter=.")
        store = self.store
        stored = set(store.done(fitting[0]["key"])) if fitting else set()
        if not stored:
            against = "" if interpreter is None else f" against '{interpreter}'"
            raise UnderfireError(f"The run {self.path} holds no {tensor}s of attack '{attack}'{against}.")
        benign = next(e["key"] for e in self.info["stages"] if (e["kind"], e["attack"]) == ("image", "benign"))
        ids = tuple(name for name in store.done(benign) if name in stored and (only is None or name in only))
        return ids, store.read(fitting[0]["key"], tensor, ids).float().numpy()


Rows = tuple[tuple[str, ...], npt.NDArray[np.float32]]

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


def open_run(path: str | Path) -> Run:
    """The run in a folder; UnderfireError if there is none."""
    if not (Path(path) / "run.json").is_file():
        raise UnderfireError(f"{path} holds no run (no run.json); start one with: underfire attack --out {path}")
    return Run(Path(path))


def is_targeted(info: Mapping[str, Any]) -> bool:
    """Whether run.json says that maps were to look like something else than the benign ones."""
    return bool(info.get("spec", {}).get("target_map", "benign") != "benign")


def _open_shard(path: Path) -> tuple[list[str], Any]:
    """The ids of a shard, and what gives its tensors by name."""
    try:
        shard: Any = safe_open(path, "pt")
        return json.loads(shard.metadata()["ids"]), shard
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as problem:
        raise UnderfireError(f"{path} is damaged ({problem}); delete it and run the command again.") from problem


FLOW = ("flow_mean", "flow_smoothness")  # of attacks that bend images


MEASURED = (*DISTANCES, "benign_l1", "repeat_l1", "linf", "success_8bit", *FLOW)


@dataclass(frozen=True)
class Summary:
    """One attack against one interpreter: averages over all images and over the successful ones alone."""

    interpreter: str
    attack: str
    asr: Estimate
    mc: Estimate  # mean confidence of the successes
    all_images: Mapping[str, Estimate]  # "plausible", and of MEASURED what the table holds
    successes: Mapping[str, Estimate]


def summarise(outcomes: pa.Table) -> list[Summary]:
    """One Summary per (interpreter, attack) in the order in which they first appear in the table."""
    pairs = dict.fromkeys(zip(*(outcomes[name].to_pylist() for name in ("interpreter", "attack")), strict=True))
    return [_summarise(outcomes, interpreter, attack) for interpreter, attack in pairs]


def _summarise(outcomes: pa.Table, interpreter: str, attack: str) -> Summary:
    chosen = pc.and_(pc.equal(outcomes["interpreter"], interpreter), pc.equal(outcomes["attack"], attack))
    rows = outcomes.filter(chosen)
    success = rows["success"].to_numpy().astype(bool)
    measured = [name for name in MEASURED if name in rows.column_names and not rows[name].null_count]
    values = {name: rows[name].to_numpy() for name in measured}
    values["plausible"] = values["iou_mean"] > PLAUSIBLE
    return Summary(
        interpreter=interpreter,
        attack=attack,
        asr=mean_interval(success),
        mc=mean_interval(rows["confidence"].to_numpy()[success]),
        all_images={name: mean_interval(column) for name, column in values.items()},
        successes={name: mean_interval(column[success]) for name, column in values.items()},
    )
