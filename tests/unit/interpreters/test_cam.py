"""CAM and Grad-CAM against worked examples, against each other, and on the features a user names."""

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import NETWORKS, SMOOTH, VGGShaped, classifier, images, network, seeded
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import normalise_map
from underfire.interpreters import CAM, GradCAM
from underfire.interpreters.protocol import NoBelief
from underfire.models.classifier import Classifier

every_network = pytest.mark.parametrize("net", [*NETWORKS, *SMOOTH])
Y = torch.tensor([0, 3, 4])


class Pooled(nn.Module):
    """Its features are the first two channels of the image, each pixel a cell; a linear layer reads their means."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.features, self.fc = nn.Conv2d(3, 2, 1, bias=False), nn.Linear(2, 2, bias=False)
        self.features.weight = nn.Parameter(torch.eye(2, 3).view(2, 3, 1, 1))
        self.fc.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


@pytest.fixture
def worked_example() -> tuple[Classifier, Tensor]:
    """a1 = [[1, 2], [3, 4]] and a2 = [[0, 1], [0, 2]], brought into [0, 1] by the normalisation."""
    a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    model = Classifier(Pooled([[1.0, -1.0], [0.5, 2.0]]), (0.0, 0.0, 0.0), (0.25, 0.25, 0.25))
    return model, (a / 4).repeat(2, 1, 1, 1)


def test_cam_of_the_worked_example(worked_example: tuple[Classifier, Tensor]) -> None:
    model, x = worked_example
    torch.testing.assert_close(model(x)[0], torch.tensor([1.75, 2.75]))
    maps = CAM().explain(model, x, torch.tensor([0, 1]), torch.tensor([0, 1]))
    expected = torch.tensor([[0, 0, 1, 0.5], [0, 0.45454546, 0.18181819, 1]]).view(2, 2, 2)
    torch.testing.assert_close(maps, expected)


def test_grad_cam_cuts_negative_evidence_off() -> None:
    """a1 - 2 a2 = [[1, 0], [3, -1]]."""
    a = torch.tensor([[[1.0, 2.0], [3.0, 3.0]], [[0.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    model = Classifier(Pooled([[1.0, -2.0], [0.0, 1.0]]), (0.0, 0.0, 0.0), (0.25, 0.25, 0.25))
    maps = GradCAM().explain(model, a[None] / 4, torch.tensor([0]), torch.tensor([0]))
    torch.testing.assert_close(maps, torch.tensor([[[1 / 3, 0], [1, 0]]]))


@pytest.mark.parametrize("net", [name for name in (*NETWORKS, *SMOOTH) if name != "densenet-copying"])
def test_grad_cam_is_its_definition(net: str) -> None:
    """Sum_k alpha_k a_k, alpha_k the mean of d logit_y / d a_k, although behind a pool nothing is differentiated."""
    model, x = classifier(net, torch.float64), images(3, dtype=torch.float64).requires_grad_()
    evidence = model.evidence(x)
    of_class = evidence.logits.gather(1, Y[:, None]).sum()
    alpha = torch.autograd.grad(of_class, evidence.features)[0].mean((2, 3), keepdim=True)
    expected = normalise_map((alpha * evidence.features).sum(1).relu().detach())
    torch.testing.assert_close(GradCAM().explain(model, x, Y, Y), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("interpreter", [CAM(), GradCAM()], ids=lambda g: g.name)
def test_a_relu_in_place_or_not_is_the_same_network(interpreter: CAM | GradCAM) -> None:
    of_one, of_other = (
        interpreter.explain(classifier(net), images(3), Y, Y) for net in ("densenet", "densenet-copying")
    )
    assert torch.equal(of_one, of_other)


@every_network
def test_maps_lie_on_the_features_own_grid(net: str) -> None:
    for interpreter in (CAM(), GradCAM()):
        assert interpreter.explain(classifier(net), images(3, side=32), Y, Y).shape == (3, 8, 8)


@pytest.mark.parametrize("net", ["densenet", "densenet-copying"])
def test_naming_the_layer_that_would_be_found_changes_no_map(net: str) -> None:
    """Also where the network itself rectifies what the layer gives; whichever interpreter comes first."""
    x = images(3)
    for interpreters in ([CAM(), GradCAM()], [GradCAM(), CAM()]):
        found, named = Classifier(network(net)), Classifier(network(net), features="features")
        for interpreter in interpreters:
            assert torch.equal(interpreter.explain(named, x, Y, Y), interpreter.explain(found, x, Y, Y))


def test_a_named_layer_serves_grad_cam_where_cam_does_not_apply() -> None:
    net = seeded(VGGShaped)
    model, x = Classifier(net, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), features="features.3"), images(3)
    maps = GradCAM().explain(model, x, Y, Y)
    features = net.features(x).detach().requires_grad_()
    of_class = net.classifier(features.flatten(1)).gather(1, Y[:, None]).sum()
    alpha = torch.autograd.grad(of_class, features)[0].mean((2, 3), keepdim=True)
    expected = normalise_map((alpha * features).sum(1).relu().detach())
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)
    with pytest.raises(UnderfireError, match=r"CAM needs global average pooling .* 'features.3'.*use Grad-CAM"):
        CAM().explain(model, x, Y, Y)


@pytest.mark.parametrize("net", [*NETWORKS, *SMOOTH])
def test_an_inner_layer_gives_each_image_its_own_finer_map_to_read_and_to_explain(net: str) -> None:
    layer = {"squeezenet": "features.1", "mobilenet": "features.2"}.get(net, "features.0" if "dense" in net else "bn1")
    model, x = Classifier(network(net), features=layer), images(3)
    maps = GradCAM().explain(model, x, Y, Y)
    assert maps.shape == (3, 8, 8)
    assert torch.equal(GradCAM().explain(model, x.flip(0), Y.flip(0), Y), maps.flip(0))
    reading = GradCAM().read(model, NoBelief(), x.requires_grad_(), Y)
    torch.testing.assert_close(reading.maps[:, 0].detach(), maps, rtol=0, atol=1e-5)  # SiLU has two backward kernels
