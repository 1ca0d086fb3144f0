"""Weight files: which tensors they hold, and which of them are a network's.

    weights = read_weights("checkpoint.pth")
    state = weights.of(network.state_dict())            # under whatever prefix a trainer put them

Files are data: safetensors, told by their content, or what torch.save writes, read with weights_only=True.
"""

import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from underfire.core.errors import UnderfireError, first_line

WRAPPED = re.compile(r"\.(?:module|_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)(?=\.)")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")
EXTRA = "_extra_state"  # of layers that keep more than tensors
COUNTER = "num_batches_tracked"  # of batch normalisation, missing in old files


@dataclass(frozen=True)
class Weights:
    """All tensors of a file, by their names in it, and the part of it that was asked for."""

    path: Path
    tensors: Mapping[str, Tensor]
    part: str = ""

    def of(self, names: Collection[str]) -> tuple[dict[str, Tensor], str]:
        """A state dict for a network whose state has these names, and under which name the file holds it.

        Tried in turn: names as they are, without what wraps a network (DataParallel, torch.compile), DenseNet's old
        ones; each below every prefix. Where none fits, what fits best. UnderfireError if two parts fit.
        """
        wanted = {name for name in names if not name.endswith(COUNTER)}
        best: dict[str, Tensor] = dict(self.tensors)
        for spelled in self._spellings():
            parts = {prefix: _below(prefix, spelled) for prefix in _prefixes(spelled, wanted)}
            fitting = {
                prefix: state
                for prefix, state in parts.items()
                if {name for name in state if not name.endswith(COUNTER)} == wanted
            }
            if len(fitting) > 1:
                held = " and ".join(sorted(prefix.rstrip(".") or "its top" for prefix in fitting))
                first = next(prefix.rstrip(".") for prefix in sorted(fitting) if prefix)
                raise UnderfireError(
                    f"{self.path} holds {len(fitting)} sets of weights that fit, {held}; name one of them as "
                    f"{self.path}:{first}."
                )
            for prefix, state in fitting.items():
                return state, prefix.rstrip(".")
            best = max((best, *parts.values()), key=lambda state: len(wanted & set(state)))
        return best, ""

    def _spellings(self) -> Iterator[Mapping[str, Tensor]]:
        chosen = _below(f"{self.part}.", self.tensors) if self.part else self.tensors
        yield chosen
        bare = {WRAPPED.sub("", f".{name}")[1:]: value for name, value in chosen.items()}
        yield bare
        yield {OLD_DENSENET.sub(r"\1\2", name): value for name, value in bare.items()}


def weight_file(text: str) -> tuple[Path, str] | None:
    """The file that the text names, with the part of it as in FILE:PART; None if it rather names weights."""
    path, (before, _, part) = Path(text), text.rpartition(":")
    if path.is_file():
        return path, ""
    if before and Path(before).is_file():
        return Path(before), part
    return (path, "") if path.suffix or len(path.parts) > 1 else None


def read_weights(path: Path, part: str = "") -> Weights:
    """The tensors in a safetensors or .pt/.pth file, without running any code that the file may hold."""
    if not path.is_file():
        raise UnderfireError(f"There is no weight file {path}.")
    try:
        content: Any = load_file(path) if _is_safetensors(path) else _unpickled(path)
    except UnderfireError:
        raise
    except Exception as problem:  # readers raise whatever a damaged file makes them stumble over
        raise UnderfireError(
            f"{path} cannot be read as weights (a damaged file, or one that holds more than tensors): "
            f"{first_line(problem)}"
        ) from problem
    tensors = dict(_flattened(content)) if isinstance(content, dict) else {}
    if part and not _below(f"{part}.", tensors):
        raise UnderfireError(f"{path} has no part '{part}'; it has {', '.join(map(str, content))}.")
    if not tensors:
        raise UnderfireError(f"{path} contains no state dict; save the network's state_dict() to it.")
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UnderfireError(f"{path} holds fewer numbers than its tensor {name} claims; save it contiguous.")
    return Weights(path, tensors, part)


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _unpickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise UnderfireError(f"{path} claims more bytes than it has; save it with torch.save.")
    return torch.load(path, map_location="cpu", weights_only=True)


def _flattened(content: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Tensors of nested dictionaries, by names joined with dots."""
    for key, value in content.items():
        if isinstance(value, Tensor) or str(key).endswith(EXTRA):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth < 3:
            yield from _flattened(value, f"{prefix}{key}.", depth + 1)


def _prefixes(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> list[str]:
    """What stands before the network's names, in the order of the file."""
    some = max(wanted, key=len, default="")
    ends = (name for name in tensors if name == some or name.endswith(f".{some}"))
    return [name.removesuffix(some) for name in ends]


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
