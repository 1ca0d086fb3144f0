"""The stages of run folders: append-only shards of named row tensors.

    runs/NAME/stages/KEY/           spec.json and shard-*.safetensors: image ids and row tensors

Shards are written to a temporary name and renamed, so a killed run leaves whole shards only: what is there is done.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from underfire.core.io import write_atomically, write_json
from underfire.core.types import UnderfireError


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


def _open_shard(path: Path) -> tuple[list[str], Any]:
    """The ids of a shard, and what gives its tensors by name."""
    try:
        shard: Any = safe_open(path, "pt")
        return json.loads(shard.metadata()["ids"]), shard
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as problem:
        raise UnderfireError(f"{path} is damaged ({problem}); delete it and run the command again.") from problem
