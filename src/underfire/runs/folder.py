"""A run folder as its readers find it.

    runs/NAME/run.json              what was asked for, by which versions, how long it took
    runs/NAME/stages/KEY/           the stages' rows (see `underfire.runs.store`)
    runs/NAME/outcomes.parquet      the table (see `underfire.runs.outcomes`)

Runs that stand beside each other in one folder can share its stages/.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from underfire.core.errors import UnderfireError
from underfire.core.io import read_json
from underfire.runs.outcomes import COLUMNS_SCHEMA, OUTCOMES
from underfire.runs.store import Store

SHARED = "shares_stages"  # in run.json: whether the stages are in the folder around the run's
CHOSEN = "chosen"  # in run.json: the ids of the chosen images, each with a hash of its content


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

    @cached_property
    def store(self) -> Store:
        """The stages: in the run's own folder or, where they are shared, in the folder around it."""
        return Store(self.path.absolute().parent if self.shares_stages else self.path)

    @property
    def ids(self) -> tuple[str, ...]:
        """The chosen images that are stored, in the order of the choice."""
        stages = self.info["stages"]
        return self.stored(next(e["key"] for e in stages if (e["kind"], e["attack"]) == ("image", "benign")))

    def stored(self, key: str) -> tuple[str, ...]:
        """Those of the run's images of which a stage holds rows, in the order of the choice."""
        done = self.store.done(key)
        held = set(done)
        return tuple(name for name in self.info.get(CHOSEN, done) if name in held)

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

        `only` asks for some ids, here and elsewhere; by default for all.
        """
        return self._rows("image", "image", attack, interpreter, only)

    def thetas(self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None) -> "Rows":
        """(ids, float32): what the attack moved, pixels N3HW or, by StAdv, a flow N2HW (see `perturbations.Flow`)."""
        if attack == "benign":
            raise UnderfireError("No attack moved the benign images, so they have no thetas; name an attack.")
        return self._rows("image", "theta", attack, interpreter, only)

    def maps(self, attack: str, interpreter: str, only: Collection[str] | None = None) -> "Rows":
        """(ids, float32 Nhw): benign maps explain the true class, an attack's the class that is reported.

        Where an interpreter draws, these are its first of several draws that score.

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
            raise UnderfireError(f"The run {self.path} has no {tensor}s of attack '{attack}'{against}.")
        ids = tuple(name for name in self.ids if name in stored and (only is None or name in only))
        if not ids:
            return (), np.empty(0, np.float32)
        return ids, store.read(fitting[0]["key"], tensor, ids).float().numpy()


Rows = tuple[tuple[str, ...], npt.NDArray[np.float32]]


def open_run(path: str | Path) -> Run:
    """The run in a folder; UnderfireError if there is none."""
    if not (Path(path) / "run.json").is_file():
        raise UnderfireError(f"{path} contains no run (no run.json); start one with: underfire attack --out {path}")
    return Run(Path(path))


def is_targeted(info: Mapping[str, Any]) -> bool:
    """Whether run.json says that maps were to look like something else than the benign ones."""
    return bool(info.get("spec", {}).get("target_map", "benign") != "benign")
