"""Networks and weights from names and files: what is read, what is refused, and that weight files run no code."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from tiny_networks import images, seeded
from underfire.core.errors import UnderfireError
from underfire.models.classifier import Classifier
from underfire.models.demo import DEMO_MEAN, DEMO_STD
from underfire.models.files import ClassifierManifest, write_network
from underfire.models.loading import load_network, parse_normalization
from underfire.models.weights import read_weights

SQUEEZENET = "torchvision:squeezenet1_1"


def squeezenet(classes: int) -> nn.Module:
    return seeded(lambda: torchvision.models.squeezenet1_1(weights=None, num_classes=classes))


def logits_of(model: Classifier) -> Tensor:
    with torch.no_grad():
        return model(images(2, side=64))


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "weights.safetensors": save_file,
    "weights.pt": torch.save,
    "weights.pth": lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path),
    "model.pt": lambda state, path: torch.save({"model": state}, path),
    "parallel.pt": lambda state, path: torch.save({f"module.{name}": v for name, v in state.items()}, path),
    "old.pt": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize("classes", [7, 1000])
def test_a_state_dict_brings_its_own_number_of_classes(file: str, classes: int, tmp_path: Path) -> None:
    net = squeezenet(classes)
    WRITERS[file](net.state_dict(), tmp_path / file)
    model = Classifier.load(SQUEEZENET, weights=str(tmp_path / file))
    assert torch.equal(logits_of(model), logits_of(Classifier(net)))
    assert logits_of(model).shape == (2, classes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_the_number_of_classes_is_read_off_any_architecture(name: str, tmp_path: Path) -> None:
    net = seeded(lambda: torchvision.models.get_model(name, weights=None, num_classes=3))
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    assert logits_of(Classifier.load(f"torchvision:{name}", weights=str(tmp_path / "weights.pt"))).shape == (2, 3)


BUILDERS = """
import torch
from helper import WIDTH

def small(width=WIDTH):
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(width, 2),
    )

def needs(width): return small(width)
def number(): return 3
def breaks(): raise ValueError("no such width")
constant = 5
"""


@pytest.fixture
def builders(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("WIDTH = 5\n")
    (tmp_path / "builders.py").write_text(BUILDERS)
    return tmp_path / "builders.py"


def test_a_builder_in_a_file_with_its_own_imports_and_weights(builders: Path, tmp_path: Path) -> None:
    path_before = list(sys.path)
    fresh = Classifier.load(f"{builders}:small", normalize="none")
    assert fresh.origin is not None
    changed = {name: value + 1 for name, value in fresh.network.state_dict().items()}
    save_file({name: value.contiguous() for name, value in changed.items()}, tmp_path / "weights.safetensors")
    loaded = Classifier.load(f"{builders}:small", weights=str(tmp_path / "weights.safetensors"), normalize="none")
    assert all(torch.equal(value, changed[name]) for name, value in loaded.network.state_dict().items())
    assert not torch.equal(logits_of(loaded), logits_of(fresh))
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing", "defines no function 'missing'"),
        ("constant", "defines no function 'constant'"),
        ("needs", "needs in .* must be callable without arguments"),
        ("number", r"number in .* returned a int, not a torch\.nn\.Module"),
        ("breaks", r"breaks in .* failed to build the model: ValueError: no such width \(.*builders\.py, line 14\)"),
    ],
)
def test_builders_that_build_nothing(builders: Path, name: str, complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        load_network(f"{builders}:{name}", None, None)


@pytest.mark.parametrize("source", ["import no_such_module", "def broken(:", "raise KeyError('x')", "1 / 0"])
def test_files_that_cannot_be_imported(source: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(UnderfireError, match=r"broken\.py could not be imported"):
        load_network(f"{tmp_path / 'broken.py'}:small", None, None)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="There is no file"):
        load_network(f"{tmp_path / 'nowhere.py'}:small", None, None)
    with pytest.raises(UnderfireError, match="There is no weight file"):
        load_network(SQUEEZENET, str(tmp_path / "nowhere.pt"), None)


@pytest.mark.parametrize(
    ("reference", "weights", "complaint"),
    [
        ("torchvision:resnet1000", "DEFAULT", "torchvision has no model 'resnet1000'"),
        ("torchvision:resnet18", "IMAGENET9K", "no weights 'IMAGENET9K'; it has DEFAULT, IMAGENET1K_V1"),
        ("torchvision:resnet18", None, "torchvision:resnet18 needs weights"),
        ("resnet18", "DEFAULT", "'resnet18' does not name a model; use torchvision:NAME"),
        ("keras:resnet18", None, "'keras:resnet18' does not name a model"),
        ("", None, "'' does not name a model"),
    ],
)
def test_unknown_names(reference: str, weights: str | None, complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        load_network(reference, weights, None)


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(squeezenet(7).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UnderfireError, match=r"weights in .*weights\.pt do not fit the network: .*Missing key"):
        load_network("torchvision:resnet18", str(tmp_path / "weights.pt"), None)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"weight": [1.0]}, torch.zeros(2), {"epoch": 3}])
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(UnderfireError, match="contains no state dict"):
        read_weights(tmp_path / "weights.pt")


def complaint_about(path: Path) -> str | None:
    try:
        read_weights(path)
    except UnderfireError as problem:
        return str(problem)
    return None


@pytest.mark.parametrize("file", WRITERS)
def test_damaged_weights(file: str, tmp_path: Path) -> None:
    """Cut off anywhere, overwritten anywhere, or with bytes missing: nothing but sentences, where it is noticed."""
    path = tmp_path / file
    WRITERS[file]({"weight": torch.arange(6.0), "bias": torch.ones(2)}, path)
    whole = path.read_bytes()
    complaints = []
    for k in range(0, len(whole), max(1, len(whole) // 40)):
        for damaged in (whole[:k], whole[:k] + b"\xff\x00\x2e" + whole[k + 3 :], whole[:k] + whole[k + 7 :]):
            path.write_bytes(damaged)
            complaints.append(complaint_about(path))
    refused = [complaint for complaint in complaints if complaint is not None]
    assert len(refused) > 40
    assert all(str(path) in complaint for complaint in refused)


class Malicious:
    """A pickle of it creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"weight": torch.zeros(2), "more": m}, lambda m: [m]])
