"""A classifier is a module that other libraries attack and explain as it is, and that stays as it was."""

import warnings
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor

from tiny_networks import CLASSES, classifier, images
from underfire.models.classifier import Classifier

X, EPS = images(2), 8 / 255


@pytest.fixture(autouse=True)
def without_their_warnings() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):
        yield


def by_torchattacks(model: Classifier, y: Tensor) -> Tensor:
    return pytest.importorskip("torchattacks").PGD(model, eps=EPS, steps=3)(X, y)


def by_foolbox(model: Classifier, y: Tensor) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    attack = foolbox.attacks.LinfPGD(steps=3)
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1)), X, y, epsilons=[EPS])[1][0]


def by_art(model: Classifier, y: Tensor) -> Tensor:
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    loss = torch.nn.CrossEntropyLoss()
    wrapped = PyTorchClassifier(model, loss, (3, 16, 16), CLASSES, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescent(wrapped, eps=EPS, eps_step=EPS / 2, max_iter=3, verbose=False)
    return torch.from_numpy(attack.generate(X.numpy(), y.numpy()))


ATTACKS: Mapping[str, Callable[[Classifier, Tensor], Tensor]] = {
    "torchattacks": by_torchattacks,
    "foolbox": by_foolbox,
    "art": by_art,
}


@pytest.mark.parametrize("library", ATTACKS)
def test_their_attacks_lower_the_confidence(library: str) -> None:
    model = classifier("resnet")
    before = model(X)
    y = before.argmax(1)
    attacked = ATTACKS[library](model, y)
    assert (attacked - X).abs().max() <= EPS + 1e-6
    assert (model(attacked).softmax(1) - before.softmax(1)).gather(1, y[:, None]).max() < 0
    assert torch.equal(model(X), before)


def by_captum(model: Classifier, y: Tensor) -> Tensor:
    gradient: Tensor = (
        pytest.importorskip("captum.attr").Saliency(model).attribute(X.clone().requires_grad_(), target=y, abs=False)
    )
    return gradient


def by_zennit(model: Classifier, y: Tensor) -> Tensor:
    gradient: Tensor = pytest.importorskip("zennit.attribution").Gradient(model)(X, torch.eye(CLASSES)[y])[1]
    return gradient


@pytest.mark.parametrize("explain", [by_captum, by_zennit])
def test_their_gradients_are_ours(explain: Callable[[Classifier, Tensor], Tensor]) -> None:
    model, x = classifier("resnet"), X.clone().requires_grad_()
    y = model(X).argmax(1)
    (expected,) = torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), x)
    torch.testing.assert_close(explain(model, y), expected)


def test_grad_cam_reads_a_layer_of_the_network() -> None:
    """Of images that ask for a gradient: the parameters of a classifier do not."""
    library = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = classifier("resnet")
    with library.GradCAM(model=model, target_layers=[model.network.relu]) as explainer:
        maps = explainer(X.clone().requires_grad_(), [ClassifierOutputTarget(0), ClassifierOutputTarget(1)])
    assert maps.shape == (2, 16, 16)
    assert maps.max() > 0


def test_a_classifier_cannot_be_put_into_training_mode() -> None:
    model = classifier("mobilenet")
    before = model(X)
    assert not any(module.training for module in model.train().modules())
    assert torch.equal(model(X), before)


def test_casts_and_moves_are_those_of_any_module() -> None:
    model = classifier("resnet")
    single, fingerprint = model(X), model.fingerprint()
    assert model.double().dtype == torch.float64
    assert model(X).dtype == torch.float64
    torch.testing.assert_close(model(X).float(), single)
    assert model.fingerprint() != fingerprint
    assert model.to("meta").device == torch.device("meta")
