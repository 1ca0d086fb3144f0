"""Networks to train: a head for other classes, drawn anew, on the body of the weights, whatever builds them."""

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tiny_networks import seeded
from underfire.core.errors import UnderfireError
from underfire.models.files import ClassifierManifest, write_network
from underfire.models.loading import load_network
from underfire.models.new_head import load_with_new_head

SQUEEZENET, LESIONS = "torchvision:squeezenet1_1", ("bkl", "mel", "nv")


def squeezenet(classes: int) -> nn.Module:
    return seeded(lambda: torchvision.models.squeezenet1_1(weights=None, num_classes=classes))


@pytest.mark.parametrize("classes", [LESIONS, ("a", "b", "c", "d", "e")], ids=["another number", "as many as before"])
def test_a_new_head_on_the_body_of_the_weights(classes: tuple[str, ...], tmp_path: Path) -> None:
    body = squeezenet(5)
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    loaded = load_with_new_head(SQUEEZENET, str(tmp_path / "body.safetensors"), None, classes, seed=0)
    state, head = loaded.net.state_dict(), {"classifier.1.weight", "classifier.1.bias"}
    assert loaded.classes == classes
    assert len(state["classifier.1.weight"]) == len(classes)
    assert all(torch.equal(value, state[name]) for name, value in body.state_dict().items() if name not in head)
    assert not torch.equal(body.state_dict()["classifier.1.weight"][:3], state["classifier.1.weight"][:3])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("shufflenet_v2_x0_5", {"fc.weight", "fc.bias"}),
        ("mobilenet_v2", {"classifier.1.weight", "classifier.1.bias"}),
        ("densenet121", {"classifier.weight", "classifier.bias"}),
    ],
)
def test_the_head_is_found_in_any_architecture(name: str, head: set[str], tmp_path: Path) -> None:
    body = seeded(lambda: torchvision.models.get_model(name, weights=None, num_classes=4)).state_dict()
    torch.save(body, tmp_path / "body.pt")
    loaded = load_with_new_head(f"torchvision:{name}", str(tmp_path / "body.pt"), "none", LESIONS, seed=0)
    state = loaded.net.state_dict()
    assert {each for each in state if not torch.equal(state[each], body[each])} == head
    assert loaded.mean == (0, 0, 0)


def test_new_weights_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (
        load_with_new_head(SQUEEZENET, None, None, LESIONS, seed).net.state_dict()["features.0.weight"]
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("reference", ["demo", "hf:microsoft/resnet-18", "squeezenet1_1"])
def test_models_whose_head_cannot_be_replaced(reference: str) -> None:
    complaint = f"'{reference}' has no head that can be replaced: name a torchvision:NAME, a timm:NAME or a file.py:"
    with pytest.raises(UnderfireError, match=complaint):
        load_with_new_head(reference, None, None, LESIONS, seed=0)


def test_a_body_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(UnderfireError, match=r"The weights in .*other\.safetensors do not fit the network"):
        load_with_new_head(SQUEEZENET, str(tmp_path / "other.safetensors"), None, LESIONS, seed=0)


# ------------------------------------------------------------------ networks of a file and of timm

BUILDERS = """
from torch import nn

def body(count):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Linear(4, count))

def asked(num_classes=7):
    return body(num_classes)

def fixed():
    return body(7)
"""


@pytest.fixture
def builders(tmp_path: Path) -> Path:
    path = tmp_path / "builders.py"
    path.write_text(BUILDERS)
    return path


def test_a_function_is_told_the_number_of_classes(builders: Path, tmp_path: Path) -> None:
    start = load_with_new_head(f"{builders}:asked", None, "none", LESIONS, seed=0)
    again = load_with_new_head(f"{builders}:asked", None, "none", LESIONS, seed=0)
    assert len(start.net[3].weight) == 3
    assert torch.equal(start.net[3].weight, again.net[3].weight)
    write_network(tmp_path / "trained.safetensors", a_manifest(), start.net)
    loaded = load_network(f"{builders}:asked", str(tmp_path / "trained.safetensors"), None)
    assert (loaded.classes, loaded.crop, loaded.mean) == (LESIONS, 24, (0.1, 0.2, 0.3))
    assert torch.equal(loaded.net[3].weight, start.net[3].weight)
    other = load_with_new_head(f"{builders}:asked", str(tmp_path / "trained.safetensors"), None, ("a", "b"), seed=1)
    assert torch.equal(other.net[2].weight, start.net[2].weight)
    assert len(other.net[3].weight) == 2


def test_a_function_that_is_told_nothing_has_the_head_it_has(builders: Path) -> None:
    assert len(load_with_new_head(f"{builders}:fixed", None, None, LESIONS, seed=0).net[3].weight) == 7


def test_a_network_of_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    body = timm.create_model("resnet10t", num_classes=5)
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    start = load_with_new_head("timm:resnet10t", str(tmp_path / "body.safetensors"), None, LESIONS, seed=0)
    assert len(start.net.fc.weight) == 3
    assert torch.equal(start.net.conv1[0].weight, body.conv1[0].weight)
    write_network(tmp_path / "trained.safetensors", a_manifest(), start.net)
    loaded = load_network("timm:resnet10t", str(tmp_path / "trained.safetensors"), None)
    assert (loaded.classes, loaded.crop, loaded.std) == (LESIONS, 24, (0.4, 0.5, 0.6))
    assert torch.equal(loaded.net.fc.weight, start.net.fc.weight)


def a_manifest() -> ClassifierManifest:
    return ClassifierManifest(classes=LESIONS, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize=30, crop=24)
