"""Networks return their scores in many forms; which one was found is said."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tiny_networks import CLASSES, MEAN, STD, images, network
from underfire.models.classifier import Classifier
from underfire.models.outputs import log_probabilities, two_sided

X, HEADS = images(3), (1, CLASSES)


class Ending(nn.Module):
    """The residual network with some ending of its own."""

    def __init__(self, end: Callable[[Tensor], Any], classes: int = CLASSES) -> None:
        super().__init__()
        self.net, self.end = network("resnet"), end
        self.net.fc = nn.Linear(12, classes, bias=False)
        with torch.no_grad():
            self.net.fc.weight.copy_(torch.linspace(-1, 1, 12 * classes).sin().view(classes, 12))

    def forward(self, x: Tensor) -> Any:
        return self.end(self.net(x))


def model(end: Callable[[Tensor], Any], classes: int = CLASSES, **given: Any) -> Classifier:
    return Classifier(Ending(end, classes), MEAN, STD, **given)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda v: v, ()),
        (lambda v: SimpleNamespace(logits=v, loss=None), ("logits are the output's .logits",)),
        (lambda v: {"loss": None, "logits": v}, ("logits are the output's entry 'logits'",)),
        (lambda v: (v, v + 1), ("logits are the first tensor of the output",)),
        (lambda v: [None, v], ("logits are the first tensor of the output",)),
    ],
)
def test_where_logits_are(end: Callable[[Tensor], Any], said: tuple[str, ...]) -> None:
    found = model(end)
    assert torch.equal(found(X), model(lambda v: v)(X))
    assert found.assumed == said
    assert uf.adv2(found, uf.CAM(), steps=2)(X).adversarial.isfinite().all()


def test_one_logit_is_that_of_class_1_against_class_0() -> None:
    found, single = model(lambda v: v, classes=1), []
    found.network.net.fc.register_forward_hook(lambda module, inputs, output: single.append(output))
    p = found(X).softmax(1)[:, 1]
    torch.testing.assert_close(p, single[-1].sigmoid()[:, 0])
    assert found.assumed == ("its one output speaks for class 1 against class 0",)


@pytest.mark.parametrize("interpreter", [uf.CAM(), uf.GRAD(), uf.GradCAM()], ids=lambda each: each.name)
def test_networks_of_one_logit_are_attacked_and_explained(interpreter: Any) -> None:
    result = uf.adv2(model(lambda v: v, classes=1), interpreter, steps=2)(X)
    assert result.target.max() <= 1
    assert result.maps.amax((1, 2)).max() == 1


def test_the_head_of_one_logit_passes_cams_self_check() -> None:
    found = model(lambda v: v, classes=1)
    head, evidence = found.locate_head(X), found.evidence(X)
    for y in (0, 1):
        means = head.class_maps(evidence.features, torch.full((3,), y)).mean((1, 2))
        offset = (evidence.logits[:, y] - means).detach()
        torch.testing.assert_close(offset, offset[:1].expand(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", HEADS)
def test_probabilities_become_logits_when_asked_for(classes: int) -> None:
    """Up to a constant that no probability depends on, where the ending is what it seems."""
    squash = torch.sigmoid if classes == 1 else lambda v: v.softmax(1)
    found, plain = model(squash, classes, outputs="probabilities"), model(lambda v: v, classes)
    torch.testing.assert_close(found(X).softmax(1), plain(X).softmax(1))
    assert found.assumed[-1] == "logits are the logarithm of its probabilities"
    assert found.fingerprint() != model(squash, classes).fingerprint()


def test_cam_sees_through_a_softmax() -> None:
    y = torch.tensor([0, 1, 2])
    maps = [
        uf.CAM().explain(each, X, y, y)
        for each in (model(lambda v: v.softmax(1), outputs="probabilities"), model(lambda v: v))
    ]
    assert torch.equal(*maps)


def test_probabilities_that_nobody_mentioned_are_refused() -> None:
    with pytest.raises(uf.UnderfireError, match=r"returns probabilities .*\(--outputs probabilities\)"):
        uf.pgd(model(lambda v: v.softmax(1)))(X)
    with pytest.raises(uf.UnderfireError, match="There are no outputs 'scores'; a model's outputs are logits or prob"):
        model(lambda v: v, outputs="scores")


def test_certain_classes_have_finite_logits() -> None:
    assert log_probabilities(torch.tensor([[1.0, 0.0]])).isfinite().all()
    assert log_probabilities(torch.tensor([[1.0]])).isfinite().all()
    assert torch.equal(two_sided(torch.tensor([[2.0]])), torch.tensor([[-1.0, 1.0]]))


class Grey(nn.Module):
    """Two classes of pictures of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).relu().mean((2, 3)))
        return logits


def test_networks_of_one_channel_see_the_grey_of_the_picture() -> None:
    torch.manual_seed(0)
    net = Grey()
    found = Classifier(net, (0.4,), (0.5,))
    luma = (0.299 * X[:, :1] + 0.587 * X[:, 1:2] + 0.114 * X[:, 2:] - 0.4) / 0.5
    torch.testing.assert_close(found(X), net(luma))
    assert found.assumed == ("pictures as grey",)
    assert uf.adv2(found, uf.GRAD(), steps=2)(X).adversarial.isfinite().all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_attacked_in_single_unless_asked_for(half: torch.dtype) -> None:
    found, asked = (Classifier(network("resnet").to(half), MEAN, STD, dtype=dtype) for dtype in (None, half))
    assert (found.dtype, asked.dtype) == (torch.float32, half)
    assert found.assumed == (f"computed in float32, its weights are {str(half).removeprefix('torch.')}",)
    assert asked.assumed == ()
    assert found(X).dtype == torch.float32
