"""take / put / where over row records: frozen dataclasses and tuples, nested at will, whose leaves have N rows each.

A leaf is a tensor with leading dimension N, or None where there is nothing to hold.

Lets the engine move images between slots without knowing what an attack remembers about them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

R = TypeVar("R")
T = TypeVar("T")


def take(record: R, index: Tensor) -> R:
    """The rows at `index`, in that order."""
    return _map(lambda leaf: leaf[index], record)


def put(record: R, index: Tensor, values: R) -> R:
    """A copy of `record` whose rows at `index` are those of `values`."""
    return _map(lambda leaf, new: leaf.index_copy(0, index, new), record, values)


def by_batch(compute: Callable[..., Tensor], batch_size: int, *tensors: Tensor) -> Tensor:
    """`compute` on so many rows of these row tensors at a time, joined again.

    The last batch is filled up with the first rows, so that all are of one size and none rounds as another would.
    """
    total = len(tensors[0])
    size = min(batch_size, total)
    indices = [torch.arange(start, start + size) % total for start in range(0, total, size)]
    return torch.cat([compute(*(tensor[index] for tensor in tensors)) for index in indices])[:total]


def in_parts(items: tuple[T, ...], size: int) -> Iterator[tuple[T, ...]]:
    """So many of them at a time, in their order; the last part may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))


def where(condition: Tensor, yes: R, no: R) -> R:
    """Row by row: `yes` where the condition (N,) holds, else `no`."""
    return _map(lambda a, b: torch.where(condition.view(-1, *[1] * (a.ndim - 1)), a, b), yes, no)


def to(record: R, device: torch.device) -> R:
    """The same rows on another device."""
    return _map(lambda leaf: leaf.to(device), record)


def leaves(record: Any) -> dict[str, Tensor]:
    """The tensors of a record by their path, as in "best.theta"."""
    if record is None:
        return {}
    if isinstance(record, Tensor):
        return {"": record}
    return {
        f"{name}.{path}".removesuffix("."): leaf for name, each in _parts(record) for path, leaf in leaves(each).items()
    }


def with_leaves(record: R, tensors: Mapping[str, Tensor], path: str = "") -> R:
    """The record with these tensors at their paths, and its own wherever there is none; the inverse of `leaves`."""
    if record is None or isinstance(record, Tensor):
        return cast(R, tensors.get(path, record))
    parts = {name: with_leaves(each, tensors, f"{path}.{name}".removeprefix(".")) for name, each in _parts(record)}
    return cast(R, tuple(parts.values()) if isinstance(record, tuple) else type(record)(**parts))


def _parts(record: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(record, tuple):
        return ((str(place), each) for place, each in enumerate(record))
    return ((f.name, getattr(record, f.name)) for f in dataclasses.fields(record))


def cat(records: list[R]) -> R:
    """All rows of several records, one after another."""
    return _map(lambda *leaves: torch.cat(leaves), *records)


def _map(function: Callable[..., Tensor], first: R, *others: R) -> R:
    if first is None:
        return first
    if isinstance(first, Tensor):
        return cast(R, function(first, *others))
    if isinstance(first, tuple):
        return cast(R, tuple(_map(function, *leaves) for leaves in zip(first, *others, strict=True)))
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [f.name for f in dataclasses.fields(first)]
        return cast(R, type(first)(**{n: _map(function, *(getattr(r, n) for r in (first, *others))) for n in names}))
    raise TypeError(f"a row record holds tensors and row records, not {type(first).__name__}")
