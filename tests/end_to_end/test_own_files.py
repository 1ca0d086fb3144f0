"""People's own folders through the whole command line: labels are the classifier's own, and stay so."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from underfire.cli.main import app
from underfire.core.errors import UnderfireError
from underfire.runs.execute import reopen
from underfire.runs.folder import open_run


@pytest.fixture
def two_classes(tiny_photos: Path, tmp_path: Path) -> Path:
    """Photos of blue and red by class index; nothing is green."""
    for index, name in ((0, "blue"), (2, "red")):
        shutil.copytree(tiny_photos / name, tmp_path / "photos" / str(index))
    return tmp_path / "photos"


HEADLESS = """
import torch


def build():
    convolution, linear = torch.nn.Conv2d(3, 3, 1, stride=4), torch.nn.Linear(3 * 4 * 4, 3)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3).flip(0)[:, :, None, None])
        convolution.bias.zero_()
        linear.weight.copy_((torch.eye(3)[:, :, None] * torch.linspace(0, 9, 16)).flatten(1))
        linear.bias.zero_()
    return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten(), linear)
"""


def test_an_interpreter_that_the_network_is_not_made_for_is_left_out(tiny_photos: Path, tmp_path: Path) -> None:
    (tmp_path / "headless.py").write_text(HEADLESS)
    command = ["attack", "--model", f"{tmp_path}/headless.py:build", "--images", str(tiny_photos), "--n", "3"]
    options = ["--normalize", "none", "--steps", "2", "--out", str(tmp_path / "run")]
    for interpreters in ("cam,grad-cam", "grad-cam"):  # the second time it is the same run
        result = CliRunner().invoke(app, [*command, *options, "--interpreter", interpreters])
        assert result.exit_code == 0, result.output
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["spec"]["interpreters"] == ["grad-cam"]
    assert info["model"]["assumed"] == ["Grad-CAM explains '1'"]
    result = CliRunner().invoke(app, [*command, *options, "--interpreter", "cam,grad-cam"])
    assert "Left out: cam. CAM needs global average pooling" in " ".join(result.output.split())
    assert "Grad-CAM explains '1'" in result.output
    alone = CliRunner().invoke(app, [*command, "--interpreter", "cam", "--out", str(tmp_path / "alone")])
    assert "use Grad-CAM (grad-cam), which explains '1'" in str(alone.exception)


TRANSFORMER = """
from torch import nn
from tiny_networks import network

def build():
    net = network("transformer")
    net.head = nn.Linear(12, 3)
    return net
"""


def test_rollouts_of_a_transformer_and_what_is_said_of_the_one_that_explains_no_class(
    tiny_photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "transformer.py").write_text(TRANSFORMER)
    command = ["attack", "--model", f"{tmp_path}/transformer.py:build", "--images", str(tiny_photos), "--n", "3"]
    options = ["--normalize", "none", "--steps", "2", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, *options, "--interpreter", "Rollout,grad-rollout,cam"])
    assert result.exit_code == 0, result.output
    said, note = " ".join(result.output.split()), "Rollout explains no class in particular: its map is the same for all"
    assert said.count(note) == 1
    assert "Left out: cam. CAM needs global average pooling" in said
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["spec"]["interpreters"] == ["rollout", "grad-rollout"]
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8").count(note) == 1


def attacked(model: str, photos: Path, out: Path) -> str:
    options = ["--model", model, "--images", str(photos), "--normalize", "none", "--n", "4", "--steps", "2"]
    result = CliRunner().invoke(app, ["attack", *options, "--interpreter", "cam", "--out", str(out)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_class_without_photos_moves_no_other(tiny_model: str, two_classes: Path, tmp_path: Path) -> None:
    said = attacked(tiny_model, two_classes, tmp_path / "run")
    assert "labels by folder names that are class indices" in " ".join(said.split())
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["classes"] == ["0", "1", "2"]
    assert info["selection"]["misclassified"] == 0
    _, images = reopen(open_run(tmp_path / "run"))
    assert {(name[0], label) for name, label in zip(images.ids, images.labels.tolist(), strict=True)} == {
        ("0", 0),
        ("2", 2),
    }


def test_names_that_the_classifier_does_not_bring_are_refused(
    tiny_model: str, two_classes: Path, tmp_path: Path
) -> None:
    (two_classes / "0").rename(two_classes / "blue")
    with pytest.raises(UnderfireError, match=r"2 classes \(2, blue\), the classifier knows 3 \(it brings no names\)"):
        attacked(tiny_model, two_classes, tmp_path / "run")
    assert not (tmp_path / "run").exists()
