"""A classifier's file says what images it wants; a manifest that does not make sense is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from underfire.core.errors import UnderfireError
from underfire.models.files import ClassifierManifest, read_manifest, write_network

MANIFEST = ClassifierManifest(
    classes=("benign", "malign"), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), crop=24, scores={"accuracy": 0.75}
)


def test_weights_and_manifest_come_back(tmp_path: Path) -> None:
    path, network = tmp_path / "classifier.safetensors", nn.Linear(3, 2)
    write_network(path, MANIFEST, network)
    assert read_manifest(path, ClassifierManifest) == MANIFEST
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in load_file(path).items())


def test_weights_of_other_origin_have_none(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "b.safetensors", metadata={"format": "pt"})
    torch.save({"weight": torch.zeros(2)}, tmp_path / "c.pt")
    assert [
        read_manifest(tmp_path / name, ClassifierManifest) for name in ("a.safetensors", "b.safetensors", "c.pt")
    ] == [None] * 3


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"format": 2}, "format"),
        ({"classes": ["one"]}, "classes"),
        ({"mean": [0.5, 0.5]}, "mean.2"),
        ({"std": [0.2, 0.2, 0.0]}, "std.2"),
        ({"crop": 0}, "crop"),
        ({"code": "print()"}, "code"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, change: dict[str, object], place: str) -> None:
    text = json.dumps({**MANIFEST.model_dump(), **change})
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", metadata={"classifier": text})
    with pytest.raises(UnderfireError, match=rf"The classifier in .*a\.safetensors has a damaged manifest \({place}: "):
        read_manifest(tmp_path / "a.safetensors", ClassifierManifest)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UnderfireError, match=r"a\.safetensors cannot be read as weights"):
        read_manifest(tmp_path / "a.safetensors", ClassifierManifest)
