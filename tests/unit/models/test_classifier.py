"""The classifier over [0, 1] images: normalisation inside, logits out, and a sentence for every misfit."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import CLASSES, MEAN, NETWORKS, STD, SqueezeNetShaped, classifier, images, network
from underfire.core.errors import UnderfireError
from underfire.interpreters import CAM, GradCAM
from underfire.models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier

Y = torch.tensor([0, 1])


class Returning(nn.Module):
    """A network that returns what `make` makes of the mean colours."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x.mean((2, 3)))


@pytest.mark.parametrize("net", NETWORKS)
def test_logits_are_those_of_the_network_on_normalised_images(net: str) -> None:
    """The private copy computes in another memory format, so sums may round differently."""
    x, mean, std = images(3), torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(classifier(net)(x), network(net)((x - mean) / std), rtol=0, atol=1e-5)


def test_normalisation_is_imagenets_unless_given() -> None:
    model = Classifier(Returning(lambda v: v), device="cpu")
    assert (model.mean, model.std) == (IMAGENET_MEAN, IMAGENET_STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    grey = torch.full((1, 3, 2, 2), 0.5)
    expected = (0.5 - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(model(grey)[0], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_any_precision_are_read_in_the_networks_own(dtype: torch.dtype) -> None:
    model = classifier("resnet", dtype)
    assert model.dtype == dtype
    for precision in (torch.float16, torch.float32, torch.float64):
        assert model(images(1, dtype=precision)).dtype == dtype


@pytest.mark.parametrize("net", NETWORKS)
def test_features_are_what_the_head_reads(net: str) -> None:
    model, x = classifier(net, torch.float64), images(3, dtype=torch.float64)
    head = model.locate_head(x)
    evidence = model.evidence(x)
    assert evidence.features.min() >= 0
    own = network(net).double()
    bias = torch.zeros(CLASSES) if isinstance(own, SqueezeNetShaped) else next(reversed(list(own.parameters())))
    for y in range(CLASSES):
        maps = head.class_maps(evidence.features, torch.full((3,), y))
        torch.testing.assert_close(maps.mean((1, 2)) + bias[y], evidence.logits[:, y], rtol=0, atol=1e-12)


@pytest.mark.parametrize("net", NETWORKS)
def test_looking_at_features_changes_no_logit_and_no_gradient(net: str) -> None:
    found, before = [], images(2).requires_grad_()
    for locate in (False, True):
        model = classifier(net)
        if locate:
            model.locate_features(before)
        logits = model(before)
        found.append((logits.detach(), *torch.autograd.grad(logits[:, 1].sum(), before)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda v: {"scores": v}, "returned a dict for 2 images"),
        (lambda v: (v[0], v), "returned a tuple for 2 images"),
        (lambda v: v[0], r"returned a tensor of shape \(3,\) for 2 images"),
        (lambda v: v[:1], r"returned a tensor of shape \(1, 3\) for 2 images"),
        (lambda v: v[:, :, None], r"returned a tensor of shape \(2, 3, 1\) for 2 images"),
        (lambda v: None, "returned a NoneType for 2 images"),
        (lambda v: v[:, :0], r"returned a tensor of shape \(2, 0\) for 2 images"),
    ],
)
def test_networks_that_return_no_logits(make: Any, complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        Classifier(Returning(make))(images(2))


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5, 0.5), (0.5,)), (MEAN, (0.2, 0.2)), (MEAN, (0.2, 0.0, 0.2)), (MEAN, (0.2, -1.0, 0.2))]
)
def test_impossible_normalisations(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(UnderfireError, match="3 means and 3 positive deviations"):
        Classifier(network("resnet"), mean, std)


def test_only_modules_are_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(UnderfireError, match=r"must be a torch\.nn\.Module, not function"):
        Classifier(lambda x: x)


def test_unknown_layers_are_refused_at_once() -> None:
    with pytest.raises(UnderfireError, match=r"no layer 'layer9'; its top layers are: stem, bn1, .*, fc\."):
        Classifier(network("resnet"), features="layer9")


@pytest.mark.parametrize("interpreter", [CAM(), GradCAM()], ids=lambda g: g.name)
def test_layers_without_feature_maps_are_refused(interpreter: CAM | GradCAM) -> None:
    model = Classifier(network("resnet"), features="fc")
    assert model.features_layer == "fc"
    with pytest.raises(UnderfireError, match="'fc' gives no feature maps"):
        interpreter.explain(model, images(2), Y, Y)


def test_fingerprint_is_a_function_of_weights_and_normalisation() -> None:
    same = {Classifier(network("resnet"), MEAN, STD).fingerprint() for _ in range(2)}
    assert len(same) == 1
    changed = network("resnet")
    with torch.no_grad():
        changed.bn2.running_var[3] *= 1.0001
    others = {
        Classifier(changed, MEAN, STD).fingerprint(),
        Classifier(network("resnet"), MEAN, (0.2, 0.25, 0.31)).fingerprint(),
        Classifier(network("mobilenet"), MEAN, STD).fingerprint(),
    }
    assert len(same | others) == 1 + 3


def test_fingerprint_does_not_see_modes_and_located_features() -> None:
    model = Classifier(network("resnet").train(), MEAN, STD)
    before = model.fingerprint()
    model.locate_features(images(1))
    assert model.fingerprint() == before == Classifier(network("resnet"), MEAN, STD).fingerprint()


@pytest.mark.parametrize("net", ["resnet", "squeezenet", "densenet"])
def test_tap_gives_logits_and_layers_of_one_differentiable_pass(net: str) -> None:
    model, x = classifier(net), images(2).requires_grad_()
    deepest = model.network.get_submodule("relu" if net == "resnet" else "features")
    kept: list[Tensor] = []
    expected = model(x)
    handle = deepest.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits, (features,) = model.tap(x, ["relu" if net == "resnet" else "features"])
    handle.remove()
    assert torch.equal(logits, expected)
    assert features is kept[-1], "a layer that is called again counts when last called"
    assert len(kept) == (3 if net == "resnet" else 1)
    (gradient,) = torch.autograd.grad(features.sum() + logits.sum(), x)
    assert gradient.abs().max() > 0


def test_tap_leaves_no_hook_whatever_happens() -> None:
    fine, failing = network("resnet"), network("resnet")
    failing.fc = nn.Linear(1, CLASSES)
    for net in (fine, failing):
        model = Classifier(net, MEAN, STD)
        with suppress(RuntimeError):
            model.tap(images(1), ["bn1", "bn3"])
        assert not any(module._forward_hooks for module in model.network.modules())


def test_layers_that_cannot_be_tapped_are_one_sentence() -> None:
    model = classifier("resnet")
    with pytest.raises(UnderfireError, match=r"no layer 'bn9'; its top layers are: stem"):
        model.tap(images(1), ["bn9"])
    unused = network("resnet")
    unused.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(UnderfireError, match="Layer 'spare' gives no tensor in a forward pass"):
        Classifier(unused).tap(images(1), ["spare"])
