"""Two run folders side by side: every row of every stage, bit by bit."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from underfire.runs.folder import Run


def contents(out: Path) -> dict[tuple[str, str, str], bytes]:
    """Every row of every stage, bit by bit: {(stage, tensor, image): bytes}."""
    rows = {}
    for path in out.glob("stages/*/shard-*.safetensors"):
        with safe_open(path, "np") as shard:
            ids = json.loads(shard.metadata()["ids"])
            for name in sorted(shard.keys()):
                for id, row in zip(ids, shard.get_tensor(name), strict=True):
                    assert (path.parent.name, name, id) not in rows, f"{id} was stored twice in {path.parent}"
                    rows[path.parent.name, name, id] = np.ascontiguousarray(row).tobytes()
    return rows


def same(one: Run, other: Run) -> bool:
    passing = {"command", "created", "folder", "wall_seconds"}
    one_info, other_info = ({k: v for k, v in run.info.items() if k not in passing} for run in (one, other))
    return contents(one.path) == contents(other.path) and one.outcomes() == other.outcomes() and one_info == other_info
