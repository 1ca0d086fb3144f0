"""Others' explanations: read in any shape, followed as the probe finds, refused in one sentence."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import underfire as uf
from tiny_networks import classifier, images
from underfire.core.losses import log_odds
from underfire.interpreters import Interpreter
from underfire.interpreters.adapters.adapter import Adapter, adapter_named
from underfire.interpreters.adapters.follow import Looked, Queries
from underfire.interpreters.adapters.formulas import FORMULAS
from underfire.interpreters.adapters.probe import probe
from underfire.interpreters.adapters.raw import attributions
from underfire.interpreters.protocol import check_suited, remarks_on
from underfire.interpreters.registry import canonical, foreign, interpreter_named
from underfire.models.classifier import Classifier

X, Y = images(2), torch.tensor([0, 1])


def through_numpy(model: Classifier, x: Tensor, y: Tensor) -> Any:
    """Smooth in the image, and nothing that autograd sees."""
    return np.square(x.detach().numpy() - 0.5).sum(1) * (1 + y.numpy()[:, None, None])


def detached(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return (x.detach() ** 2).sum(1)


def half_detached(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """A map whose larger, opposite part autograd does not see."""
    return (x - 0.5).square().sum(1) - 3 * (x.detach() - 0.5).square().sum(1)


def relu_gradient(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """What autograd can differentiate once more and finds constant."""
    return torch.autograd.grad(log_odds(model(x), y).sum(), x, create_graph=True)[0].abs().amax(1)


def smooth(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return (x - 0.5).square().sum(1)


@pytest.mark.parametrize(
    ("explanation", "verdict", "why"),
    [
        (smooth, "closed form", r"cosine 1\.00"),
        (through_numpy, "queries only", "numpy ndarray, where autograd stops"),
        (detached, "queries only", "detached from the image"),
        (half_detached, "queries only", "is not that of differences"),
    ],
)
def test_the_probe_says_how_and_why(explanation: Callable[..., Any], verdict: str, why: str) -> None:
    found = probe(uf.explainer(explanation), classifier("resnet"), (16, 16))
    assert found.verdict == verdict
    assert re.search(why, found.why)


@pytest.mark.parametrize(
    ("explanation", "remark"),
    [
        (lambda model, x, y: torch.zeros(len(x), 4, 4), "the same in every cell"),
        (lambda model, x, y: torch.rand(len(x), 4, 4), "it draws random numbers"),
        (smooth, "it explains no class"),
        (lambda model, x, y: x.square().sum(1) * torch.linspace(0, 1, 16) ** len(x), "depends on the other images"),
        (lambda model, x, y: x.square().sum(1) * torch.nan, "not finite"),
    ],
)
def test_the_probe_remarks_on_maps(explanation: Callable[..., Any], remark: str) -> None:
    found = probe(uf.explainer(explanation), classifier("resnet"), (16, 16))
    assert any(remark in each for each in found.remarks)


def drawing(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return torch.rand(len(x), 4, 4)


@pytest.mark.parametrize(
    ("explanation", "complaint"),
    [
        (lambda model, x, y: x.square().sum(1) / 0, "are not finite numbers"),
        (lambda model, x, y: torch.zeros(len(x), 4, 4), "gives every cell the same value"),
        (drawing, r"another map when it is called again .* explainer\(…, draws=True\)"),
    ],
)
def test_what_nobody_can_attack_is_refused_before(explanation: Callable[..., Any], complaint: str) -> None:
    model, mine = classifier("resnet"), uf.explainer(explanation)
    with pytest.raises(uf.UnderfireError, match=complaint):
        check_suited(mine, model, X)
    with pytest.raises(uf.UnderfireError, match="finite" if "finite" in complaint else complaint):
        uf.adv2(model, mine, steps=1)(X)


def test_an_explanation_that_says_that_it_draws_is_attacked() -> None:
    assert uf.adv2(classifier("resnet"), uf.explainer(drawing, draws=True), steps=1)(X).adversarial.isfinite().all()


@pytest.mark.parametrize(
    ("interpreter", "said"),
    [
        (uf.explainer(through_numpy), "follows through_numpy by queries only: its result is a numpy ndarray"),
        (uf.explainer(smooth, follow="queries"), "follows smooth by queries only: its derivative is estimated"),
        (uf.Smooth(uf.explainer(smooth)), r"follows smooth by closed form: .*cosine 1\.00"),
        (uf.CAM(), ""),
    ],
)
def test_how_an_attacker_follows_is_said_before(interpreter: Interpreter, said: str) -> None:
    with torch.no_grad():
        assert re.search(said, " ".join(remarks_on(interpreter, classifier("resnet"), X)))


def test_an_explanation_with_numbers_of_single_precision() -> None:
    kernel = torch.ones(1, 3, 2, 2)
    mine = uf.explainer(lambda model, x, y: torch.nn.functional.conv2d(x.square(), kernel))
    assert uf.probe(mine, classifier("resnet"), (16, 16)).verdict == "closed form"


@pytest.mark.parametrize(
    ("returned", "shape"),
    [
        (np.ones((2, 4, 4)), (2, 1, 4, 4)),
        (torch.ones(2, 3, 4, 4), (2, 3, 4, 4)),
        (np.ones((2, 4, 4, 3)), (2, 3, 4, 4)),
        (np.ones((2, 4, 4, 1), np.float32), (2, 1, 4, 4)),
        ([np.ones((4, 4)), np.ones((4, 4))], (2, 1, 4, 4)),
        ((torch.ones(2, 1, 4, 4),), (2, 1, 4, 4)),
    ],
)
def test_common_shapes(returned: Any, shape: tuple[int, ...]) -> None:
    assert attributions(returned, X, "mine").shape == shape


@pytest.mark.parametrize("returned", [None, torch.ones(3, 4, 4), torch.ones(2, 4, 4).long(), torch.ones(2), [1.0, 2.0]])
def test_what_is_no_map_of_each_image(returned: Any) -> None:
    with pytest.raises(uf.UnderfireError, match=r"'mine' explained 2 images by .*; it must return floats of shape"):
        attributions(returned, X, "mine")


def test_queries_estimate_the_gradient() -> None:
    """Of a function whose gradient is as coarse as the directions."""
    x, belief = images(1).double().requires_grad_(), Looked(torch.tensor([7]), torch.tensor([0]))
    weights = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    raw = Queries(directions=400, cells=2)(lambda z: z.mean((1, 2, 3), keepdim=True) * weights, x, belief)
    (found,) = torch.autograd.grad(raw.sum(), x)
    exact = torch.full_like(x, 1 / x[0].numel())
    assert torch.cosine_similarity(found.flatten(1), exact.flatten(1)).item() > 0.85


@pytest.mark.parametrize(
    "name",
    [
        "captum:InputXGradient",
        "gradcam:GradCAMPlusPlus",
        "zennit:EpsilonPlus",
        *(
            pytest.param(name, marks=pytest.mark.extended)
            for name in (
                "captum:IntegratedGradients",
                "captum:GuidedBackprop",
                "captum:LayerGradCam",
                "gradcam:HiResCAM",
            )
        ),
    ],
)
def test_libraries_by_name_are_attacked(name: str) -> None:
    interpreter = interpreter_named(name)
    assert isinstance(interpreter, Adapter)
    assert canonical(name) == name
    result = uf.adv2(classifier("densenet-copying"), interpreter, steps=2)(X)
    assert result.adversarial.isfinite().all()
    assert result.maps.amax() == 1


def test_captum_on_our_layer_is_our_grad_cam() -> None:
    model = classifier("resnet")
    own = uf.GradCAM().explain(model, X, Y, Y)
    captum = adapter_named("captum", "LayerGradCam")
    theirs = Adapter(captum.name, captum.explanation, uf.Post("positive")).explain(model, X, Y, Y)
    torch.testing.assert_close(theirs, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("network", ["resnet", "densenet-copying", "transformer"])
def test_formulas_are_what_the_library_computes(method: str, network: str) -> None:
    model, adapter = classifier(network), adapter_named("gradcam", method)
    theirs, ours = adapter.raw(model, X, Y), adapter.raw(model, X.clone().requires_grad_(), Y)
    assert not theirs.requires_grad
    assert ours.requires_grad
    torch.testing.assert_close(adapter.post(ours, X), adapter.post(theirs, X), rtol=0, atol=1e-4)


def test_captum_reads_no_tokens() -> None:
    with pytest.raises(uf.UnderfireError, match=r"LayerGradCam takes axis 1 of a layer for its channels, .* tokens"):
        adapter_named("captum", "LayerGradCam").explain(classifier("transformer"), X, Y, Y)


def test_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def brightness(model, images, classes):\n    return images.mean(1)\n")
    interpreter = interpreter_named(f"{file}:brightness")
    assert interpreter.name == "mine-brightness"
    assert interpreter.explain(classifier("resnet"), X, Y, Y).shape == (2, 8, 8)
    with pytest.raises(uf.UnderfireError, match="defines no function 'darkness' that explains images"):
        interpreter_named(f"{file}:darkness")
    file.write_text("def brightness(model, images, classes):\n    return images.mine\n")
    with pytest.raises(uf.UnderfireError, match=r"brightness in .* failed to explain: AttributeError: .*line 2"):
        interpreter_named(f"{file}:brightness").explain(classifier("resnet"), X, Y, Y)


@pytest.mark.parametrize("text", ["cam", "rts:masker.safetensors@models.py:build", "smooth:rts:a@models.py:build"])
def test_our_own_names_are_no_others(text: str) -> None:
    assert foreign(text) is None


@pytest.mark.parametrize(
    ("library", "method", "complaint"),
    [
        ("captum", "Salience", r"Captum has no explanation 'Salience' \(did you mean Saliency\?\)"),
        ("gradcam", "GradCam", r"has no explanation 'GradCam' \(did you mean GradCAM\?\)"),
        ("zennit", "EpsilonPlu", r"zennit has no explanation 'EpsilonPlu' \(did you mean EpsilonPlus\?\)"),
        ("nothing.py", "f", "There is no file nothing.py to take the explanation 'f' from"),
    ],
)
def test_names_that_mean_nothing(library: str, method: str, complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        adapter_named(library, method)


def test_explanations_that_fail_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        raise ValueError("no such layer")

    with pytest.raises(uf.UnderfireError, match="'broken' cannot explain: ValueError: no such layer"):
        uf.explainer(broken).explain(classifier("resnet"), X, Y, Y)
    with pytest.raises(uf.UnderfireError, match="An explanation is followed by auto, closed form"):
        uf.explainer(smooth, follow="guess")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(uf.UnderfireError, match=r"pip install 'underfire\[captum\]'"):
        adapter_named("captum", "Saliency")
