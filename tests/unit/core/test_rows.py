"""take, put, where, to and cat act on every leaf of nested records alike."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from underfire.core import rows


@dataclass(frozen=True)
class Inner:
    flags: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Record:
    images: Tensor
    inner: Inner
    nothing: Nothing


def record(n: int, offset: float = 0.0) -> Record:
    numbers = torch.arange(n) + int(offset)
    return Record(numbers.double()[:, None, None].expand(n, 2, 3) + offset, Inner(numbers % 2 == 0, numbers), Nothing())


def leaves(r: Record) -> list[Tensor]:
    return [r.images, r.inner.flags, r.inner.labels]


def same(a: Record, b: Record) -> bool:
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_take_gives_rows_in_the_order_asked_for() -> None:
    taken = rows.take(record(5), torch.tensor([3, 0, 3]))
    assert taken.inner.labels.tolist() == [3, 0, 3]
    assert taken.inner.flags.tolist() == [False, True, False]
    assert taken.images[:, 1, 2].tolist() == [3, 0, 3]
    assert taken.nothing == Nothing()


def test_put_undoes_take_and_leaves_the_original_alone() -> None:
    old, new, index = record(5), record(2, offset=100.0), torch.tensor([4, 1])
    mixed = rows.put(old, index, new)
    assert same(rows.take(mixed, index), new)
    assert same(rows.take(mixed, torch.tensor([0, 2, 3])), rows.take(record(5), torch.tensor([0, 2, 3])))
    assert same(old, record(5))


def test_where_chooses_row_by_row() -> None:
    condition = torch.tensor([True, False, True, False])
    chosen = rows.where(condition, record(4), record(4, offset=100.0))
    assert chosen.inner.labels.tolist() == [0, 101, 2, 103]
    assert chosen.images[:, 0, 0].tolist() == [0, 201, 2, 203]
    assert chosen.inner.flags.tolist() == [True, False, True, False]


def test_cat_undoes_splitting() -> None:
    parts = [rows.take(record(5), torch.tensor(index)) for index in ([0, 1], [2], [3, 4])]
    assert same(rows.cat(parts), record(5))


def test_to_moves_every_leaf() -> None:
    moved = rows.to(record(3), torch.device("meta"))
    assert {leaf.device.type for leaf in leaves(moved)} == {"meta"}
    assert same(rows.to(record(3), torch.device("cpu")), record(3))


def test_a_bare_tensor_is_a_record() -> None:
    assert rows.take(torch.arange(5), torch.tensor([4, 0])).tolist() == [4, 0]


@pytest.mark.parametrize("leaf", ["none", 3, [torch.zeros(2)], Inner])
def test_other_leaves_are_refused(leaf: object) -> None:
    with pytest.raises(TypeError, match="a row record holds tensors and row records, not"):
        rows.take(Inner(torch.zeros(2), leaf), torch.tensor([0]))


def test_tuples_are_nested_and_nothing_stays_nothing() -> None:
    record = (torch.arange(3), (torch.arange(6).view(3, 2), None))
    numbers, (pairs, nothing) = rows.take(record, torch.tensor([2, 0]))
    assert numbers.tolist() == [2, 0]
    assert pairs.tolist() == [[4, 5], [0, 1]]
    assert nothing is None
    with pytest.raises(ValueError, match="shorter"):
        rows.where(torch.tensor([True, False, True]), record, (torch.arange(3),))


def test_leaves_go_by_their_path_and_come_back() -> None:
    """Also through tuples and where there is nothing; what is not given stays."""
    nested = (record(3), None)
    held = rows.leaves(nested)
    assert sorted(held) == ["0.images", "0.inner.flags", "0.inner.labels"]
    other = (record(3, offset=2), None)
    assert same(rows.with_leaves(other, held)[0], nested[0])
    partly = rows.with_leaves(other, {"0.images": held["0.images"]})[0]
    assert torch.equal(partly.images, nested[0].images)
    assert torch.equal(partly.inner.labels, other[0].inner.labels)


def test_parts_hold_all_items_in_their_order() -> None:
    assert list(rows.in_parts((1, 2, 3, 4, 5), 2)) == [(1, 2), (3, 4), (5,)]
    assert list(rows.in_parts((), 2)) == []
