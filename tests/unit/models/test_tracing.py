"""Features and head are found in every anatomy, tiny or torchvision's; where there is none the error helps."""

import re
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tiny_networks import NETWORKS, SMOOTH, VGGShaped, classifier, images, network, seeded
from underfire.core.errors import UnderfireError
from underfire.interpreters import CAM, GradCAM
from underfire.models.classifier import Classifier
from underfire.models.features import NO_HEAD, locate
from underfire.models.tracing import Located, find_head, trace

Y = torch.tensor([0, 1])


def head_of(net: nn.Module) -> Located | None:
    with torch.no_grad():
        return find_head(trace(net, net, images(1)))


@pytest.mark.parametrize(
    ("net", "layer", "rectified"),
    [
        ("squeezenet", "classifier.2", False),
        ("resnet", "relu", False),
        ("densenet", "features", False),
        ("densenet-copying", "features", True),
        ("mobilenet", "features", False),
    ],
)
def test_tiny_networks(net: str, layer: str, rectified: bool) -> None:
    """In place, the ReLU that the network itself applies is already in the layer's output; copied, it is not."""
    own = network(net)
    located = head_of(own)
    assert located is not None
    assert (located.layer, located.rectified) == (layer, rectified)
    assert located.head is not None
    if net == "squeezenet":
        assert located.head.weight is None
    else:
        *_, linear = (module for module in own.modules() if isinstance(module, nn.Linear))
        assert located.head.weight is linear.weight


@pytest.mark.parametrize("net", [*NETWORKS, *SMOOTH])
def test_tracing_leaves_no_hook(net: str) -> None:
    own = network(net)
    trace(own, own, images(1))
    assert not any(module._forward_hooks for module in own.modules())


def test_tracing_leaves_no_hook_when_the_network_fails() -> None:
    own = network("resnet")
    with pytest.raises(RuntimeError):
        trace(own, lambda x: own(x[:, :2]), images(1))
    assert not any(module._forward_hooks for module in own.modules())


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("resnet18", "fc.bias"),
        ("densenet121", "classifier.bias"),
        ("mobilenet_v2", "classifier.1.bias"),
        ("squeezenet1_1", None),
    ],
)
def test_torchvisions_networks_pass_the_self_check(name: str, bias: str | None) -> None:
    """mean(map) + bias_y = logit_y for every class, to the rounding of float64."""
    net = seeded(lambda: torchvision.models.get_model(name, weights=None, num_classes=7)).double()
    model, x = Classifier(net), images(2, side=96, dtype=torch.float64)
    head = model.locate_head(x)
    with torch.no_grad():
        evidence = model.evidence(x)
    offset = net.get_parameter(bias) if bias else torch.zeros(7, dtype=torch.float64)
    assert evidence.features.shape[2:].numel() > 1
    for y in range(7):
        maps = head.class_maps(evidence.features, torch.tensor([y, y]))
        torch.testing.assert_close(maps.mean((1, 2)) + offset[y], evidence.logits[:, y], rtol=1e-12, atol=1e-12)
    assert evidence.logits.std() > 1e-3, "a network of zeros would pass any check"


class Sequenced(nn.Module):
    """Features, whatever stands between, and a linear head."""

    def __init__(self, between: Callable[[Tensor], Tensor], inputs: int = 6) -> None:
        super().__init__()
        self.features, self.between, self.fc = nn.Conv2d(3, 6, 3, stride=4), between, nn.Linear(inputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.between(self.features(x)))


@pytest.mark.parametrize(
    "between",
    [
        lambda a: a.mean((2, 3)),
        lambda a: nn.functional.adaptive_avg_pool2d(a, 1).flatten(1),
        lambda a: nn.functional.avg_pool2d(a, 4).view(len(a), -1),
        lambda a: nn.functional.dropout(a.mean((2, 3)), training=False),
        lambda a: a.flatten(2).mean(2),
    ],
)
def test_every_spelling_of_the_pool(between: Callable[[Tensor], Tensor]) -> None:
    net = seeded(lambda: Sequenced(between))
    located = head_of(net)
    assert located is not None
    assert (located.layer, located.rectified) == ("features", False)


@pytest.mark.parametrize(
    "between",
    [
        lambda a: a.amax((2, 3)),
        lambda a: a.square().mean((2, 3)),
        lambda a: a[:, :, 0].mean(2),
        lambda a: a.sum((2, 3)),
        lambda a: a.mean((2, 3)).relu(),
        lambda a: 1.001 * a.mean((2, 3)),
        lambda a: a.mean((2, 3)) + 1e-3,
    ],
)
def test_what_is_no_pool_of_a_layer_is_not_taken_for_one(between: Callable[[Tensor], Tensor]) -> None:
    net = seeded(lambda: Sequenced(between))
    assert head_of(net) is None
    assert locate(net, net, images(1)) == Located("features", obstacle=NO_HEAD.format("its features"))


def test_only_the_named_layer_is_considered() -> None:
    net = network("resnet")
    traced = trace(net, net, images(1))
    assert find_head(traced.named("bn1")) is None
    found = find_head(traced.named("relu"))
    assert isinstance(found, Located)
    assert found.layer == "relu"


def test_grad_cam_takes_the_last_spatial_layer_where_cam_has_no_head() -> None:
    model, x = classifier(seeded(VGGShaped)), images(2)
    assert GradCAM().explain(model, x, Y, Y).shape == (2, 4, 4)
    assert model.assumed == ("Grad-CAM explains 'features'",)
    with pytest.raises(
        UnderfireError, match=r"CAM needs global .*; use Grad-CAM \(grad-cam\), which explains 'features'"
    ):
        CAM().explain(model, x, Y, Y)


def test_the_error_names_layers_that_can_indeed_be_named() -> None:
    net = seeded(VGGShaped)
    with pytest.raises(UnderfireError, match=r"'classifier' gives no feature maps .* Candidates: (.*)\.") as problem:
        GradCAM().explain(Classifier(net, features="classifier"), images(2), Y, Y)
    candidates = re.findall(r"(\S+) \(\d+ × \d+\)", str(problem.value))
    assert candidates == ["features.0", "features.1", "features.2", "features.3", "features"]
    for layer in candidates:
        assert GradCAM().explain(Classifier(net, features=layer), images(2), Y, Y).amax() == 1
