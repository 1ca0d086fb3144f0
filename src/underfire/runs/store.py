"""The stages of run folders: append-only shards of named row tensors.

    runs/NAME/stages/KEY/           spec.json and shard-*.safetensors: image ids and row tensors;
                                    index.json: the ids of each shard, once the stage has been computed;
                                    paused.safetensors while images are at work

Shards are written to a temporary name and renamed, so a killed run leaves whole shards only: what is there is done.
The index saves opening them: it is believed of files whose name and size it states. What it lacks is read from the
shards, so it may be deleted.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.io import read_json, write_atomically, write_bytes, write_json

OPEN_SHARDS = 256  # that a store keeps at hand
INDEX = "index.json"


@dataclass(frozen=True)
class Shard:
    """A file that holds rows of these ids; `stamp` is its size and when it was written."""

    path: Path
    stamp: tuple[int, int]
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """The rows of some ids, read as they are asked for by their places."""

    store: "Store"
    key: str
    name: str
    ids: tuple[str, ...]

    def __getitem__(self, places: slice | list[int]) -> Tensor:
        chosen = self.ids[places] if isinstance(places, slice) else [self.ids[place] for place in places]
        return self.store.read(self.key, self.name, chosen)


class Store:
    """The stages of one run folder. Which shard holds which ids is read once, as long as nothing changes there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, Shard] = {}
        self._listed: dict[str, tuple[int, tuple[Shard, ...]]] = {}  # the shards of each stage as of its last change
        self._indexed: dict[str, Mapping[str, Any]] = {}  # what the index of each stage said when it was first asked
        self._opened = lru_cache(OPEN_SHARDS)(lambda shard: _open(shard.path))

    def create(self, key: str, spec: Mapping[str, Any]) -> None:
        """Make room for a stage and record what it is."""
        path = self.root / "stages" / key / "spec.json"
        if not path.exists():
            write_json(path, spec)

    def done(self, key: str) -> tuple[str, ...]:
        """Ids that have rows, each once, in the order in which they were stored."""
        return tuple(dict.fromkeys(name for shard in self._shards(key) for name in shard.ids))

    def append(self, key: str, ids: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
        """Store rows for new ids as one shard."""
        ids = tuple(ids)
        before = self._shards(key)
        digest = hashlib.blake2b(json.dumps(ids).encode(), digest_size=6).hexdigest()
        path = self.root / "stages" / key / f"shard-{len(before):05d}-{digest}.safetensors"
        _save(path, ids, tensors)
        status = path.stat()
        self._known[path] = Shard(path, (status.st_size, status.st_mtime_ns), ids)
        self._listed[key] = path.parent.stat().st_mtime_ns, (*before, self._known[path])

    def index(self, key: str) -> None:
        """Write down which shard of a stage holds which ids, so that later starts need not open them."""
        entries = {each.path.name: {"bytes": each.stamp[0], "ids": each.ids} for each in self._shards(key)}
        if entries:
            write_bytes(self.root / "stages" / key / INDEX, json.dumps(entries, ensure_ascii=False).encode())

    def read(self, key: str, name: str, ids: Iterable[str]) -> Tensor:
        """The tensor `name` of a stage: its rows for these ids, in that order; other rows stay on the disk."""
        ids = list(ids)
        wanted, place, parts, count = set(ids), dict[str, int](), list[Tensor](), 0
        for shard in self._shards(key):
            here = [i for i, each in enumerate(shard.ids) if each in wanted]
            if here:
                first, last = here[0], here[-1] + 1
                place = {each: count + i for i, each in enumerate(shard.ids[first:last])} | place
                parts.append(self._opened(shard).get_slice(name)[first:last])
                count += last - first
                wanted -= place.keys()
        return torch.cat(parts)[[place[each] for each in ids]]

    def pause(self, key: str, ids: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep how far ids are that have no rows yet, in place of what was kept before."""
        _save(self._paused(key), tuple(ids), tensors)

    def paused(self, key: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
        """The ids of the last `pause` of a stage and what was kept of them; none where nothing is kept."""
        path = self._paused(key)
        if not path.exists():
            return (), {}
        file = _open(path)
        return _ids(path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def forget(self, key: str) -> None:
        """Remove what `pause` kept of a stage."""
        self._paused(key).unlink(missing_ok=True)

    def _paused(self, key: str) -> Path:
        return self.root / "stages" / key / "paused.safetensors"

    def _shards(self, key: str) -> tuple[Shard, ...]:
        """The shards of a stage in their order; its folder is listed again where something in it was written."""
        folder = self.root / "stages" / key
        if not folder.is_dir():
            return ()
        changed = folder.stat().st_mtime_ns
        if key not in self._listed or self._listed[key][0] != changed:
            paths = sorted(folder.glob("shard-*.safetensors"))
            self._listed[key] = changed, tuple(self._shard(path) for path in paths)
        return self._listed[key][1]

    def _shard(self, path: Path) -> Shard:
        status, known = path.stat(), self._known.get(path)
        stamp = status.st_size, status.st_mtime_ns
        if known is None or known.stamp != stamp:
            stated = self._index(path.parent).get(path.name, {}) if known is None else {}
            ids = tuple(stated["ids"]) if stated.get("bytes") == status.st_size else _ids(path)
            known = self._known[path] = Shard(path, stamp, ids)
        return known

    def _index(self, stage: Path) -> Mapping[str, Any]:
        if stage.name not in self._indexed:
            self._indexed[stage.name] = {}
            with suppress(UnderfireError):  # none yet, or damaged
                self._indexed[stage.name] = read_json(stage / INDEX)
        return self._indexed[stage.name]


def _save(path: Path, ids: tuple[str, ...], tensors: Mapping[str, Tensor]) -> None:
    rows = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(rows, temporary, metadata={"ids": json.dumps(ids)}))


def _open(path: Path) -> Any:
    """What gives a shard's tensors by name."""
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as problem:
        raise _damaged(path, problem) from problem


def _ids(path: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(_open(path).metadata()["ids"]))
    except (ValueError, TypeError, KeyError) as problem:
        raise _damaged(path, problem) from problem


def _damaged(path: Path, problem: Exception) -> UnderfireError:
    return UnderfireError(f"{path} is damaged ({problem}); delete it and run the command again.")
