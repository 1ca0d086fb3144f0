"""Law 10, Adapter: an adapter around one of our own interpreters equals it: same maps, same attack, same numbers."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

import underfire as uf
from tiny_networks import classifier, images
from underfire.core.losses import log_odds
from underfire.interpreters import Interpreter
from underfire.interpreters.adapters.adapter import adapter_named
from underfire.interpreters.adapters.probe import probe
from underfire.models.classifier import Classifier

X, KEYS = images(3), torch.tensor([3, 4, 5])


def gradient(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return torch.autograd.grad(log_odds(model(x), y).sum(), x)[0]


def cam(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return model.locate_head(x).class_maps(model.evidence(x).features, y)


def grad_cam(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return cam(model, x, y).relu()


ADAPTED: Mapping[str, tuple[Callable[[], Interpreter], Interpreter, str]] = {
    "grad": (lambda: uf.explainer(gradient, follow="input gradient"), uf.GRAD(), "input gradient"),
    "cam": (lambda: uf.explainer(cam), uf.CAM(), "closed form"),
    "grad-cam": (lambda: uf.explainer(grad_cam), uf.GradCAM(), "closed form"),
    "captum's gradient": (lambda: adapter_named("captum", "Saliency"), uf.GRAD(), "input gradient"),
    "zennit's gradient": (lambda: adapter_named("zennit", "Gradient"), uf.GRAD(), "input gradient"),
}
LOGITS = ("captum's gradient", "zennit's gradient")  # of which GRAD takes the log-odds: another map


@pytest.mark.parametrize("name", ADAPTED)
def test_the_probe_finds_how_to_follow(name: str) -> None:
    make, _, verdict = ADAPTED[name]
    assert probe(make(), classifier("resnet"), (16, 16)).verdict == verdict


@pytest.mark.parametrize("name", [each for each in ADAPTED if each not in LOGITS])
def test_same_maps_and_same_attack(name: str) -> None:
    make, own, _ = ADAPTED[name]
    model = classifier("resnet")
    y = model(X).argmax(1)
    torch.testing.assert_close(make().explain(model, X, y, KEYS), own.explain(model, X, y, KEYS), rtol=0, atol=1e-6)
    second = model(X).topk(2).indices[:, 1]
    ours, theirs = (uf.adv2(model, each, eps=0.1, steps=12)(X, target=second) for each in (own, make()))
    assert ours.success.any()
    torch.testing.assert_close(theirs.adversarial, ours.adversarial, rtol=0, atol=1e-6)
    torch.testing.assert_close(theirs.map_l1, ours.map_l1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ADAPTED)
def test_the_classifier_stays_as_it_was(name: str) -> None:
    model = classifier("resnet")
    before, state = model(X), [len(layer._forward_hooks) for layer in model.modules()]
    uf.adv2(model, ADAPTED[name][0](), steps=2)(X)
    assert torch.equal(model(X), before)
    assert [len(layer._forward_hooks) for layer in model.modules()] == state
    assert not any(parameter.requires_grad for parameter in model.parameters())
