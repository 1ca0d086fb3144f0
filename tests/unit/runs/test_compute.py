"""Stages: what names a piece of work, and that each one computes what it says, once."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from underfire.attacks import engine
from underfire.attacks.engine import Progress
from underfire.attacks.perturbations import Pixels
from underfire.attacks.solvers import adv2, pgd
from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import is_constant
from underfire.core.io import read_json
from underfire.core.types import Goal
from underfire.data.corruptions import JPEG, PNG, Blur, Corruption, Crop, Noise
from underfire.data.decode import ArraySource
from underfire.data.image_set import ImageSet, open_images
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing, Scorer, look
from underfire.detection.squeezers import BitDepth, Median
from underfire.interpreters import CAM, GRAD, MASK, GradCAM
from underfire.interpreters.mask.deletion import Geometry
from underfire.interpreters.mask.solver import Solver
from underfire.interpreters.randomize import DEPTHS, randomized
from underfire.metrics.maps import compare_maps
from underfire.models.classifier import Classifier
from underfire.models.copying import fingerprint as hash_of
from underfire.runs.compute import Context, choose, find, keep, run_stage
from underfire.runs.specs import (
    Craft,
    Detect,
    Explain,
    ExplainRandomised,
    Locate,
    RandomPoints,
    Reported,
    Saved,
    Select,
    Spec,
    TargetClasses,
    Vary,
    describe,
    key,
)
from underfire.runs.store import Store

SELECT = Select("model", "images", n=5, seed=0)
TARGETS = TargetClasses(SELECT, seed=0)
PLAIN = replace(pgd(steps=3), warm_start=None)
CRAFT = Craft(TARGETS, PLAIN, None, None)
POINTS = RandomPoints(SELECT, Pixels(0.1), seed=0, start=1)
MAPS = Explain(SELECT, CAM())
LOCATE = Locate("model", "images", "masks", n=5, seed=0)
FORGOTTEN = ExplainRandomised(SELECT, CAM(), "all", seed=0)
SPECS: tuple[Spec, ...] = (
    SELECT,
    TARGETS,
    CRAFT,
    POINTS,
    Craft(TARGETS, PLAIN, None, POINTS),
    Craft(TARGETS, replace(adv2(CAM(), steps=2), warm_start=None), MAPS, CRAFT),
    MAPS,
    Explain(CRAFT, GRAD()),
    Saved(CRAFT, PNG()),
    Saved(CRAFT, JPEG(95)),
    Saved(CRAFT, JPEG(75)),
    Explain(Saved(CRAFT, JPEG(75)), CAM()),
    Detect(key(CRAFT), FeatureSqueezing(BitDepth(2))),
    Detect(key(CRAFT), FeatureSqueezing(BitDepth(3))),
    Detect(key(SELECT), FeatureSqueezing(BitDepth(2))),
    Reported(key(SELECT), CAM()),
    Reported(key(CRAFT), CAM()),
    Reported(key(SELECT), GRAD()),
    Detect(key(SELECT), Consistency(CAM(), Blur())),
    Detect(key(SELECT), Consistency(CAM(), Blur(0.9))),
    Detect(key(SELECT), Consistency(CAM(), Noise())),
    Detect(key(SELECT), Disagreement(CAM(), GRAD())),
    Vary(MAPS),
    Vary(MAPS, changes=(Noise(), Blur())),
    LOCATE,
    Explain(LOCATE, CAM()),
    FORGOTTEN,
)

# ------------------------------------------------------------------ identity


def test_equal_specs_have_equal_keys_and_different_ones_different_keys() -> None:
    again = (Select("model", "images", 5, 0), TargetClasses(Select("model", "images", 5, 0), 0))
    assert [key(spec) for spec in again] == [key(SELECT), key(TARGETS)]
    assert len({key(spec) for spec in SPECS}) == len(SPECS)


@pytest.mark.parametrize(
    ("spec", "other"),
    [
        (SELECT, replace(SELECT, seed=1)),
        (SELECT, replace(SELECT, version=3)),
        (TARGETS, TargetClasses(replace(SELECT, model="another"), 0)),
        (CRAFT, Craft(TARGETS, replace(PLAIN, quantum=51), None, None)),
        (Craft(TARGETS, pgd(eps=8 / 255), None, None), Craft(TARGETS, pgd(eps=8.1 / 255), None, None)),
        (Craft(TARGETS, adv2(CAM()), MAPS, None), Craft(TARGETS, adv2(CAM(), map_weight=1.0), MAPS, None)),
        (Explain(SELECT, CAM()), Explain(SELECT, GradCAM())),
        (MAPS, replace(MAPS, draw=1)),
        (Saved(CRAFT, JPEG(95)), Saved(CRAFT, JPEG(94))),
        (LOCATE, replace(LOCATE, masks="others")),
        (POINTS, replace(POINTS, start=2)),
        (POINTS, replace(POINTS, perturbation=Pixels(0.2))),
        (FORGOTTEN, replace(FORGOTTEN, depth="head")),
        (FORGOTTEN, replace(FORGOTTEN, seed=1)),
    ],
)
def test_whatever_changes_the_result_changes_the_key(spec: Spec, other: Spec) -> None:
    assert key(spec) != key(other)


def test_a_key_stays_the_same_in_later_processes_and_versions() -> None:
    assert key(SELECT) == "2ff97f69be2a9a6352d0"
    assert key(TARGETS) == "487561bae1fd2fcbfcaa"


@dataclass(frozen=True)
class Inner:
    values: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    weights: Mapping[str, Inner]
    nothing: None = None


def test_a_description_is_plain_json_with_types_and_sorted_names() -> None:
    described = describe(Outer(Inner((1, 2)), {"z": Inner(()), "a": Inner((3,))}))
    assert described == {
        "type": "Outer",
        "inner": {"type": "Inner", "values": [1, 2]},
        "weights": {"a": {"type": "Inner", "values": [3]}, "z": {"type": "Inner", "values": []}},
        "nothing": None,
    }
    assert list(described["weights"]) == ["a", "z"]


@dataclass(frozen=True)
class Trained:
    digest: str
    weights: nn.Module = field(compare=False)


def test_what_is_left_out_of_comparison_is_no_part_of_the_identity() -> None:
    assert describe(Trained("abc", nn.Linear(1, 1))) == {"type": "Trained", "digest": "abc"}


def test_an_attack_is_described_by_its_parameters() -> None:
    described = describe(PLAIN)
    assert described["rule"]["alpha"] == {"type": "Cosine", "start": 2 / 255, "end": 0.0, "steps": 3}
    assert described["perturbation"] == {"type": "Pixels", "eps": 8 / 255}


# ------------------------------------------------------------------ choosing


@pytest.fixture
def classifier(tiny_model: str) -> Classifier:
    return Classifier.load(tiny_model, None, "none")


@pytest.fixture
def image_set(tiny_photos: Path) -> ImageSet:
    return open_images(tiny_photos)


class Failing(nn.Module):
    """A network that raises what it was given."""

    def __init__(self, problem: Exception) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor) -> Tensor:
        raise self.problem


@pytest.mark.parametrize("problem", [RuntimeError("mat1 and mat2"), AssertionError("wrong size"), KeyError("head")])
def test_a_model_that_fails_on_the_images_is_one_sentence(image_set: ImageSet, problem: Exception) -> None:
    with pytest.raises(UnderfireError, match=r"The model failed on images of 16×16 pixels: .*(mat1|wrong|head)"):
        choose(SELECT, image_set, Classifier(Failing(problem)))


def test_what_is_wrong_with_the_logits_keeps_its_own_words(image_set: ImageSet) -> None:
    with pytest.raises(UnderfireError, match="needs logits of shape"):
        choose(SELECT, image_set, Classifier(nn.Identity()))


def test_chosen_images_are_kept_with_their_labels(tmp_path: Path, image_set: ImageSet, classifier: Classifier) -> None:
    selection, store = choose(SELECT, image_set, classifier), Store(tmp_path)
    keep(SELECT, selection.samples, store)
    samples = selection.samples
    assert store.done(key(SELECT)) == samples.ids
    assert torch.equal(store.read(key(SELECT), "image", samples.ids), samples.images)
    assert torch.equal(store.read(key(SELECT), "label", samples.ids), samples.labels)


# ------------------------------------------------------------------ computing


@pytest.fixture
def context(tmp_path: Path, image_set: ImageSet, classifier: Classifier) -> Context:
    """A store that holds five chosen images; two are worked on at a time."""
    store = Store(tmp_path)
    keep(SELECT, choose(SELECT, image_set, classifier).samples, store)
    return Context(classifier, store, batch_size=2)


def ids_of(context: Context) -> tuple[str, ...]:
    return context.store.done(key(SELECT))


def compute(context: Context, *specs: Spec) -> None:
    for spec in specs:
        run_stage(spec, ids_of(context), context)


def rows(context: Context, spec: Spec, name: str) -> Tensor:
    return context.store.read(key(spec), name, ids_of(context))


def test_targets_are_other_classes_and_do_not_depend_on_the_company(context: Context) -> None:
    alone, third = replace(TARGETS, version=99), ids_of(context)[2:3]
    compute(context, TARGETS)
    run_stage(alone, third, context)
    labels, targets = rows(context, SELECT, "label"), rows(context, TARGETS, "target")
    assert set(targets.tolist()) <= {0, 1, 2}
    assert not bool((labels == targets).any())
    assert context.store.read(key(alone), "target", third) == targets[2:3]


def test_maps_explain_the_label_of_benign_and_the_reported_class_of_crafted_images(context: Context) -> None:
    compute(context, TARGETS, CRAFT, Explain(SELECT, GRAD()), Explain(CRAFT, GRAD()))
    keys = rng.image_keys(ids_of(context))
    for of, classes in ((SELECT, rows(context, SELECT, "label")), (CRAFT, rows(context, CRAFT, "predicted"))):
        expected = GRAD().explain(context.classifier, rows(context, of, "image"), classes, keys)
        assert torch.allclose(rows(context, Explain(of, GRAD()), "map"), expected, atol=1e-5)
        assert torch.equal(rows(context, Explain(of, GRAD()), "constant"), is_constant(expected))


def test_located_images_are_explained_for_the_class_that_the_classifier_reports(
    tmp_path: Path, image_set: ImageSet, classifier: Classifier
) -> None:
    wrong = replace(image_set, labels=(image_set.labels + 1) % 3)
    store, white = Store(tmp_path), replace(image_set, source=ArraySource(np.full((12, 16, 16, 3), 255, np.uint8)))
    located, predicted = find(LOCATE, wrong, white, classifier)
    keep(LOCATE, located.samples, store, object=located.objects, predicted=predicted)
    ids = store.done(key(LOCATE))
    run_stage(Explain(LOCATE, CAM()), ids, Context(classifier, store, batch_size=2))
    assert ids == located.samples.ids
    assert torch.equal(predicted, (located.samples.labels - 1) % 3)
    assert bool(store.read(key(LOCATE), "object", ids).all())
    expected = CAM().explain(classifier, located.samples.images, predicted, rng.image_keys(ids))
    assert torch.allclose(store.read(key(Explain(LOCATE, CAM())), "map", ids), expected, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_forgotten_maps_are_those_of_a_copy_and_do_not_depend_on_the_company(context: Context, depth: str) -> None:
    spec, model = replace(FORGOTTEN, depth=depth), context.classifier
    fingerprint, third = model.fingerprint(), ids_of(context)[2:3]
    run_stage(spec, third, context)
    compute(context, spec)
    x, y, keys = rows(context, SELECT, "image"), rows(context, SELECT, "label"), rng.image_keys(ids_of(context))
    reset = randomized(model, DEPTHS[depth](model, x), seed=0)
    assert torch.allclose(rows(context, spec, "map"), CAM().explain(reset, x, y, keys), atol=1e-5)
    assert not torch.allclose(rows(context, spec, "map"), CAM().explain(model, x, y, keys), atol=1e-2)
    assert hash_of(model.network, model.mean, model.std) == fingerprint


def test_another_draw_differs_where_the_interpreter_draws_and_nowhere_else(context: Context) -> None:
    drawing = MASK(Solver(steps=4, geometry=Geometry(cell=4, image_taps=5, mask_taps=3, jitter=2)))
    for interpreter, differs in ((drawing, True), (CAM(), False)):
        once, again = (Explain(SELECT, interpreter, draw) for draw in (0, 1))
        compute(context, once, again)
        assert torch.equal(rows(context, once, "map"), rows(context, again, "map")) != differs


def test_natural_variation_is_between_the_moved_benign_map_and_that_of_the_changed_image(context: Context) -> None:
    """Each change in its column; alone or in company."""
    spec, alone = (Vary(MAPS, changes=(Noise(), Crop(0.7)), version=version) for version in (1, 99))
    third = ids_of(context)[2:3]
    compute(context, MAPS, spec)
    run_stage(alone, third, context)
    x, y, keys = rows(context, SELECT, "image"), rows(context, SELECT, "label"), rng.image_keys(ids_of(context))
    for place, change in enumerate(spec.changes):
        maps = CAM().explain(context.classifier, change(x, keys), y, keys)
        expected = compare_maps(maps, change.moved(rows(context, MAPS, "map")))
        for name in ("map_l1", "iou_mean"):
            assert torch.allclose(rows(context, spec, name)[:, place], expected[name], atol=1e-5, equal_nan=True)
    assert torch.allclose(
        context.store.read(key(alone), "map_l1", third), rows(context, spec, "map_l1")[2:3], atol=1e-5
    )


def test_crafting_from_a_stored_warm_start_is_what_the_engine_does_in_one_go(context: Context) -> None:
    attack = replace(adv2(CAM(), steps=3), warm_start=PLAIN)
    craft = Craft(TARGETS, attack, MAPS, CRAFT)
    compute(context, TARGETS, MAPS, CRAFT, craft)
    goal = Goal(
        rng.image_keys(ids_of(context)),
        rows(context, SELECT, "image"),
        rows(context, TARGETS, "target"),
        rows(context, MAPS, "map"),
    )
    for name, expected in vars(engine.run(attack, context.classifier, goal, context.batch_size)).items():
        assert torch.equal(rows(context, craft, name), expected), name


def test_an_attack_begins_at_the_random_point_of_its_image(context: Context) -> None:
    """One of no steps stays there, whichever images it is computed with."""
    staying = Craft(TARGETS, replace(PLAIN, perturbation=Pixels(0.1), steps=0), None, POINTS)
    third = ids_of(context)[2:3]
    run_stage(POINTS, third, context)
    alone = context.store.read(key(POINTS), "theta", third)
    compute(context, TARGETS, POINTS, staying)
    theta = rows(context, POINTS, "theta")
    assert torch.equal(alone, theta[2:3])
    assert torch.equal(rows(context, staying, "image"), rows(context, SELECT, "image") + theta)


@pytest.mark.parametrize(("form", "name", "options"), [(PNG(), "png", {}), (JPEG(75), "jpeg", {"quality": 75})])
def test_saved_images_are_what_a_file_gives_back(
    context: Context, form: Corruption, name: str, options: dict[str, int]
) -> None:
    """Class, confidence and map are those of the image that Pillow wrote and read."""
    saved = Saved(CRAFT, form)
    compute(context, TARGETS, CRAFT, saved, Explain(saved, CAM()))
    given = []
    for image in rows(context, CRAFT, "image"):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name, **options, **({"subsampling": 0} if options else {}))
        given.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255)
    x = torch.stack(given)
    assert not torch.equal(x, rows(context, CRAFT, "image"))
    logits, target = context.classifier(x), rows(context, TARGETS, "target")
    assert torch.equal(rows(context, saved, "predicted"), logits.argmax(1))
    torch.testing.assert_close(rows(context, saved, "confidence"), logits.softmax(1).gather(1, target[:, None])[:, 0])
    shown = CAM().explain(context.classifier, x, logits.argmax(1), target)
    torch.testing.assert_close(rows(context, Explain(saved, CAM()), "map"), shown)


def test_maps_of_failed_attacks_explain_the_reported_class(context: Context) -> None:
    failing = Craft(TARGETS, replace(PLAIN, steps=0, warm_start=None), None, None)
    compute(context, TARGETS, failing, Explain(failing, CAM()))
    reported, target = rows(context, failing, "predicted"), rows(context, TARGETS, "target")
    assert not (reported == target).any()
    expected = CAM().explain(context.classifier, rows(context, failing, "image"), reported, target)
    torch.testing.assert_close(rows(context, Explain(failing, CAM()), "map"), expected)


def test_reported_maps_explain_what_the_classifier_says(context: Context) -> None:
    compute(context, TARGETS, CRAFT, Reported(key(CRAFT), CAM()), Explain(CRAFT, CAM()))
    images, reported = rows(context, CRAFT, "image"), rows(context, Reported(key(CRAFT), CAM()), "predicted")
    assert torch.equal(reported, context.classifier(images).argmax(1))
    maps = CAM().explain(context.classifier, images, reported, rng.image_keys(ids_of(context)))
    assert torch.allclose(rows(context, Reported(key(CRAFT), CAM()), "map"), maps, atol=1e-6)
    assert torch.equal(rows(context, Reported(key(CRAFT), CAM()), "constant"), is_constant(maps))


@pytest.mark.parametrize("interpreter", [CAM(), MASK(Solver(steps=2))])
def test_reported_maps_of_the_true_class_are_the_benign_maps_to_the_bit(
    context: Context, interpreter: CAM | MASK
) -> None:
    reported, benign = Reported(key(SELECT), interpreter), Explain(SELECT, interpreter)
    compute(context, reported, benign)
    assert torch.equal(rows(context, reported, "predicted"), rows(context, SELECT, "label"))
    assert torch.equal(rows(context, reported, "map"), rows(context, benign, "map"))


@pytest.mark.parametrize(
    "scorer", [FeatureSqueezing(Median(3)), Consistency(CAM(), Noise()), Disagreement(GRAD(), CAM())]
)
def test_detectors_score_the_images_of_any_stage(context: Context, scorer: Scorer) -> None:
    compute(context, TARGETS, CRAFT)
    keys = rng.image_keys(ids_of(context))
    for of in (SELECT, CRAFT):
        compute(context, *(Reported(key(of), each) for each in scorer.interpreters), Detect(key(of), scorer))
        seen = look(context.classifier, rows(context, of, "image"), keys, scorer.interpreters)
        expected = scorer.scores(context.classifier, seen)
        assert torch.allclose(rows(context, Detect(key(of), scorer), "score"), expected, atol=1e-6)


def test_scores_take_the_stored_maps(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disagreement looks at is never computed twice."""
    scorer = Disagreement(CAM(), GRAD())
    compute(context, *(Reported(key(SELECT), each) for each in scorer.interpreters))
    monkeypatch.setattr(type(context.classifier), "__call__", lambda *inputs: pytest.fail("the classifier was asked"))
    compute(context, Detect(key(SELECT), scorer))


