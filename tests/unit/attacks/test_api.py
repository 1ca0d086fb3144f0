"""Attacks on tensors: what comes back, what repeats, and a sentence for every argument that does not fit."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tiny_attacks import FEW, RULES, attack, differing_rows, interpreter_of
from tiny_networks import CLASSES, MEAN, STD, classifier, images, network
from underfire.attacks import recipes
from underfire.attacks.api import Attacker
from underfire.core.image_ops import to_8bit
from underfire.core.types import Reading
from underfire.data.regions import Box
from underfire.interpreters import Blind
from underfire.interpreters.protocol import ClosedForm
from underfire.metrics.maps import FAINT, PLAUSIBLE, compare_maps, map_l1

EPS = 0.02


@pytest.fixture(scope="module", autouse=True)
def _short_warm_starts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RECIPES", "FLOW_RECIPES"):
            known = getattr(recipes, name)
            patch.setattr(recipes, name, {**known, "annealed": replace(known["annealed"], warm_steps=3)})
        yield


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
        return model(x).argmax(1)


@pytest.mark.parametrize("recipe", ["annealed", "paper"])
@pytest.mark.parametrize("interpreter", [uf.CAM(), uf.GradCAM(), uf.GRAD()], ids=lambda g: g.name)
def test_results_are_measured_on_the_adversarial_images(
    model: uf.Classifier, interpreter: uf.CAM, recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recipe == "paper":
        monkeypatch.setitem(recipes.RECIPES, "paper", replace(recipes.RECIPES["paper"], warm_steps=3))
    x = images(3)
    result = uf.adv2(model, interpreter, eps=EPS, steps=3, recipe=recipe)(x)
    with torch.no_grad():
        logits = model(result.adversarial)
    y = labels(model, x)
    assert torch.equal(result.predicted, logits.argmax(1))
    assert torch.equal(result.success, result.predicted == result.target)
    assert not (result.target == y).any()
    p = logits.softmax(1).gather(1, result.target[:, None])[:, 0]
    torch.testing.assert_close(result.confidence, p, rtol=1e-5, atol=1e-6)
    assert torch.equal(result.maps, interpreter.explain(model, result.adversarial, result.predicted, result.target))
    assert torch.equal(result.target_map, interpreter.explain(model, x, y, y))
    assert torch.equal(result.map_l1, map_l1(result.maps, result.target_map))
    assert torch.equal(result.iou, compare_maps(result.maps, result.target_map)["iou_mean"])
    assert torch.equal(result.benign_maps, result.target_map)
    assert torch.equal(result.labels, y)
    with torch.no_grad():
        assert torch.equal(result.success_8bit, model(to_8bit(result.adversarial)).argmax(1) == result.target)
    seen = result.target_map.amax((1, 2)) - result.target_map.amin((1, 2)) >= FAINT
    assert torch.equal(result.plausible, ((result.iou > PLAUSIBLE) | (result.map_l1 == 0)) & seen)
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
    assert torch.equal(
        measured.maps, uf.CAM().explain(model, measured.adversarial, measured.predicted, blank.predicted)
    )


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_region_is_a_mask_for_all_for_each_or_described(model: uf.Classifier, norm: str) -> None:
    x, inside = images(2), torch.zeros(16, 16, dtype=torch.bool)
    inside[4:10, 2:9] = True
    attack = quick(model, norm=norm, eps=0.5)
    one, each, described = (attack(x, region=r) for r in (inside, inside.expand(2, 16, 16), Box(2, 4, 7, 6)))
    assert torch.equal(one.adversarial, each.adversarial)
    assert torch.equal(one.adversarial, described.adversarial)
    changed = (one.adversarial != x).any(1)
    assert bool((changed & inside).any())
    assert not bool((changed & ~inside).any())
    with pytest.raises(uf.UnderfireError, match=r"region is torch.bool of shape \(8, 8\); it must be bool, \(16, 16\)"):
        attack(x, region=inside[:8, :8])


def test_bent_images_are_measured_like_the_others(model: uf.Classifier) -> None:
    """Neither is bound by a ball; plain StAdv takes no notice of the interpreter that measures it."""
    x = images(3)
    blank, measured = uf.stadv(model, steps=3)(x), uf.stadv(model, uf.CAM(), steps=3)(x)
    assert torch.equal(blank.adversarial, measured.adversarial)
    dual = uf.adv2_stadv(model, uf.CAM(), steps=3, map_weight=1e4)(x)
    assert not torch.equal(dual.adversarial, measured.adversarial)
    for result in (measured, dual):
        assert torch.equal(result.maps, uf.CAM().explain(model, result.adversarial, result.predicted, result.target))
        assert torch.equal(result.linf, (result.adversarial - x).abs().amax((1, 2, 3)))
        assert x.amin((2, 3)).le(result.adversarial.amin((2, 3)) + 2**-24).all()
        assert x.amax((2, 3)).ge(result.adversarial.amax((2, 3)) - 2**-24).all()


def test_equal_arguments_give_equal_bits_and_seeds_choose_targets(model: uf.Classifier) -> None:
    x = images(8)
    assert differing_rows(quick(model, seed=1)(x), quick(model, seed=1)(x)) == []
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
    assert differing_rows(result, quick(model)(images(3))) != []


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


@pytest.mark.parametrize("name", FEW)
def test_parts_of_the_images_under_their_own_names_give_what_all_give(name: str) -> None:
    """Target classes, noise and jitter are drawn from the names, and every batch is of one size, the last one too."""
    model, x = classifier("densenet"), images(7)
    interpreter = interpreter_of(name, model)
    attacker = Attacker(model, attack(interpreter, **RULES.get(name, {}), rungs=(2,)), interpreter, batch=2)
    names = [f"{i}.png" for i in range(7)]
    whole = attacker(x, ids=names)
    for chunk in (slice(0, 2), slice(2, 6), slice(5, 7)):
        part = attacker(x[chunk], ids=names[chunk])
        assert part.ids == whole.ids[chunk]
        for column, value in vars(part).items():
            if column != "ids":
                torch.testing.assert_close(value, vars(whole)[column][chunk], rtol=0, atol=0, equal_nan=True)


def test_images_are_named_by_their_places_unless_told(model: uf.Classifier) -> None:
    x = images(4)
    assert differing_rows(quick(model)(x), quick(model)(x, ids=range(4))) == []
    assert not torch.equal(quick(model)(images(9)).target, quick(model)(images(9), ids=range(9, 18)).target)


def test_no_pass_takes_more_images_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = classifier("densenet"), set[int]()
    forward = uf.Classifier.__call__

    def counted(self: uf.Classifier, x: Tensor) -> Any:
        sizes.add(len(x))
        return forward(self, x)

    monkeypatch.setattr(uf.Classifier, "__call__", counted)
    quick(model, batch=2)(images(5))
    assert sizes <= {1, 2}


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize("ids", ["ab", ["a"], ["a", "a"], ["a", "b", "c"], []])
def test_names_that_do_not_fit(model: uf.Classifier, ids: Any) -> None:
    with pytest.raises(uf.UnderfireError, match="as many different names as there are images, here 2"):
        quick(model)(images(2), ids=ids)


@pytest.mark.usefixtures("as_users_call_it")
def test_targets_as_lists_arrays_and_one_for_all(model: uf.Classifier) -> None:
    x = images(3)
    target = (labels(model, x) + 1) % CLASSES
    for given in (target.tolist(), tuple(target.tolist()), target.numpy(), list(target)):
        assert torch.equal(quick(model)(x, given).target, target)
    common = next(k for k in range(CLASSES) if k not in labels(model, x))
    for given in (common, torch.tensor(common), target.numpy()[:1].dtype.type(common)):
        assert quick(model)(x, target=given).target.tolist() == [common] * 3


def test_true_labels_in_the_place_of_targets_are_explained(model: uf.Classifier) -> None:
    """As users of other libraries call an attack: attack(x, y)."""
    x = images(2)
    with pytest.raises(uf.UnderfireError, match="target= takes the classes that the attack is to reach, not the true"):
        quick(model)(x, labels(model, x))


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"eps": 8}, r"eps is 8; it must be at least 0 and at most 1; did you mean eps=8/255\?"),
        ({"eps": 1.5}, r"did you mean eps=1\.5/255"),
        ({"eps": -1}, "eps is -1; it must be at least 0 and at most 1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": float("inf")}, "eps is inf"),
        ({"eps": "8/255"}, "eps must be a number, not '8/255'"),
        ({"steps": -1}, "steps is -1; it must be a whole number from 0 on"),
        ({"steps": 2.5}, r"steps must be a whole number, not 2\.5"),
        ({"steps": True}, "steps must be a whole number, not True"),
        ({"map_weight": -1.0}, "map_weight is -1; it must be at least 0"),
        ({"map_weight": float("nan")}, "map_weight is nan"),
        ({"batch": 0}, "batch is 0; it must be a whole number from 1 on"),
        ({"batch": 1.5}, "batch must be a whole number"),
        ({"seed": 0.5}, "The seed must be a whole number"),
        ({"seed": None}, "The seed must be a whole number"),
    ],
)
def test_numbers_out_of_range(model: uf.Classifier, parameters: dict[str, Any], complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        uf.adv2(model, uf.CAM(), **parameters)


@dataclass(frozen=True)
class Own(ClosedForm):
    """An interpreter whose maps are what a function makes of good ones."""

    spoil: Any = field(compare=False)
    spoil_read: Any = field(default=lambda maps: maps, compare=False)

    @property
    def name(self) -> str:
        return "own"

    def explain(self, classifier: uf.Classifier, x: Tensor, y: Tensor, keys: Tensor) -> Any:
        return self.spoil(uf.CAM().explain(classifier, x, y, keys))

    def read(self, classifier: uf.Classifier, belief: Any, x: Tensor, y: Tensor) -> Reading:
        read = uf.CAM().read(classifier, belief, x, y)
        return replace(read, maps=self.spoil_read(read.maps))


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda m: m.index_fill(0, torch.tensor([1]), torch.nan), "'own' explained image b by a map from nan to nan"),
        (lambda m: 2 * m, "'own' explained image a by a map from 0 to 2; maps must be finite and in"),
        (lambda m: m - 0.5, r"by a map from -0\.5 to 0\.5"),
        (
            lambda m: m[:, None],
            r"explained 2 images by torch\.float32 of shape \(2, 1, 4, 4\); maps must be one tensor",
        ),
        (lambda m: m[:1], r"of shape \(1, 4, 4\)"),
        (lambda m: m[0], r"of shape \(4, 4\)"),
        (lambda m: m > 0.5, r"by torch\.bool of shape"),
        (lambda m: m.numpy(), "explained 2 images by ndarray"),
        (lambda m: None, "explained 2 images by NoneType"),
    ],
)
def test_maps_of_own_interpreters_that_are_none(model: uf.Classifier, spoil: Any, complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        quick(model, Own(spoil))(images(2), ids=["a", "b"])


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize("spoil", [lambda m: m[:, 0], lambda m: m[..., 1:], lambda m: m[:1]])
def test_readings_of_own_interpreters_that_do_not_fit_their_maps(model: uf.Classifier, spoil: Any) -> None:
    with pytest.raises(uf.UnderfireError, match=r"attacker's maps of 'own' have shape .* 2 images and 4 × 4 cells"):
        quick(model, Own(lambda maps: maps, spoil))(images(2))


@pytest.mark.parametrize("recipe", ["paper"])
@pytest.mark.parametrize("name", ["grad", "mask"])
def test_own_interpreters_with_a_name_that_is_taken(model: uf.Classifier, recipe: str, name: str) -> None:
    taken = type("Taken", (Own,), {"name": name})(lambda maps: maps)
    with pytest.raises(uf.UnderfireError, match=f"named '{name}', as one of underfire's is"):
        quick(model, taken, recipe=recipe)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda v: v.softmax(1), "returns probabilities .* underfire needs logits"),
        (lambda v: v.softmax(1).half().float(), "returns probabilities"),
        (lambda v: torch.where(v > 100, v, torch.nan), "outputs for image a and 1 more are not finite numbers"),
        (lambda v: torch.cat([v[:1], v[1:] * torch.inf]), "outputs for image b are not finite numbers"),
    ],
)
def test_outputs_that_are_no_logits(make: Any, complaint: str) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        quick(uf.Classifier(Returning(make)))(images(2), ids=["a", "b"])


def test_images_keep_their_precision_and_the_model_its_own(model: uf.Classifier) -> None:
    double = quick(model)(images(2, dtype=torch.float64))
    assert double.adversarial.dtype == torch.float64
    assert double.confidence.dtype == torch.float32


@pytest.mark.parametrize("name", FEW)
def test_a_model_in_training_mode_gives_the_results_of_evaluation_mode(name: str) -> None:
    """Dropout would draw, and batch normalisation would mix the images."""
    results = []
    for training in (True, False):
        net = network("mobilenet").train(training)
        model = uf.Classifier(net, MEAN, STD)
        interpreter = interpreter_of(name, model)
        results.append(Attacker(model, attack(interpreter, rungs=(2,)), interpreter)(images(3)))
    assert differing_rows(*results) == []


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
        (current, f"Image 0 is already of its target class {int(current[0])}"),
        (torch.stack([(current[0] + 1) % CLASSES, current[1]]), "Image 1 is already of its target class"),
        (torch.tensor([CLASSES, 0]), f"Target class {CLASSES} does not exist; the model has classes 0 to 4"),
        (torch.tensor([-1, 0]), "Target class -1 does not exist"),
        (torch.tensor([1]), "one integer target class per image, or one for all: 2 images, targets of shape"),
        (torch.tensor([1.0, 2.0]), "one integer target class per image"),
        (torch.tensor(1.0), "one integer target class per image"),
        ([1, 2, 3], r"2 images, targets of shape \(3,\)"),
        ([0.5, 1], "2 images, targets as list"),
        ([True, False], "targets as list"),
        ("cat", "targets as str"),
        (CLASSES, f"Target class {CLASSES} does not exist"),
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
        (lambda v: (v[0], v), "returned a tuple"),
        (lambda v: v.flatten(), r"returned a tensor of shape \(10,\) for 2 images"),
    ],
)
@pytest.mark.parametrize("interpreter", [None, uf.CAM(), uf.GRAD()])
def test_models_that_do_not_fit(wrap: Any, complaint: str, interpreter: Any) -> None:
    with pytest.raises(uf.UnderfireError, match=complaint):
        uf.pgd(uf.Classifier(Returning(wrap)), interpreter)(images(2))


def test_the_public_names_are_there() -> None:
    assert all(hasattr(uf, name) for name in uf.__all__)
    assert isinstance(uf.pgd(classifier("resnet")).interpreter, Blind)


@pytest.mark.usefixtures("as_users_call_it")
@pytest.mark.parametrize("attack", [uf.pgd, lambda net: uf.adv2(net, uf.CAM())])
def test_a_bare_network_is_told_how_to_be_wrapped(attack: Any) -> None:
    with pytest.raises(uf.UnderfireError, match=r"which a \w+ does not say; wrap it: underfire\.Classifier\(net, mean"):
        attack(network("resnet"))


def test_what_is_made_on_the_grid_is_what_a_png_file_holds(model: uf.Classifier) -> None:
    x = images(3, dtype=torch.float32)
    result = uf.adv2(model, uf.CAM(), steps=3, on_grid=True)(x)
    assert torch.equal(result.adversarial, (255 * result.adversarial).round() / 255)
    assert float(result.linf.max()) <= 8 / 255 + 1e-6
