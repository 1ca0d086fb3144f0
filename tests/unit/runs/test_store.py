"""The store: whole files or none, rows by id, and one sentence about whatever is damaged."""

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from underfire.core.errors import UnderfireError
from underfire.core.io import read_json, write_atomically, write_bytes, write_json, write_row_groups, write_table
from underfire.runs import store as store_module
from underfire.runs.folder import open_run
from underfire.runs.outcomes import COLUMNS_SCHEMA, OUTCOMES
from underfire.runs.store import Store


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def interrupted_by(problem: BaseException) -> Callable[[Path], None]:
    """A writer that gets half of its content out."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise problem

    return write


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may grow beyond `room` bytes, as on a disk that is about to be full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ------------------------------------------------------------------ writing

TEXT = pa.schema({"content": pa.string()})


@pytest.mark.parametrize("problem", [RuntimeError("oops"), KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, problem: BaseException) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})
    with pytest.raises(type(problem)):
        write_atomically(path, interrupted_by(problem))
    assert read_json(path) == {"old": True}
    assert files(tmp_path) == {"a.json"}


@pytest.mark.parametrize(
    "write",
    [
        lambda path, content: write_json(path, {"content": content}),
        lambda path, content: write_bytes(path, content.encode()),
        lambda path, content: write_table(path, pa.table({"content": [content]})),
        lambda path, content: write_row_groups(path, TEXT, (pa.table({"content": [each]}, TEXT) for each in content)),
    ],
)
def test_a_file_that_holds_just_this_is_left_alone(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    path = tmp_path / "a"
    write(path, "one")
    before = path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns
    write(path, "one")
    assert (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns) == before
    write(path, "two")
    assert path.read_bytes() != before[0]
    assert files(tmp_path) == {"a"}


def test_an_interrupted_first_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "new" / "a.json", interrupted_by(RuntimeError("oops")))
    assert files(tmp_path) == set()


def test_a_table_is_written_by_row_groups_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"

    def parts(until: int) -> Iterator[pa.Table]:
        for number in range(until):
            yield pa.table({"content": [str(number)] * 2}, TEXT)
        if until < 3:
            raise RuntimeError("oops")

    with pytest.raises(RuntimeError):
        write_row_groups(path, TEXT, parts(2))
    assert files(tmp_path) == set()
    write_row_groups(path, TEXT, parts(3))
    assert pq.ParquetFile(path).num_row_groups == 3
    assert pq.read_table(path)["content"].to_pylist() == ["0", "0", "1", "1", "2", "2"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    with pytest.raises(UnderfireError, match=r"file/run cannot be written to: Not a directory\.$"):
        write_json(tmp_path / "file" / "run" / "run.json", {})
    with pytest.raises(UnderfireError, match=r"file cannot be written to: File exists\.$"):
        write_json(tmp_path / "file" / "run.json", {})


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": True})
    with full_disk(1000), pytest.raises(UnderfireError, match=r"a\.json cannot be written: .*too large"):
        write_json(path, {"new": "x" * 5000})
    assert read_json(path) == {"old": True}
    assert files(tmp_path) == {"a.json"}


def test_a_full_disk_leaves_no_part_of_a_shard(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with full_disk(1000), pytest.raises(UnderfireError, match=r"shard-00000-\w+\.safetensors cannot be written: "):
        store.append("key", ["a"], {"x": torch.zeros(1, 5000)})
    assert files(tmp_path) == set()
    assert store.done("key") == ()


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_content_and_name_are_on_the_disk_before_a_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before it is renamed, then its folder, and every folder that was made."""
    events, fsync, rename = list[str](), os.fsync, Path.replace

    def flushed(handle: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{handle}").removeprefix(str(tmp_path)) or "/")
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        events.append("renamed")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    write_bytes(tmp_path / "new" / "inner" / "a", b"content")
    *made, file, moved, folder = events
    assert sorted(made) == ["/", "/new"]
    assert file.startswith("/new/inner/.")
    assert (moved, folder) == ("renamed", "/new/inner")


# ------------------------------------------------------------------ rows


def test_rows_come_back_in_the_order_asked_for_across_shards(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("key", ["c", "a"], {"x": torch.tensor([3, 1]), "y": torch.tensor([[3.0], [1.0]])})
    store.append("key", ["b"], {"x": torch.tensor([2]), "y": torch.tensor([[2.0]])})
    assert store.done("key") == ("c", "a", "b")
    assert store.read("key", "x", ["a", "b", "c"]).tolist() == [1, 2, 3]
    assert store.read("key", "y", ["b", "c"]).tolist() == [[2.0], [3.0]]
    assert store.done("other") == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_a_shard_keeps_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    store = Store(tmp_path)
    numbers = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (numbers * 3).to(dtype)
    store.append("key", "abc", {"x": values})
    assert torch.equal(store.read("key", "x", "abc"), values)
    assert store.read("key", "x", "abc").dtype == dtype


def test_views_shared_memory_and_graphs_can_be_stored(tmp_path: Path) -> None:
    store, base = Store(tmp_path), torch.arange(12.0).view(3, 4)
    graph = base.clone().requires_grad_() * 2
    tensors = {"whole": base, "transposed": base.T[:3], "graph": graph, "expanded": torch.ones(()).expand(3)}
    store.append("key", "abc", tensors)
    for name, value in tensors.items():
        assert torch.equal(store.read("key", name, "abc"), value.detach())
        assert not store.read("key", name, "abc").requires_grad


def test_any_text_can_be_an_id(tmp_path: Path) -> None:
    store, ids = Store(tmp_path), ("ü/ñ 日.png", 'a "quoted" name', "two\nlines", "../up", "")
    store.append("key", ids, {"x": torch.arange(5)})
    assert store.done("key") == ids
    assert len(files(tmp_path)) == 1


def test_a_deleted_shard_makes_room_for_its_rows_and_overwrites_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, name in enumerate("abc"):
        store.append("key", [name], {"x": torch.tensor([number])})
    shards = sorted((tmp_path / "stages" / "key").iterdir())
    shards[1].unlink()
    assert store.done("key") == ("a", "c")
    store.append("key", ["b"], {"x": torch.tensor([1])})
    assert sorted(store.done("key")) == ["a", "b", "c"]
    assert store.read("key", "x", "abc").tolist() == [0, 1, 2]


def test_a_spec_is_recorded_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create("key", {"type": "Select"})
    store.create("key", {"type": "another"})
    assert read_json(tmp_path / "stages" / "key" / "spec.json") == {"type": "Select"}


def test_a_shard_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    Store(tmp_path).append("key", ["a", "b"], {"x": torch.tensor([1.0, 2.0])})
    (path,) = (tmp_path / "stages" / "key").iterdir()
    assert load_file(path)["x"].tolist() == [1.0, 2.0]


# ------------------------------------------------------------------ the index


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are opened."""
    names, really = list[str](), store_module.safe_open
    monkeypatch.setattr(store_module, "safe_open", lambda path, kind: names.append(path.name) or really(path, kind))
    return names


def stage_of_three(folder: Path) -> list[Path]:
    store = Store(folder)
    for number, name in enumerate("abc"):
        store.append("key", [name], {"x": torch.tensor([number])})
    store.index("key")
    return sorted((folder / "stages" / "key").glob("shard-*"))


def test_an_indexed_stage_tells_what_it_holds_without_opening_a_shard(tmp_path: Path, opened: list[str]) -> None:
    shards = stage_of_three(tmp_path)
    opened.clear()
    assert Store(tmp_path).done("key") == ("a", "b", "c")
    assert opened == []
    assert Store(tmp_path).read("key", "x", "b").tolist() == [1]
    assert opened == [shards[1].name]


def test_what_the_index_lacks_or_states_otherwise_is_read_from_the_shards(tmp_path: Path, opened: list[str]) -> None:
    shards = stage_of_three(tmp_path)
    shards[0].unlink()
    save_file({"x": torch.tensor([5, 6])}, shards[1], metadata={"ids": json.dumps(["d", "e"])})
    Store(tmp_path).append("key", ["f"], {"x": torch.tensor([7])})
    opened.clear()
    assert sorted(Store(tmp_path).done("key")) == ["c", "d", "e", "f"]
    assert len(opened) == 2


def test_a_damaged_or_deleted_index_is_not_missed(tmp_path: Path) -> None:
    stage_of_three(tmp_path)
    index = tmp_path / "stages" / "key" / "index.json"
    index.write_text("{")
    assert Store(tmp_path).done("key") == ("a", "b", "c")
    index.unlink()
    assert Store(tmp_path).done("key") == ("a", "b", "c")


# ------------------------------------------------------------------ damage


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "no ids":
        save_file({"x": torch.zeros(1)}, path)
    else:
        path.write_bytes({"empty": b"", "truncated": content[:-4], "garbage": b"\0" * len(content)}[how])


def test_rows_come_in_any_order_as_often_as_asked_and_the_first_stored_of_each(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.append("key", ["a", "b", "c"], {"x": torch.tensor([0, 1, 2])})
    store.append("key", ["d", "b", "e"], {"x": torch.tensor([3, 9, 4])})
    for ids, expected in (
        ("edcba", [4, 3, 2, 1, 0]),
        ("bb", [1, 1]),
        ("de", [3, 4]),
        ("be", [1, 4]),
        ("c", [2]),
    ):
        assert store.read("key", "x", ids).tolist() == expected
    with pytest.raises(KeyError):
        store.read("key", "x", "az")


def test_what_another_process_has_written_is_seen(tmp_path: Path) -> None:
    reader, writer = Store(tmp_path), Store(tmp_path)
    assert reader.done("key") == ()
    for number, name in enumerate("abc"):
        writer.append("key", [name], {"x": torch.tensor([number])})
        assert reader.done("key") == tuple("abc"[: number + 1])
        assert reader.read("key", "x", [name]).tolist() == [number]


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "no ids"])
def test_a_damaged_shard_is_named_in_one_sentence(tmp_path: Path, how: str) -> None:
    store = Store(tmp_path)
    store.append("key", ["a", "b"], {"x": torch.zeros(2)})
    (path,) = (tmp_path / "stages" / "key").iterdir()
    damaged(path, how)
    store = Store(tmp_path)
    for access in (lambda: store.done("key"), lambda: store.read("key", "x", ["a"])):
        with pytest.raises(
            UnderfireError, match=r"is damaged \(.+\); delete it and run the command again\.$"
        ) as caught:
            access()
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"spec": ', "run.json cannot be read: "),
        (b"\xff\xfe", "run.json cannot be read: "),
        (b"[1, 2]", "run.json contains no JSON object"),
    ],
)
def test_a_damaged_run_json_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    run = open_run(tmp_path)
    for access in (lambda: run.info, lambda: run.images("benign"), lambda: run.maps("adv2", "cam")):
        with pytest.raises(UnderfireError, match=sentence):
            access()


def test_a_damaged_table_is_one_sentence(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    (tmp_path / "outcomes.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UnderfireError, match=r"outcomes\.parquet is damaged; delete it and run the command again\.$"):
        open_run(tmp_path).outcomes()


# ------------------------------------------------------------------ reading a run


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(
        UnderfireError, match=rf"{name} contains no run \(no run\.json\); start one with: underfire attack"
    ):
        open_run(tmp_path / name)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"seed": 3})
    assert open_run(str(tmp_path)).info["seed"] == 3


def test_a_run_without_outcomes_has_an_empty_table_of_the_same_columns(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    assert open_run(tmp_path).outcomes().num_rows == 0
    assert open_run(tmp_path).outcomes().schema == COLUMNS_SCHEMA


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    columns = {field.name: pa.nulls(2, field.type) for field in COLUMNS_SCHEMA}
    table = pa.table({**columns, "confidence": pa.array([0.1, float("nan")]), "id": ["a", "b"]}, COLUMNS_SCHEMA)
    write_table(tmp_path / OUTCOMES, table)
    assert open_run(tmp_path).outcomes().to_pydict()["id"] == ["a", "b"]
    assert open_run(tmp_path).outcomes().schema.equals(COLUMNS_SCHEMA)


@pytest.fixture
def half_a_run(tmp_path: Path) -> Path:
    """Three images chosen, adversarial ones of two interpreters, each with an image missing or out of order."""
    store = Store(tmp_path)
    entries = [
        {"key": "k0", "kind": "image", "attack": "benign", "interpreter": None},
        {"key": "k1", "kind": "image", "attack": "pgd", "interpreter": None},
        {"key": "k2", "kind": "image", "attack": "adv2", "interpreter": "cam"},
        {"key": "k3", "kind": "image", "attack": "adv2", "interpreter": "grad"},
        {"key": "k4", "kind": "map", "attack": "adv2", "interpreter": "cam"},
    ]
    write_json(tmp_path / "run.json", {"stages": entries})
    store.append("k0", "abc", {"image": torch.arange(3.0)})
    store.append("k1", "c", {"image": torch.tensor([2.0])})
    store.append("k1", "a", {"image": torch.tensor([0.0])})
    store.append("k2", "cb", {"image": torch.tensor([12.0, 11.0])})
    store.append("k3", "abc", {"image": torch.arange(20.0, 23), "theta": torch.arange(30.0, 33)})
    return tmp_path


def test_images_come_in_the_order_of_the_benign_ones(half_a_run: Path) -> None:
    run = open_run(half_a_run)
    shown = {
        "benign": run.images("benign"),
        "pgd": run.images("pgd"),
        "pgd for cam": run.images("pgd", "cam"),
        "cam": run.images("adv2", "cam"),
        "grad": run.images("adv2", "grad"),
        "thetas of grad": run.thetas("adv2", "grad"),
    }
    assert {name: (ids, values.tolist()) for name, (ids, values) in shown.items()} == {
        "benign": (("a", "b", "c"), [0, 1, 2]),
        "pgd": (("a", "c"), [0, 2]),
        "pgd for cam": (("a", "c"), [0, 2]),
        "cam": (("b", "c"), [11, 12]),
        "grad": (("a", "b", "c"), [20, 21, 22]),
        "thetas of grad": (("a", "b", "c"), [30, 31, 32]),
    }


def test_which_interpreter_is_asked_for_where_there_are_several(half_a_run: Path) -> None:
    with pytest.raises(UnderfireError, match="Attack 'adv2' was run against cam, grad: say which one"):
        open_run(half_a_run).images("adv2")


def test_what_is_not_there_is_one_sentence(half_a_run: Path) -> None:
    run = open_run(half_a_run)
    with pytest.raises(UnderfireError, match=r"has no images of attack 'stadv'\.$"):
        run.images("stadv")
    with pytest.raises(UnderfireError, match=r"has no images of attack 'adv2' against 'mask'\.$"):
        run.images("adv2", "mask")
    with pytest.raises(UnderfireError, match=r"has no maps of attack 'adv2' against 'cam'\.$"):
        run.maps("adv2", "cam")
    with pytest.raises(UnderfireError, match=r"has no thetas of attack 'stadv'\.$"):
        run.thetas("stadv")
    with pytest.raises(UnderfireError, match="No attack moved the benign images"):
        run.thetas("benign")


def test_json_keeps_names_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"class": "Pfälzer Wäller"})
    assert "Pfälzer Wäller" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"class": "Pfälzer Wäller"}
