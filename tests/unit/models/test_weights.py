"""Weight files of trainers of all kinds: which tensors are the network's, and what is not taken for them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from tiny_networks import network, seeded
from underfire.core.errors import UnderfireError
from underfire.models.loading import load_network
from underfire.models.weights import read_weights

State = Mapping[str, Tensor]


def state_of(name: str = "resnet") -> dict[str, Tensor]:
    return network(name).state_dict()


def prefixed(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def other(state: State) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in state.items()}


LAYOUTS: Mapping[str, tuple[Callable[[State], Any], str]] = {
    "plain": (lambda state: dict(state), ""),
    "DataParallel": (lambda state: prefixed("module.", state), "module"),
    "torch.compile": (lambda state: prefixed("_orig_mod.", state), "_orig_mod"),
    "both": (lambda state: prefixed("module._orig_mod.", state), "module._orig_mod"),
    "a compiled layer": (lambda state: {k.replace("conv.", "conv._orig_mod."): v for k, v in state.items()}, ""),
    "Lightning": (
        lambda state: {"epoch": 3, "state_dict": {**prefixed("model.", state), "loss.weight": torch.ones(5)}},
        "state_dict.model",
    ),
    "a trainer": (
        lambda state: {"model": dict(state), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        "model",
    ),
    "a backbone": (lambda state: prefixed("backbone.net.", state), "backbone.net"),
    "without counters": (lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "", ".ckpt"])
def test_the_same_weights_are_found_in_every_layout_and_format(layout: str, suffix: str, tmp_path: Path) -> None:
    make, part = LAYOUTS[layout]
    state, path = state_of(), tmp_path / f"weights{suffix}"
    content = make(state)
    if suffix in (".pt", ".ckpt"):
        torch.save(content, path)
    elif all(isinstance(value, Tensor) for value in content.values()):
        save_file(content, path)
    else:
        pytest.skip("safetensors hold tensors alone")
    found, held = read_weights(path).of(state)
    assert held == part
    fitted = network("resnet")
    fitted.load_state_dict(found)
    assert all(torch.equal(value, state[name]) for name, value in fitted.state_dict().items())


@pytest.mark.parametrize(
    ("main", "average"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("net", "ema.module"), ("encoder_q", "encoder_k")],
)
def test_of_two_sets_that_fit_one_must_be_named(main: str, average: str, tmp_path: Path) -> None:
    state, path = state_of(), tmp_path / "checkpoint.pth"
    torch.save({**prefixed(f"{main}.", state), **prefixed(f"{average}.", other(state))}, path)
    sentence = rf"holds 2 sets of weights that fit, .*{re.escape(average)}.*; name one of them as .*checkpoint\.pth:"
    with pytest.raises(UnderfireError, match=sentence):
        read_weights(path).of(state)
    assert torch.equal(read_weights(path, main).of(state)[0]["fc.bias"], state["fc.bias"])
    assert torch.equal(read_weights(path, average).of(state)[0]["fc.bias"], state["fc.bias"] + 1)
    with pytest.raises(UnderfireError, match="has no part 'nobody'"):
        read_weights(path, "nobody")


def test_larger_networks_of_the_same_names_are_not_cut_to_size(tmp_path: Path) -> None:
    state = state_of()
    torch.save({"model": {**state, "deeper.weight": torch.ones(2)}}, tmp_path / "weights.pt")
    found, _ = read_weights(tmp_path / "weights.pt").of(state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network("resnet").load_state_dict(found)


def test_densenets_old_names(tmp_path: Path) -> None:
    net = seeded(lambda: torchvision.models.DenseNet(8, (2,), 8, num_classes=3))
    old = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", name): value for name, value in net.state_dict().items()}
    assert any(".norm.1." in name for name in old)
    torch.save(old, tmp_path / "old.pth")
    found, _ = read_weights(tmp_path / "old.pth").of(net.state_dict())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in found.items())


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1).expand(10**9)}, tmp_path / "weights.pt")
    with pytest.raises(UnderfireError, match=r"fewer numbers than its tensor fc\.weight claims"):
        read_weights(tmp_path / "weights.pt")


BUILDER = """
def imports():
    import helper_of_the_builder
    return helper_of_the_builder.build()

