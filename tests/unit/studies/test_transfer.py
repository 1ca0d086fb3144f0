"""Transfer of a run's images to other interpreters and classifiers: what a row says, what is kept, what is refused."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from printed import ALL, IDS, RESNET, names_of, numbers, printed
from tiny import Tiny
from underfire import open_run
from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import to_8bit
from underfire.core.io import write_json, write_table
from underfire.interpreters import CAM, GRAD, IG, MASK, GradCAM, Midpoints
from underfire.interpreters.mask.solver import Solver
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.plan import Planned
from underfire.studies import effectiveness, transfer, transfers
from underfire.studies.transfer import Elsewhere

N = 4
SHOWN = (CAM(), GRAD(), IG(Midpoints(3)))
Attack = Callable[..., Run]


def model(reference: str) -> Classifier:
    return Classifier.load(reference, None, "none")


@pytest.fixture(scope="module")
def attacked(attack: Attack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attack(tmp_path_factory.mktemp("runs") / "tiny").path


@pytest.fixture
def run(attacked: Path, tmp_path: Path) -> Run:
    """A copy of the attack's folder."""
    return open_run(shutil.copytree(attacked, tmp_path / "run"))


def other() -> Elsewhere:
    """The same colours by another network."""
    torch.manual_seed(1)
    return Elsewhere("other.py:build", Classifier(Tiny(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def of(table: pa.Table, **wanted: object) -> dict[str, dict[str, Any]]:
    """Rows by image."""
    rows = [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]
    assert len(rows) == N
    return {row["id"]: row for row in rows}


# ------------------------------------------------------------------ what a row says


def test_one_row_per_image_source_and_shown_interpreter(run: Run, tiny_model: str) -> None:
    table = transfer.execute(run, model(tiny_model), Manner("test", batch_size=3), SHOWN)
    kinds = {(row["attack"], row["source"], row["interpreter"]) for row in table.to_pylist()}
    assert kinds == {
        (*made, g.name) for made in (("adv2", "cam"), ("adv2", "grad"), ("pgd", None), ("noise", None)) for g in SHOWN
    }
    assert table.num_rows == N * 4 * 3
    assert table == transfers.transfers(run)
    assert set(table["model"].to_pylist()) == {tiny_model}
    assert set(table["model_fingerprint"].to_pylist()) == {model(tiny_model).fingerprint()}


@pytest.mark.parametrize("name", ["cam", "grad"])
@pytest.mark.parametrize("attack_name", ["adv2", "pgd"])
def test_transfer_of_an_interpreter_to_itself_is_its_own_row(
    run: Run, tiny_model: str, name: str, attack_name: str
) -> None:
    source = name if attack_name == "adv2" else None
    table = transfer.execute(run, model(tiny_model), Manner("test"))
    here, there = (
        of(table, attack=attack_name, source=source, interpreter=name),
        of(run.outcomes(), attack=attack_name, interpreter=name),
    )
    for id, row in here.items():
        assert row["class_true"] == there[id]["class_true"]
        for column in ("map_l1", "map_l2", "iou_mean"):
            assert row[column] == there[id][f"{column}_png"], column
        assert row["class_explained"] == row["class_predicted"], "whatever is reported of the file"
        assert (row["class_predicted"] == there[id]["class_target"]) == there[id]["success_png"]
        assert row["own"] == (attack_name == "adv2")
        assert row["own_l1"] == (row["map_l1"] if row["own"] else None)


def test_of_a_targeted_run_maps_are_compared_with_the_benign_ones(
    attack: Attack, tmp_path: Path, tiny_model: str
) -> None:
    run = attack(tmp_path / "aimed", target_map="patch", interpreters=("cam",))
    rows = of(transfer.execute(run, model(tiny_model), Manner("test")), attack="adv2", interpreter="cam")
    outcomes = of(run.outcomes(), attack="adv2", interpreter="cam")
    assert {id: row["map_l1"] for id, row in rows.items()} == {id: row["benign_l1_png"] for id, row in outcomes.items()}
    assert any(row["benign_l1"] != row["map_l1"] for row in outcomes.values())


def test_transferred_rows_are_distances_of_maps_made_anew(run: Run, tiny_model: str) -> None:
    table, classifier, g = transfer.execute(run, model(tiny_model), Manner("test"), SHOWN), model(tiny_model), SHOWN[2]
    ids, crafted = run.images("adv2", "cam")
    _, benign = run.images("benign")
    rows = of(table, attack="adv2", source="cam", interpreter="ig")
    target = torch.tensor([rows[id]["class_explained"] for id in ids])
    label = torch.tensor([rows[id]["class_true"] for id in ids])
    maps = g.explain(classifier, to_8bit(torch.from_numpy(crafted)), target, target)
    reference = g.explain(classifier, torch.from_numpy(benign), label, label)
    expected = (maps - reference).abs().mean((1, 2))
    assert [rows[id]["map_l1"] for id in ids] == pytest.approx(expected.tolist(), abs=1e-6)
    own = of(run.outcomes(), attack="adv2", interpreter="cam")
    assert {id: row["own_l1"] for id, row in rows.items()} == {id: row["map_l1_png"] for id, row in own.items()}


def test_noise_has_a_random_sign_of_the_attack_s_size_and_explains_the_true_class(run: Run, tiny_model: str) -> None:
    table = transfer.execute(run, model(tiny_model), Manner("test"), [CAM()])
    rows = of(table, attack="noise", interpreter="cam")
    assert all(row["class_explained"] == row["class_true"] for row in rows.values())
    noise = transfer.sources(effectiveness.recorded(run))[-1].spec
    store = transfer.Store(run.path)
    ids, benign = run.images("benign")
    change = store.read(transfer.key(noise), "image", ids).numpy() - benign
    size = np.abs(run.images("pgd")[1] - benign).max((1, 2, 3))
    for moved, reach in zip(change, size, strict=True):
        np.testing.assert_allclose(np.abs(moved), reach, rtol=0, atol=1e-6)
        assert abs(np.sign(moved).mean()) < 0.15
    assert np.abs(np.sign(change[0]) - np.sign(change[1])).max() == 2, "each image has its own"


def test_images_that_were_bent_transfer_too(attack: Attack, tmp_path: Path, tiny_model: str) -> None:
    """Their noise is as large as the largest change of a pixel."""
    run = attack(tmp_path / "bent", solvers=("stadv",), eps=None, interpreters=("cam",))
    table = transfer.execute(run, model(tiny_model), Manner("test"), [CAM(), GRAD()])
    assert [cell.made_for for cell in transfers.summarise(table)[::2]] == ["adv2-stadv cam", "stadv", "noise"]
    rows, own = of(table, attack="adv2-stadv", interpreter="cam"), of(run.outcomes(), attack="adv2-stadv")
    assert {id: row["map_l1"] for id, row in rows.items()} == {id: row["map_l1_png"] for id, row in own.items()}


# ------------------------------------------------------------------ another classifier


def test_another_classifier_has_rows_beside_those_of_the_run_s(run: Run, tiny_model: str) -> None:
    home = transfer.execute(run, model(tiny_model), Manner("test"), [CAM()])
    elsewhere = transfer.execute(run, model(tiny_model), Manner("test"), [CAM(), GradCAM()], other())
    assert set(elsewhere["model"].to_pylist()) == {"other.py:build"}
    assert not any(elsewhere["own"].to_pylist())
    table = transfers.transfers(run)
    assert table == pa.concat_tables([home, elsewhere])
    own = of(home, attack="adv2", source="cam", interpreter="cam")
    away = of(elsewhere, attack="adv2", source="cam", interpreter="cam")
    assert {id: row["own_l1"] for id, row in away.items()} == {id: row["map_l1"] for id, row in own.items()}
    assert (run.path / transfer.plot_name(None)).exists()
    assert (run.path / transfer.plot_name(other())).exists()


def test_the_run_s_classifier_in_another_s_place_makes_the_same_maps(run: Run, tiny_model: str) -> None:
    home = transfer.execute(run, model(tiny_model), Manner("test"), SHOWN)
    twin = transfer.execute(run, model(tiny_model), Manner("test"), SHOWN, Elsewhere("twin", model(tiny_model)))
    for name in ("map_l1", "iou_mean", "class_predicted", "class_explained", "own_l1"):
        assert twin[name].to_pylist() == home[name].to_pylist()


def test_a_classifier_of_other_classes_is_refused(run: Run, tiny_model: str) -> None:
    network = Tiny()
    network.head = torch.nn.Linear(8, 4)
    stranger = Elsewhere("stranger", Classifier(network, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    before = files(run.path)
    with pytest.raises(UnderfireError, match="has 4 classes and the run's has 3"):
        transfer.execute(run, model(tiny_model), Manner("test"), [CAM()], stranger)
    assert files(run.path) == before


# ------------------------------------------------------------------ summaries


def test_a_difference_is_paired_image_by_image() -> None:
    columns: Mapping[str, list[Any]] = {
        "id": list("abcdefghi"),
        "attack": ["adv2"] * 9,
        "source": ["cam"] * 9,
        "interpreter": ["grad"] * 9,
        "model": ["m"] * 9,
        "model_fingerprint": ["f"] * 9,
        "class_true": [0] * 9,
        "class_explained": [1] * 9,
        "class_predicted": [1, 1, 0] * 3,
        **{name: [0.3, 0.5, 0.7] * 3 for name in ("map_l1", "map_l2", "iou_mean", "iou_half", "iou_top15")},
        "own": [False] * 9,
        "own_l1": [0.1, 0.3, 0.5] * 3,
        "map_constant": [False] * 9,
        "benign_constant": [False] * 9,
    }
    (cell,) = transfers.summarise(pa.table(columns, transfers.SCHEMA))
    assert cell.difference is not None
    assert (cell.difference.value, cell.difference.low, cell.difference.high) == pytest.approx(
        (-0.2, -0.2, -0.2), abs=1e-9
    )
    assert (cell.map_l1.value, cell.predicted.value) == pytest.approx((0.5, 2 / 3))
    assert cell.map_l1.low < cell.map_l1.value < cell.map_l1.high, "the images themselves differ"


def test_own_and_null_rows_have_no_difference(run: Run, tiny_model: str) -> None:
    cells = transfers.summarise(transfer.execute(run, model(tiny_model), Manner("test")))
    assert {(c.made_for, c.interpreter) for c in cells if c.difference is not None} == {
        ("adv2 cam", "grad"),
        ("adv2 grad", "cam"),
    }
    assert {(c.made_for, c.interpreter) for c in cells if c.own} == {("adv2 cam", "cam"), ("adv2 grad", "grad")}


def test_the_averages_beside_the_table_are_those_of_all_calls(run: Run, tiny_model: str) -> None:
    """And are rows of numbers as other programs read them."""
    transfer.execute(run, model(tiny_model), Manner("test"))
    transfer.execute(run, model(tiny_model), Manner("test"), [CAM()], other())
    averages = pyarrow.csv.read_csv(run.path / transfers.AVERAGES).to_pylist()
    assert len(
        {tuple(row[name] for name in ("attack", "source", "interpreter", "model", "measure")) for row in averages}
    ) == len(averages)
    assert {row["model"] for row in averages} == {tiny_model, "other.py:build"}
    means = {(row["attack"], row["source"], row["interpreter"], row["model"], row["measure"]): row for row in averages}
    away = means["adv2", "cam", "grad", tiny_model, "map_l1"]
    of_images = of(transfers.transfers(run), attack="adv2", source="cam", interpreter="grad")
    distances = np.array([row["map_l1"] for row in of_images.values()])
    assert (away["value"], away["n"]) == (pytest.approx(distances.mean()), N)
    paired = np.array([row["own_l1"] for row in of_images.values()]) - distances
    assert means["adv2", "cam", "grad", tiny_model, "difference"]["value"] == pytest.approx(paired.mean())
    assert ("adv2", "cam", "cam", tiny_model, "difference") not in means


# ------------------------------------------------------------------ resume


def files(out: Path) -> dict[str, tuple[bytes, int]]:
    found = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def test_the_run_s_own_maps_are_not_made_again(run: Run, tiny_model: str) -> None:
    labels = set[str]()
    manner = Manner("test", on_progress=lambda planned, progress: labels.add(planned.label))
    transfer.execute(run, model(tiny_model), manner)
    assert labels == {"noise", "adv2 cam → grad", "adv2 grad → cam", "noise → cam", "noise → grad"}


def test_where_memory_is_short_it_is_said(run: Run, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said, forward = list[str](), Classifier.forward

    def within_memory(classifier: Classifier, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(classifier, x)

    monkeypatch.setattr(Classifier, "forward", within_memory)
    transfer.execute(run, model(tiny_model), Manner("test", batch_size=4, on_notice=said.append))
    assert set(said) == {"Memory does not hold 4 images at a time; going on with 2 (--batch)."}


@pytest.mark.parametrize("killed_after", [4, *(pytest.param(each, marks=pytest.mark.extended) for each in (1, 7))])
def test_a_transfer_that_was_killed_and_run_again_is_the_uninterrupted_one(
    run: Run, attacked: Path, tmp_path: Path, tiny_model: str, killed_after: int
) -> None:
    shown = (MASK(Solver(steps=2)),)
    whole = open_run(shutil.copytree(attacked, tmp_path / "whole"))
    expected = transfer.execute(whole, model(tiny_model), Manner("test", batch_size=2), shown)
    left = killed_after

    def give_up(planned: Planned, progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transfer.execute(run, model(tiny_model), Manner("test", batch_size=2, on_progress=give_up), shown)
    assert not (run.path / transfers.TABLE).exists()
    assert transfer.execute(run, model(tiny_model), Manner("test", batch_size=2), shown) == expected
    assert (run.path / "transfer.svg").read_bytes() == (whole.path / "transfer.svg").read_bytes()


def test_the_attack_s_own_command_still_finds_its_run_complete(run: Run, attack: Attack, tiny_model: str) -> None:
    transfer.execute(run, model(tiny_model), Manner("test"), SHOWN)
    before = files(run.path)
    attack(run.path)
    assert files(run.path) == before


# ------------------------------------------------------------------ hostile and partial folders


def test_an_unfinished_run_is_refused(run: Run, tiny_model: str) -> None:
    adv2 = next(e["key"] for e in run.info["stages"] if (e["kind"], e["interpreter"]) == ("image", "grad"))
    next((run.path / "stages" / adv2).glob("shard-*")).unlink()
    before = files(run.path)
    with pytest.raises(UnderfireError, match=r"lacks adv2, grad; finish the run"):
        transfer.execute(run, model(tiny_model), Manner("test"))
    assert files(run.path) == before


def test_a_folder_without_images_is_refused(run: Run, tiny_model: str) -> None:
    shutil.rmtree(run.path / "stages")
    with pytest.raises(UnderfireError, match="lacks images"):
        transfer.execute(run, model(tiny_model), Manner("test"))


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None},
        {"spec": {}},
        {"spec": [1, 2]},
        {"spec": {"study": "sanity", "n": 2, "seed": 0, "model_fingerprint": "a", "images_digest": "b"}},
    ],
    ids=str,
)
def test_what_is_no_attack_is_refused(run: Run, tiny_model: str, change: dict[str, Any]) -> None:
    (run.path / "run.json").write_text(json.dumps({**run.info, **change}))
    with pytest.raises(UnderfireError, match="contains no attack"):
        transfer.execute(run, model(tiny_model), Manner("test"))


def test_a_run_of_another_version_is_refused(run: Run, tiny_model: str) -> None:
    (run.path / "run.json").write_text(json.dumps({**run.info, "stages": run.info["stages"][:-1]}))
    with pytest.raises(UnderfireError, match="not those of this version"):
        transfer.execute(run, model(tiny_model), Manner("test"))


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing", None], ids=["empty", "garbage", "other columns"])
def test_a_damaged_table_of_earlier_calls_is_refused_and_kept(run: Run, tiny_model: str, content: bytes | None) -> None:
    path = run.path / transfers.TABLE
    if content is None:
        pq.write_table(pa.table({"id": ["a"]}), path)
    else:
        path.write_bytes(content)
    before = files(run.path)
    with pytest.raises(UnderfireError, match=r"transfer\.parquet (is missing or damaged|has columns other)"):
        transfer.execute(run, model(tiny_model), Manner("test"))
    assert files(run.path) == before


# ------------------------------------------------------------------ the paper's tables


def transferred(model: str, distance: float) -> pa.Table:
    """Two images for each source and shown interpreter."""
    sources = [*(("adv2", name) for name in ALL), ("pgd", None), ("noise", None)]
    rows = [
        {
            "id": id, "attack": attack, "source": source, "interpreter": shown, "model": model,
            "model_fingerprint": model, "class_true": 0, "class_explained": 1, "class_predicted": 1,
            "map_l1": distance, "map_l2": distance, "iou_mean": 0.5, "iou_half": 0.5, "iou_top15": 0.5,
            "own": source == shown, "own_l1": distance, "map_constant": False, "benign_constant": False,
        }
        for attack, source in sources for shown in ALL for id in IDS[:2]
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, transfers.SCHEMA)


def test_table_9_is_of_the_runs_own_classifier(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", RESNET)
    both = pa.concat_tables([transferred("another", 0.9), transferred("ours", 0.2)])
    write_table(tmp_path / transfers.TABLE, both)
    (table,) = transfer.tables(Run(tmp_path))
    assert table.columns == ("GRAD", "CAM", "MASK", "RTS")
    named = [f"ADV² for {name}" for name in table.columns]
    assert names_of(table) == [(name,) for name in (*named, "PGD", "random noise")]
    assert printed(table) == [
        numbers(line)
        for line in (
            ".04 .24 .22 .24",
            ".09 .05 .18 .13",
            ".12 .34 .09 .74",
            ".10 .17 .20 .01",
            ".10 .22 .28 .22",
            "- - - -",
        )
    ]
    assert {value.ours.value for row in table.rows for cell in row.cells for value in cell if value.ours} == {0.2}
