"""Networks of every kind that people bring: each is attacked, or refused in one sentence, and comes back as it was."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tiny_networks import MEAN, STD, images, network
from underfire.models.classifier import Classifier
from underfire.models.copying import fingerprint

X = images(2)


@pytest.fixture(autouse=True)
def without_their_warnings() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


class Around(nn.Module):
    """A network inside another module; what `run` does with it and the images is the forward pass."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor] = lambda self, x: self.net(x)) -> None:
        super().__init__()
        self.net, self.run = network("resnet"), run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class ViewingBackward(torch.autograd.Function):
    """The identity, whose backward pass needs contiguous gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view(-1).view(gradient.shape)


def flattening(self: Any, x: Tensor) -> Tensor:
    features = self.net.relu(self.net.conv(self.net.stem(x)))
    return self.net.fc(features.view(-1).view(len(x), 12, -1).mean(2))


def contiguous_only(self: Any, x: Tensor) -> Tensor:
    assert x.is_contiguous()
    return self.net(x)


def keeping(self: Any, x: Tensor) -> Tensor:
    self.kept = [self.net.stem(x), {"a": (self.net.stem(x) * 2,)}]
    return self.net(x)


def with_activations() -> nn.Module:
    net = Around(keeping)
    net(X)
    return net


class LightningShaped(nn.Module):
    """What a LightningModule adds to a module: a trainer that cannot be asked before it is there, and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self._trainer = network("resnet"), None

    @property
    def trainer(self) -> Any:
        raise RuntimeError("LightningShaped is not attached to a `Trainer`.")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])


def with_five_axes() -> nn.Module:
    net = network("resnet")
    net.register_buffer("anchors", torch.zeros(1, 2, 3, 1, 2))
    return net


def changed(change: Callable[[nn.Module], Any]) -> nn.Module:
    net = network("resnet")
    change(net)
    return net


def with_extra_state() -> nn.Module:
    extra = {"version": 3, "names": ["a"], "numbers": torch.ones(2), "thing": object()}
    kind = type(
        "Extra", (Around,), {"get_extra_state": lambda self: extra, "set_extra_state": lambda self, state: None}
    )
    return kind()


WORKING: Mapping[str, Callable[[], nn.Module]] = {
    "compiled": lambda: torch.compile(network("resnet")),
    "a compiled layer": lambda: changed(lambda net: setattr(net, "conv", torch.compile(net.conv))),
    "parallel": lambda: nn.DataParallel(network("resnet")),
    "lightning": LightningShaped,
    "old weight_norm": lambda: changed(lambda net: nn.utils.weight_norm(net.conv)),
    "parametrised": lambda: changed(lambda net: nn.utils.parametrizations.weight_norm(net.conv)),
    "spectral": lambda: changed(lambda net: nn.utils.parametrizations.spectral_norm(net.conv)),
    "stored activations": with_activations,
    "extra state": with_extra_state,
    "half": lambda: network("resnet").half(),
    "bfloat16": lambda: network("resnet").bfloat16(),
    "flattening": lambda: Around(flattening),
    "contiguous only": lambda: Around(contiguous_only),
    "contiguous gradients": lambda: Around(lambda self, x: self.net(ViewingBackward.apply(x))),
    "a buffer of five axes": with_five_axes,
}


@pytest.mark.parametrize("kind", WORKING)
@pytest.mark.parametrize("interpreter", [uf.CAM(), uf.GRAD()], ids=lambda each: each.name)
def test_kinds_that_work(kind: str, interpreter: uf.CAM | uf.GRAD) -> None:
    net = WORKING[kind]()
    before = {name: (id(module), module.training) for name, module in net.named_modules()}, fingerprint(net)
    model = Classifier(net, MEAN, STD)
    model.fingerprint()
    result = uf.adv2(model, interpreter, steps=2)(X)
    assert result.adversarial.isfinite().all()
    model.revised(lambda private: None)
    after = {name: (id(module), module.training) for name, module in net.named_modules()}, fingerprint(net)
    assert after == before


@pytest.mark.parametrize("kind", ["compiled", "parallel"])
def test_what_stands_around_a_network_is_no_part_of_its_identity(kind: str) -> None:
    plain = Classifier(network("resnet"), MEAN, STD)
    wrapped = Classifier(WORKING[kind](), MEAN, STD)
    assert wrapped.fingerprint() == plain.fingerprint()
    assert torch.equal(wrapped(X), plain(X))


def test_a_network_that_bears_channels_last_is_computed_in_it() -> None:
    for net, expected in ((network("resnet"), torch.channels_last), (Around(flattening), torch.contiguous_format)):
        model = Classifier(net, MEAN, STD)
        model(X)
        weight = next(value for value in model.network.parameters() if value.ndim == 4 and min(value.shape) > 1)
        assert weight.is_contiguous(memory_format=expected)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


def hollow() -> nn.Module:
    with torch.device("meta"):
        return network("resnet")


def without_gradient(self: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return self.net(x)


REFUSED: Mapping[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lazy, "has no size yet; run the lazy network on one image first"),
    "meta": (hollow, r"has no numbers \(device meta\); load its weights first"),
    "a lock": (lambda: changed(lambda net: setattr(net, "lock", threading.Lock())), "its attribute 'lock' is a lock"),
    "no gradient": (lambda: Around(without_gradient), "outputs have no gradient in the image"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(network("resnet").eval(), {nn.Linear}),
        "outputs have no gradient in the image",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_are_refused(kind: str) -> None:
    make, complaint = REFUSED[kind]
    with pytest.raises(uf.UnderfireError, match=complaint):
        uf.pgd(Classifier(make(), MEAN, STD), steps=2)(X)


def test_torchscript_is_attacked_but_shows_no_layers() -> None:
    model = Classifier(torch.jit.trace(network("resnet").eval(), X), MEAN, STD)
    model.fingerprint()
    assert uf.pgd(model, steps=2)(X).adversarial.isfinite().all()
    with pytest.raises(uf.UnderfireError, match="No layer of the model shows what it computes"):
        uf.adv2(model, uf.CAM(), steps=2)(X)