def key(): return {}["x"]
def attribute(): return None.x
def fails(): assert 1 == 2
def leaves(): raise SystemExit(3)
def missing(): import no_such_module
"""


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    (tmp_path / "helper_of_the_builder.py").write_text("import torch\ndef build(): return torch.nn.Linear(2, 2)\n")
    (tmp_path / "mine.py").write_text(BUILDER)
    return tmp_path / "mine.py"


def test_what_a_builder_imports_while_it_runs_is_found(builder: Path) -> None:
    import sys

    before = list(sys.path)
    assert isinstance(load_network(f"{builder}:imports", None, None).net, torch.nn.Linear)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("key", r"KeyError: 'x' \(.*mine\.py, line 6\)"),
        ("attribute", r"AttributeError: .* \(.*mine\.py, line 7\)"),
        ("fails", r"AssertionError \(.*mine\.py, line 8\)"),
        ("leaves", r"SystemExit: 3 \(.*mine\.py, line 9\)"),
        ("missing", r"ModuleNotFoundError: No module named 'no_such_module' \(.*mine\.py, line 10\)"),
    ],
)
def test_whatever_a_builder_raises_names_the_line(builder: Path, name: str, said: str) -> None:
    with pytest.raises(UnderfireError, match=f"{name} in .* failed to build the model: {said}"):
        load_network(f"{builder}:{name}", None, None)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("aux", [True, False])
def test_files_of_networks_that_transform_their_input(name: str, aux: bool, tmp_path: Path) -> None:
    net = torchvision.models.get_model(name, weights=None, num_classes=3, aux_logits=aux, init_weights=False)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    loaded = load_network(f"torchvision:{name}", str(tmp_path / "weights.pt"), None)
    assert loaded.net.transform_input
    assert loaded.assumed == (f"input transformed as by torchvision's {name} weights",)


def test_interpolation_and_normalisation_are_those_of_the_architecture(tmp_path: Path) -> None:
    net = torchvision.models.get_model("mnasnet0_5", weights=None, num_classes=3)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    assert load_network("torchvision:mnasnet0_5", str(tmp_path / "weights.pt"), None).interpolation == "bilinear"
    net = torchvision.models.get_model("efficientnet_b0", weights=None, num_classes=3)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    assert load_network("torchvision:efficientnet_b0", str(tmp_path / "weights.pt"), None).interpolation == "bicubic"


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any, **options: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    said = rf"give a file with --weights FILE, or put https://.*resnet18.*pth at {tmp_path}/checkpoints/resnet18"
    with pytest.raises(UnderfireError, match=said):
        load_network("torchvision:resnet18", "DEFAULT", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("123.675,116.28,103.53/58.395,57.12,57.375", "did you mean them divided by 255"),
        ("0.5,0.5,0.5/58,57,57", "did you mean them divided by 255"),
        ("nan,0.5,0.5/1,1,1", "all finite"),
        ("0.5,0.5,0.5/1,inf,1", "all finite"),
        ("0.5,0.5,0.5/0,1,1", "3 positive deviations"),
        ("0.5,0.5,0.5/-1,1,1", "3 positive deviations"),
        ("-1,0.5,0.5/1,1,1", "is not one of images in"),
    ],
)
def test_normalisations_that_are_none(text: str, said: str) -> None:
    with pytest.raises(UnderfireError, match=said):
        load_network("demo", None, text)


def test_extra_states_come_with_their_layers(tmp_path: Path) -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> Any:
            return {"version": 3}

        def set_extra_state(self, state: Any) -> None:
            self.version = state["version"]

    torch.save({"model": Extra(2, 2).state_dict()}, tmp_path / "weights.pt")
    fitted = Extra(2, 2)
    fitted.load_state_dict(read_weights(tmp_path / "weights.pt").of(fitted.state_dict())[0])
    assert fitted.version == 3