def test_only_missing_rows_are_computed(context: Context) -> None:
    ids, calls = ids_of(context), [0]

    @dataclass(frozen=True)
    class Counting(CAM):
        def explain(self, *arguments: Any) -> Tensor:
            calls[0] += len(arguments[1])
            return super().explain(*arguments)

    spec = Explain(SELECT, Counting())
    assert run_stage(spec, ids[:3], context)
    assert calls == [3]
    assert run_stage(spec, ids, context)
    assert calls == [5]
    assert not run_stage(spec, ids, context)
    assert calls == [5]
    assert context.store.done(key(spec)) == ids


def test_a_stage_is_recorded_beside_its_rows(context: Context) -> None:
    run_stage(TARGETS, ids_of(context), context)
    assert read_json(context.store.root / "stages" / key(TARGETS) / "spec.json") == describe(TARGETS)


def test_progress_reaches_what_was_planned(context: Context) -> None:
    compute(context, TARGETS)
    for spec in (CRAFT, MAPS):
        heard: list[Progress] = []
        run_stage(spec, ids_of(context), replace(context, on_step=heard.append))
        assert all(before.steps <= after.steps for before, after in pairwise(heard))
        assert (heard[-1].images, heard[-1].steps) == (5, heard[-1].planned_steps)


def test_what_has_no_rows_of_its_own_is_refused(context: Context) -> None:
    with pytest.raises(TypeError, match="Select cannot be computed from ids"):
        run_stage(replace(SELECT, seed=1), ids_of(context), context)
