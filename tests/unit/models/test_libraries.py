"""Models of timm and Hugging Face bring what their own configuration says; what cannot be had is one sentence."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import underfire as uf
from tiny_networks import images
from underfire.models.classifier import Classifier
from underfire.models.loading import load_network

TINY = "resnet10t"


def test_timm_with_a_file_of_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = timm.create_model(TINY, num_classes=3).eval()
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_network(f"timm:{TINY}", str(tmp_path / "weights.safetensors"), None)
    wants = timm.data.resolve_model_data_config(net)
    assert (loaded.mean, loaded.std, loaded.interpolation) == (wants["mean"], wants["std"], wants["interpolation"])
    assert (loaded.crop, loaded.resize) == (wants["input_size"][-1], int(wants["input_size"][-1] / wants["crop_pct"]))
    model, x = Classifier.load(f"timm:{TINY}", str(tmp_path / "weights.safetensors")), images(2, side=64)
    torch.testing.assert_close(model(x), Classifier(net, loaded.mean, loaded.std)(x))
    assert uf.CAM().explain(model, x, torch.tensor([0, 1]), torch.tensor([0, 1])).shape == (2, 2, 2)


def test_timm_from_a_folder(tmp_path: Path) -> None:
    net = timm.create_model(TINY, num_classes=3)
    config = {"mean": (0.5, 0.5, 0.5), "crop_pct": 0.8, "input_size": (3, 160, 160), "interpolation": "bicubic"}
    names = ["cat", "dog", "owl"]
    timm.models.save_for_hf(net, tmp_path, {"pretrained_cfg": config, "num_classes": 3, "label_names": names})
    loaded = load_network(f"timm:{tmp_path}", None, None)
    assert (loaded.mean, loaded.crop, loaded.resize) == ((0.5, 0.5, 0.5), 160, 200)
    assert loaded.classes == ("cat", "dog", "owl")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.net.state_dict().items())


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small transformer, its class names and its processor."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    names = {"id2label": {0: "cat", 1: "dog", 2: "owl"}, "label2id": {"cat": 0, "dog": 1, "owl": 2}}
    ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes, **names)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
    return folder


def test_hugging_face_from_a_folder(vit: Path) -> None:
    model = Classifier.load(f"hf:{vit}")
    assert model.origin is not None
    assert (model.mean, model.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (model.origin.crop, model.origin.resize, model.origin.interpolation) == (32, 32, "bilinear")
    assert model.origin.classes == ("cat", "dog", "owl")
    x, net = images(2, side=32), ViTForImageClassification.from_pretrained(vit)
    torch.testing.assert_close(model(x), net((x - 0.5) / 0.5).logits.detach())
    assert model.assumed == (
        "images are cropped to a square, not squeezed into one",
        "logits are the output's .logits",
    )


def test_hugging_face_with_other_weights(vit: Path, tmp_path: Path) -> None:
    net = ViTForImageClassification.from_pretrained(vit)
    with torch.no_grad():
        net.classifier.bias += 1
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    x, weights = images(2, side=32), str(tmp_path / "weights.safetensors")
    torch.testing.assert_close(Classifier.load(f"hf:{vit}", weights)(x), Classifier.load(f"hf:{vit}")(x) + 1)


@pytest.mark.parametrize(
    ("reference", "weights", "complaint"),
    [
        ("timm:resnet18x", "DEFAULT", r"timm has no model 'resnet18x' \(did you mean resnet18"),
        ("timm:resnet10t", None, "needs weights: --weights DEFAULT, a tag of timm's, or a file"),
        ("timm:resnet10t", "DEFAULT", r"could not be read from the cache or downloaded .*`hf download timm/resnet10t"),
        ("hf:nobody/nothing", None, r"could not be read from the cache or downloaded .*`hf download nobody/nothing"),
        ("hf:.", None, r"The folder \. holds no image classifier"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    reference: str, weights: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(uf.UnderfireError, match=complaint):
        load_network(reference, weights, None)


@pytest.mark.parametrize(
    ("reference", "package", "name"), [("timm:a", "timm", "timm"), ("hf:a", "transformers", "huggingface")]
)
def test_libraries_that_are_not_installed(reference: str, package: str, name: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(uf.UnderfireError, match=rf"pip install 'underfire\[{name}\]'"):
        load_network(reference, "DEFAULT", None)
