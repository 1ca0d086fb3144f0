"""What an attack gives back can be kept: a table, pictures that evaluate takes, a figure."""

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import underfire as uf
from tiny_attacks import differing_rows
from tiny_networks import classifier, images
from underfire.attacks.result import Result
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import to_8bit
from underfire.data.image_set import open_images
from underfire.data.names import PREDICTED
from underfire.data.pairs import open_attacked, paired

IDS = ("cat/a.png", "../up", "50 % off?", "plain")


@pytest.fixture(scope="module")
def result() -> Result:
    return uf.adv2(classifier("densenet"), uf.CAM(), steps=3)(images(4), ids=IDS)


def test_the_table_has_a_row_per_image(result: Result) -> None:
    rows = result.table().to_pylist()
    assert [row["id"] for row in rows] == list(IDS)
    for i, row in enumerate(rows):
        assert row["class_target"] == int(result.target[i])
        assert row["map_l1"] == pytest.approx(float(result.map_l1[i]))
        assert row["success_8bit"] == bool(result.success_8bit[i])
    blank = uf.pgd(classifier("densenet"), steps=1)(images(2)).table()
    assert blank["iou"].null_count == 2  # no map, no overlap


def test_a_folder_holds_what_evaluate_takes(result: Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "kept")
    assert {path.name for path in folder.iterdir()} == {
        "benign", "attacked", "maps", "benign-maps", "maps.npy", "benign-maps.npy", "table.parquet", "table.csv"
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert np.array_equal(np.load(folder / "maps.npy"), result.maps.numpy())
    assert pq.read_table(folder / "table.parquet").equals(result.table())
    assert pyarrow.csv.read_csv(folder / "table.csv")["id"].to_pylist() == list(IDS)
    with Image.open(folder / "maps" / "plain.png") as heat:
        assert heat.size == result.images.shape[:1:-1]
    benign = open_images(folder / "benign", PREDICTED)
    attacked = paired(benign, open_attacked(folder / "attacked", benign))
    assert len(attacked) == 4
    saved = {name: attacked.read(i) for i, name in enumerate(attacked.ids)}
    assert torch.equal(saved["cat/a.png.png"], to_8bit(result.adversarial)[0])
    assert torch.equal(saved["plain.png"], to_8bit(result.adversarial)[3])


def test_a_folder_that_holds_something_is_left_alone(result: Result, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UnderfireError, match="is there already and not empty"):
        result.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_figure_shows_each_image_before_and_after(result: Result) -> None:
    figure = result.plot(first=3)
    assert len(figure.axes) == 3 * 4
    assert np.array_equal(figure.axes[3].images[0].get_array(), result.maps[0].numpy())
    assert figure.axes[0].get_title() == f"cat/a.png: class {result.labels[0]}"


def test_a_loader_stands_for_its_images() -> None:
    attack, x = uf.adv2(classifier("densenet"), uf.CAM(), steps=3), images(4)
    loader = DataLoader(TensorDataset(x, torch.zeros(4)), batch_size=3)
    assert differing_rows(attack(loader), attack(x)) == []
