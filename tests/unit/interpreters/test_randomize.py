"""Randomised classifiers: what changes, what does not, and that the classifier they come from never notices."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_maskers import tiny_rts
from tiny_networks import NETWORKS, classifier, images
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.interpreters import CAM
from underfire.interpreters.randomize import DEPTHS, every_layer, head, randomized, rebind
from underfire.models.classifier import Classifier

every_network = pytest.mark.parametrize("net", NETWORKS)
HEADS = {
    "squeezenet": "classifier.1",
    "resnet": "fc",
    "densenet": "classifier",
    "densenet-copying": "classifier",
    "mobilenet": "classifier.1",
}


def state(model: Classifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def changed(model: Classifier, other: Classifier) -> set[str]:
    before, after = state(model), state(other)
    return {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@every_network
def test_the_head_is_the_last_layer_with_weights(net: str) -> None:
    assert head(classifier(net), images(1)) == (HEADS[net],)


@every_network
def test_only_the_named_layers_change(net: str) -> None:
    model, x = classifier(net), images(2)
    assert changed(model, randomized(model, head(model, x), seed=0)) == {HEADS[net]}
    weighted = {name for name, layer in model.network.named_modules() if list(layer.parameters(recurse=False))}
    assert changed(model, randomized(model, every_layer(model, x), seed=0)) == weighted


@every_network
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_classifier_it_comes_from_stays_as_it_is(net: str, depth: str) -> None:
    model, x = classifier(net), images(3)
    model.locate_features(x)
    bits, fingerprint, evidence = state(model), model.fingerprint(), model.evidence(x)
    hooks = [len(layer._forward_hooks) for layer in model.network.modules()]
    other = randomized(model, DEPTHS[depth](model, x), seed=0)
    other(x)
    assert all(torch.equal(value, state(model)[name]) for name, value in bits.items())
    assert [len(layer._forward_hooks) for layer in model.network.modules()] == hooks
    again = model.evidence(x)
    assert torch.equal(again.logits, evidence.logits)
    assert torch.equal(again.features, evidence.features)
    assert model.fingerprint() == fingerprint
    assert other.fingerprint() != fingerprint


@every_network
def test_features_are_read_at_the_same_layer_of_the_new_network(net: str) -> None:
    model, x = classifier(net), images(3)
    model.locate_features(x)
    other = randomized(model, every_layer(model, x), seed=0)
    assert other.features_layer == model.features_layer
    assert not torch.equal(other.evidence(x).features, model.evidence(x).features)
    recomputed = other.find_head(x)
    assert recomputed is not None
    if recomputed.weight is not None:
        assert torch.equal(recomputed.weight, other.network.state_dict()[f"{HEADS[net]}.weight"])
    assert torch.allclose(CAM().explain(other, x, x.new_zeros(3).long(), image_keys("abc")).amax((1, 2)), torch.ones(3))


def test_weights_are_drawn_as_before_training() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 64, 5, padding=2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 200),
    )
    model = Classifier(net)
    with torch.no_grad():
        for value in (*model.network.parameters(), model.network[1].running_mean, model.network[1].running_var):
            value.fill_(7)
    after = state(randomized(model, every_layer(model, images(1)), seed=0))
    for name, fan_in in {"0.weight": 75, "5.weight": 64}.items():
        assert after[name].mean() == pytest.approx(0, abs=0.01)
        assert after[name].std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
    for name, constant in {
        "0.bias": 0,
        "5.bias": 0,
        "1.weight": 1,
        "1.bias": 0,
        "1.running_mean": 0,
        "1.running_var": 1,
    }.items():
        assert (after[name] == constant).all(), name


def test_each_tensor_is_drawn_from_the_seed_and_its_name() -> None:
    model, x = classifier("resnet"), images(1)
    generator = torch.get_rng_state()
    first, again, other = (state(randomized(model, every_layer(model, x), seed)) for seed in (0, 0, 1))
    alone = state(randomized(model, ("fc",), 0))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    assert torch.equal(first["fc.weight"], alone["fc.weight"])
    assert not torch.equal(first["conv.weight"].flatten()[:50], first["body.weight"].flatten()[:50])
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_network_without_weights_has_no_head() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x.mean((2, 3))

    with pytest.raises(UnderfireError, match="no layer that has weights"):
        head(Classifier(Fixed()), images(1))


def test_a_masker_reads_another_classifier_only_when_rebound() -> None:
    model, x, keys = classifier("resnet"), images(3), image_keys("abc")
    y, rts = torch.arange(3), tiny_rts(model)
    other = randomized(model, every_layer(model, x), seed=0)
    with pytest.raises(UnderfireError, match="trained for another classifier"):
        rts.explain(other, x, y, keys)
    maps = rebind(rts, other).explain(other, x, y, keys)
    assert maps.shape == rts.explain(model, x, y, keys).shape
    assert not torch.allclose(maps, rts.explain(model, x, y, keys))
    assert rts.masker.manifest.classifier == model.fingerprint()
    with pytest.raises(UnderfireError, match="trained for another classifier"):
        rebind(rts, other).explain(model, x, y, keys)


def test_interpreters_that_belong_to_no_classifier_stay_as_they_are() -> None:
    cam = CAM()
    assert rebind(cam, classifier("resnet")) is cam
