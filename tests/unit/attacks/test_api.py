"""Attacks on tensors: what comes back, what repeats, and a sentence for every argument that does not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tiny_attacks import INTERPRETERS, attack, interpreter_of
from tiny_networks import CLASSES, MEAN, STD, classifier, images, network
from underfire.attacks import solvers
from underfire.attacks.api import Attacker, Result
from underfire.interpreters import Blind
from underfire.metrics.maps import map_l1

EPS = 0.02


@pytest.fixture(scope="module")
def model() -> uf.Classifier:
    return classifier("densenet")


@pytest.fixture
def as_users_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tests' own check of array shapes, which would be first to complain."""
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)


def quick(model: uf.Classifier, interpreter: uf.CAM | None = None, **parameters: Any) -> Attacker:
    return uf.adv2(model, interpreter or uf.CAM(), steps=3, **parameters)


def labels(model: uf.Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).logits.argmax(1)


def differing(a: Result, b: Result) -> list[str]:
    return [name for name, value in vars(a).items() if not torch.equal(value, vars(b)[name])]


@pytest.mark.parametrize("recipe", ["annealed", "paper"])
@pytest.mark.parametrize("interpreter", [uf.CAM(), uf.GradCAM(), uf.GRAD()], ids=lambda g: g.name)
def test_results_are_measured_on_the_adversarial_images(
    model: uf.Classifier, interpreter: uf.CAM, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recipe == "paper":
        monkeypatch.setitem(solvers.RECIPES, "paper", replace(solvers.RECIPES["paper"], warm_steps=3))
    x = images(3)
    result = uf.adv2(model, interpreter, eps=EPS, steps=3, recipe=recipe)(x)
    with torch.no_grad():
        logits = model(result.adversarial).logits
    y = labels(model, x)
    assert torch.equal(result.predicted, logits.argmax(1))
    assert torch.equal(result.success, result.predicted == result.target)
    assert not (result.target == y).any()
    p = logits.softmax(1).gather(1, result.target[:, None])[:, 0]
    torch.testing.assert_close(result.confidence, p, rtol=1e-5, atol=1e-6)
    assert torch.equal(result.maps, interpreter.explain(model, result.adversarial, result.target, result.target))
    assert torch.equal(result.target_map, interpreter.explain(model, x, y, y))
    assert torch.equal(result.map_l1, map_l1(result.maps, result.target_map))
    assert torch.equal(result.linf, (result.adversarial - x).abs().amax((1, 2, 3)))
    assert (result.linf <= EPS + 2**-24).all(), "the ball, to float32's rounding below 1"
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1


def test_pgd_without_an_interpreter_shows_blank_maps(model: uf.Classifier) -> None:
    result = uf.pgd(model, steps=3)(images(2))
    assert torch.equal(result.maps, torch.zeros(2, 1, 1))
    assert torch.equal(result.map_l1, torch.zeros(2))


def test_an_interpreter_only_measures_pgd(model: uf.Classifier) -> None:
    blank, measured = uf.pgd(model, steps=3)(images(2)), uf.pgd(model, uf.CAM(), steps=3)(images(2))
    assert torch.equal(blank.adversarial, measured.adversarial)
    assert torch.equal(measured.maps, uf.CAM().explain(model, measured.adversarial, measured.target, measured.target))


def test_bent_images_are_measured_like_the_others(model: uf.Classifier) -> None:
    """Neither is bound by a ball; plain StAdv takes no notice of the interpreter that measures it."""
    x = images(3)
    blank, measured = uf.stadv(model, steps=3)(x), uf.stadv(model, uf.CAM(), steps=3)(x)
    assert torch.equal(blank.adversarial, measured.adversarial)
    dual = uf.adv2_stadv(model, uf.CAM(), steps=3, map_weight=1e4)(x)
    assert not torch.equal(dual.adversarial, measured.adversarial)
    for result in (measured, dual):
        assert torch.equal(result.maps, uf.CAM().explain(model, result.adversarial, result.target, result.target))
        assert torch.equal(result.linf, (result.adversarial - x).abs().amax((1, 2, 3)))
        assert x.amin((2, 3)).le(result.adversarial.amin((2, 3)) + 2**-24).all()
        assert x.amax((2, 3)).ge(result.adversarial.amax((2, 3)) - 2**-24).all()


def test_equal_arguments_give_equal_bits_and_seeds_choose_targets(model: uf.Classifier) -> None:
    x = images(8)
    assert differing(quick(model, seed=1)(x), quick(model, seed=1)(x)) == []
    assert not torch.equal(quick(model, seed=1)(x).target, quick(model, seed=2)(x).target)


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_target_classes_of_any_integer_type(model: uf.Classifier, dtype: torch.dtype) -> None:
    x = images(3)
    target = (labels(model, x) + 1) % CLASSES
    given = target.to(dtype)
    result = quick(model)(x, target=given)
    assert torch.equal(result.target, target)
    assert result.target.dtype == torch.int64


def test_given_target_maps_are_aimed_at(model: uf.Classifier) -> None:
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = quick(model)(images(3), target_map=maps)
    torch.testing.assert_close(result.target_map, maps.float())
    assert differing(result, quick(model)(images(3))) != []


def test_rules_choose_targets_and_target_maps(model: uf.Classifier) -> None:
    x, rule = images(4), uf.target_class_named("next")
    result = quick(model)(x, target=rule, target_map=uf.Patch())
    assert torch.equal(result.target, (labels(model, x) + 1) % CLASSES)
    assert not torch.equal(result.target_map[0], result.target_map[1])
    benign = quick(model)(x, target=rule)
    torch.testing.assert_close(result.benign_l1, map_l1(result.maps, benign.target_map))
    assert torch.equal(benign.benign_l1, benign.map_l1)


def test_batches_are_a_matter_of_memory_alone() -> None:
    """In float64: one image more or less per batch moves nothing by more than rounding."""
    model, x = classifier("densenet", torch.float64), images(5, dtype=torch.float64)
    small, large = quick(model, batch=2)(x), quick(model, batch=5)(x)
    torch.testing.assert_close(small.adversarial, large.adversarial, rtol=0, atol=1e-15)
    torch.testing.assert_close(small.maps, large.maps, rtol=0, atol=1e-12)


def test_images_keep_their_precision_and_the_model_its_own(model: uf.Classifier) -> None:
    double = quick(model)(images(2, dtype=torch.float64))
    assert double.adversarial.dtype == torch.float64
    assert double.confidence.dtype == torch.float32


@pytest.mark.parametrize("name", INTERPRETERS)
def test_a_model_in_training_mode_gives_the_results_of_evaluation_mode(name: str) -> None:
    """Dropout would draw, and batch normalisation would mix the images."""
    results = []
    for training in (True, False):
        net = network("mobilenet").train(training)
        model = uf.Classifier(net, MEAN, STD)
        interpreter = interpreter_of(name, model)
        results.append(Attacker(model, attack(interpreter, steps=2), interpreter)(images(3)))
    assert differing(*results) == []


BAD_IMAGES = [
    (torch.full((2, 3, 16, 16), torch.nan), "NaN or infinite pixels"),
    (images(2) * 255, r"must lie in \[0, 1\] but span .*divide 8-bit images by 255"),
    (images(2) - 0.5, r"must lie in \[0, 1\] but span"),
    ((images(2) * 255).to(torch.uint8), "must be a floating-point tensor"),
    (images(2)[:, :1], r"shape \(N, 3, H, W\), not \(2, 1, 16, 16\)"),
    (images(2)[0], r"shape \(N, 3, H, W\), not \(3, 16, 16\)"),
    (images(2)[:0], "batch of images is empty"),
    (images(2).numpy(), "must be a floating-point tensor"),
]


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(("x", "complaint"), BAD_IMAGES)
def test_images_that_do_not_fit(model: uf.Classifier, x: Any, complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        quick(model)(x)


@pytest.mark.usefixtures("as_users_call_it")
def test_targets_that_do_not_fit(model: uf.Classifier) -> None:
    x = images(2)
    current = labels(model, x)
    bad = [
        (current, f"Image 0 already is of its target class {int(current[0])}"),
        (torch.stack([(current[0] + 1) % CLASSES, current[1]]), "Image 1 already is of its target class"),
        (torch.tensor([CLASSES, 0]), f"Target class {CLASSES} does not exist; the model has classes 0 to 4"),
        (torch.tensor([-1, 0]), "Target class -1 does not exist"),
        (torch.tensor([1]), "one integer target class per image in a tensor: 2 images, targets of shape"),
        (torch.tensor([1.0, 2.0]), "one integer target class per image"),
        (torch.tensor(1), "one integer target class per image"),
        (3, "one integer target class per image in a tensor: 2 images, targets as int"),
        ([1, 2], "targets as list"),
    ]
    for target, complaint in bad:
        with pytest.raises(uf.UnderfireError, match=complaint):
            quick(model)(x, target=target)


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("maps", "complaint"),
    [
        (torch.zeros(2, 7, 7), r"target maps have shape \(2, 7, 7\); this interpreter's maps have \(2, 4, 4\)"),
        (torch.zeros(1, 4, 4), r"target maps have shape \(1, 4, 4\)"),
        (torch.zeros(4, 4), r"target maps have shape \(4, 4\)"),
        (torch.full((2, 4, 4), 1.5), r"target maps must lie in \[0, 1\]"),
        (torch.full((2, 4, 4), -0.1), r"target maps must lie in \[0, 1\]"),
        (torch.full((2, 4, 4), torch.nan), r"target maps must lie in \[0, 1\]"),
        ([[0.0]], "target maps must be a tensor"),
    ],
)
def test_target_maps_that_do_not_fit(model: uf.Classifier, maps: Any, complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        quick(model)(images(2), target_map=maps)


class Returning(nn.Module):
    """A network that wraps its logits in something."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.net, self.wrap = network("resnet"), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("wrap", "complaint"),
    [
        (lambda v: {"out": v}, "returned a dict"),
        (lambda v: (v, v), "returned a tuple"),
        (lambda v: v.flatten(), r"returned a tensor of shape \(10,\) for 2 images"),
        (lambda v: v[:, :1], "one output; underfire needs at least two classes"),
    ],
)
@pytest.mark.parametrize("interpreter", [None, uf.CAM(), uf.GRAD()])
def test_models_that_do_not_fit(wrap: Any, complaint: str, interpreter: Any) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        uf.pgd(uf.Classifier(Returning(wrap)), interpreter)(images(2))


def test_the_public_names_are_there() -> None:
    assert all(hasattr(uf, name) for name in uf.__all__)
    assert isinstance(uf.pgd(classifier("resnet")).interpreter, Blind)