def test_a_weight_file_runs_no_code(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    bait = wrap(Malicious(trap))
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(bait, protocol=2))
    torch.save(bait, tmp_path / "zip.pt")
    torch.save(bait, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for file in ("plain.pt", "zip.pt", "old.pt"):
        with pytest.raises(UnderfireError, match="cannot be read as weights"):
            read_weights(tmp_path / file)
    assert not trap.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert trap.exists(), "the bait must be real"


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(squeezenet(7), tmp_path / "network.pt")
    with pytest.raises(UnderfireError, match="holds more than tensors"):
        load_network(SQUEEZENET, str(tmp_path / "network.pt"), None)


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("none", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ("0.1,0.2,0.3/1,2,3e-1", (0.1, 0.2, 0.3), (1.0, 2.0, 0.3)),
        (" 0.1, 0.2, 0.3 / 1, 2, 3 ", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    ],
)
def test_normalisations(text: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert parse_normalization(text) == (mean, std)


@pytest.mark.parametrize("text", ["", "ImageNet", "0.5", "0.5,0.5/0.5", "1,2,3", "1,2/1,2", "1,2,3/1,2,3/1", "a,b/1,2"])
def test_what_is_no_normalisation(text: str) -> None:
    with pytest.raises(UnderfireError, match=r"is not a normalisation; use imagenet, none, or"):
        parse_normalization(text)


def test_normalisation_comes_from_the_argument_else_from_the_weights_else_imagenets(tmp_path: Path) -> None:
    torch.save(squeezenet(7).state_dict(), tmp_path / "weights.pt")
    weights = str(tmp_path / "weights.pt")
    default = Classifier.load(SQUEEZENET, weights)
    asked = Classifier.load(SQUEEZENET, weights, "0,0,0/1,1,2")
    demo = Classifier.load("demo")
    assert (default.mean, default.std) == parse_normalization("imagenet")
    assert (asked.mean, asked.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 2.0))
    assert (demo.mean, demo.std) == (DEMO_MEAN, DEMO_STD)
    sayings = [model.origin.normalization for model in (default, asked, demo) if model.origin is not None]
    assert sayings == [
        "ImageNet's mean and deviation, by default",
        "0,0,0/1,1,2, as asked for",
        "the demo classifier's own",
    ]


LESIONS = ("bkl", "mel", "nv")


def test_a_trained_classifier_brings_what_its_file_says(tmp_path: Path) -> None:
    path, net = tmp_path / "lesions.safetensors", squeezenet(3)
    manifest = ClassifierManifest(classes=LESIONS, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize=30, crop=24)
    write_network(path, manifest, net)
    loaded = load_network(SQUEEZENET, str(path), None)
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (loaded.resize, loaded.crop, loaded.classes) == (30, 24, LESIONS)
    assert loaded.normalization == f"that of {path}"
    assert all(torch.equal(value, loaded.net.state_dict()[name]) for name, value in net.state_dict().items())
    assert load_network(SQUEEZENET, str(path), "none").mean == (0, 0, 0)


def test_loading_draws_no_number_of_the_global_generator(builders: Path, tmp_path: Path) -> None:
    """Building a network draws its first weights, and a user's builder may seed the generator."""
    torch.save(squeezenet(7).state_dict(), tmp_path / "weights.pt")
    before = torch.get_rng_state()
    Classifier.load(SQUEEZENET, str(tmp_path / "weights.pt"))
    Classifier.load(f"{builders}:small")
    Classifier.load("demo")
    assert torch.equal(torch.get_rng_state(), before)
