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

from tiny_scorers import BetweenLevels
from underfire.attacks import engine
from underfire.attacks.engine import Progress
from underfire.attacks.perturbations import Pixels
from underfire.attacks.solvers import adv2, pgd
from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import is_constant, to_8bit
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
from underfire.runs.choosing import choose, find, keep
from underfire.runs.compute import Context
from underfire.runs.driver import run_stage
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
    cosine = {"type": "Cosine", "start": 2 / 255, "end": 0.0, "steps": 3}
    assert described["rule"]["alpha"] == {"type": "InTurn", "schedules": [cosine], "steps": [3]}
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
    keep(SELECT, selection.chosen, store)
    samples = selection.chosen.samples()
    assert store.done(key(SELECT)) == samples.ids
    assert torch.equal(store.read(key(SELECT), "image", samples.ids), samples.images)
    assert torch.equal(store.read(key(SELECT), "label", samples.ids), samples.labels)


# ------------------------------------------------------------------ computing


@dataclass(frozen=True)
class Bench:
    """Where stages are computed, and with what."""

    store: Store
    context: Context

    @property
    def classifier(self) -> Classifier:
        return self.context.classifier

    def run(self, spec: Spec, ids: tuple[str, ...]) -> bool:
        return run_stage(spec, ids, self.store, self.context)


@pytest.fixture
def bench(tmp_path: Path, image_set: ImageSet, classifier: Classifier) -> Bench:
    """A store that holds five chosen images; two are worked on at a time."""
    store = Store(tmp_path)
    keep(SELECT, choose(SELECT, image_set, classifier).chosen, store)
    return Bench(store, Context(classifier, batch_size=2))


def ids_of(bench: Bench) -> tuple[str, ...]:
    return bench.store.done(key(SELECT))


def compute(bench: Bench, *specs: Spec) -> None:
    for spec in specs:
        bench.run(spec, ids_of(bench))


def rows(bench: Bench, spec: Spec, name: str) -> Tensor:
    return bench.store.read(key(spec), name, ids_of(bench))


def test_targets_are_other_classes_and_do_not_depend_on_the_company(bench: Bench) -> None:
    alone, third = replace(TARGETS, version=99), ids_of(bench)[2:3]
    compute(bench, TARGETS)
    bench.run(alone, third)
    labels, targets = rows(bench, SELECT, "label"), rows(bench, TARGETS, "target")
    assert set(targets.tolist()) <= {0, 1, 2}
    assert not bool((labels == targets).any())
    assert bench.store.read(key(alone), "target", third) == targets[2:3]


def test_maps_explain_the_label_of_benign_and_the_reported_class_of_crafted_images(bench: Bench) -> None:
    compute(bench, TARGETS, CRAFT, Explain(SELECT, GRAD()), Explain(CRAFT, GRAD()))
    keys = rng.image_keys(ids_of(bench))
    for of, classes in ((SELECT, rows(bench, SELECT, "label")), (CRAFT, rows(bench, CRAFT, "predicted"))):
        expected = GRAD().explain(bench.classifier, rows(bench, of, "image"), classes, keys)
        assert torch.allclose(rows(bench, Explain(of, GRAD()), "map"), expected, atol=1e-5)
        assert torch.equal(rows(bench, Explain(of, GRAD()), "constant"), is_constant(expected))


def test_located_images_are_explained_for_the_class_that_the_classifier_reports(
    tmp_path: Path, image_set: ImageSet, classifier: Classifier
) -> None:
    wrong = replace(image_set, labels=(image_set.labels + 1) % 3)
    store, white = Store(tmp_path), replace(image_set, source=ArraySource(np.full((12, 16, 16, 3), 255, np.uint8)))
    located, predicted = find(LOCATE, wrong, white, classifier)
    keep(LOCATE, located.chosen, store, object=located.objects, predicted=predicted)
    ids = store.done(key(LOCATE))
    Bench(store, Context(classifier, batch_size=2)).run(Explain(LOCATE, CAM()), ids)
    assert ids == located.chosen.ids
    assert torch.equal(predicted, (located.chosen.labels - 1) % 3)
    assert bool(store.read(key(LOCATE), "object", ids).all())
    expected = CAM().explain(classifier, located.chosen.samples().images, predicted, rng.image_keys(ids))
    assert torch.allclose(store.read(key(Explain(LOCATE, CAM())), "map", ids), expected, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_forgotten_maps_are_those_of_a_copy_and_do_not_depend_on_the_company(bench: Bench, depth: str) -> None:
    spec, model = replace(FORGOTTEN, depth=depth), bench.classifier
    fingerprint, third = model.fingerprint(), ids_of(bench)[2:3]
    bench.run(spec, third)
    compute(bench, spec)
    x, y, keys = rows(bench, SELECT, "image"), rows(bench, SELECT, "label"), rng.image_keys(ids_of(bench))
    reset = randomized(model, DEPTHS[depth](model, x), seed=0)
    assert torch.allclose(rows(bench, spec, "map"), CAM().explain(reset, x, y, keys), atol=1e-5)
    assert not torch.allclose(rows(bench, spec, "map"), CAM().explain(model, x, y, keys), atol=1e-2)
    assert hash_of(model.network, model.mean, model.std) == fingerprint


def test_another_draw_differs_where_the_interpreter_draws_and_nowhere_else(bench: Bench) -> None:
    drawing = MASK(Solver(steps=4, geometry=Geometry(cell=4, image_taps=5, mask_taps=3, jitter=2)))
    for interpreter, differs in ((drawing, True), (CAM(), False)):
        once, again = (Explain(SELECT, interpreter, draw) for draw in (0, 1))
        compute(bench, once, again)
        assert torch.equal(rows(bench, once, "map"), rows(bench, again, "map")) != differs


def test_natural_variation_is_between_the_moved_benign_map_and_that_of_the_changed_image(bench: Bench) -> None:
    """Each change in its column; alone or in company."""
    spec, alone = (Vary(MAPS, changes=(Noise(), Crop(0.7)), version=version) for version in (1, 99))
    third = ids_of(bench)[2:3]
    compute(bench, MAPS, spec)
    bench.run(alone, third)
    x, y, keys = rows(bench, SELECT, "image"), rows(bench, SELECT, "label"), rng.image_keys(ids_of(bench))
    for place, change in enumerate(spec.changes):
        maps = CAM().explain(bench.classifier, change(x, keys), y, keys)
        expected = compare_maps(maps, change.moved(rows(bench, MAPS, "map")))
        for name in ("map_l1", "iou_mean"):
            assert torch.allclose(rows(bench, spec, name)[:, place], expected[name], atol=1e-5, equal_nan=True)
    assert torch.allclose(bench.store.read(key(alone), "map_l1", third), rows(bench, spec, "map_l1")[2:3], atol=1e-5)


def test_crafting_from_a_stored_warm_start_is_what_the_engine_does_in_one_go(bench: Bench) -> None:
    attack = replace(adv2(CAM(), steps=3), warm_start=PLAIN)
    craft = Craft(TARGETS, attack, MAPS, CRAFT)
    compute(bench, TARGETS, MAPS, CRAFT, craft)
    goal = Goal(
        rng.image_keys(ids_of(bench)),
        rows(bench, SELECT, "image"),
        rows(bench, TARGETS, "target"),
        rows(bench, MAPS, "map"),
    )
    for name, expected in vars(engine.run(attack, bench.classifier, goal, bench.context.batch_size)).items():
        assert torch.equal(rows(bench, craft, name), expected), name


def test_an_attack_begins_at_the_random_point_of_its_image(bench: Bench) -> None:
    """One of no steps stays there, whichever images it is computed with."""
    staying = Craft(TARGETS, replace(PLAIN, perturbation=Pixels(0.1), rungs=(0,)), None, POINTS)
    third = ids_of(bench)[2:3]
    bench.run(POINTS, third)
    alone = bench.store.read(key(POINTS), "theta", third)
    compute(bench, TARGETS, POINTS, staying)
    theta = rows(bench, POINTS, "theta")
    assert torch.equal(alone, theta[2:3])
    assert torch.equal(rows(bench, staying, "image"), rows(bench, SELECT, "image") + theta)


@pytest.mark.parametrize(("form", "name", "options"), [(PNG(), "png", {}), (JPEG(75), "jpeg", {"quality": 75})])
def test_saved_images_are_what_a_file_gives_back(
    bench: Bench, form: Corruption, name: str, options: dict[str, int]
) -> None:
    """Class, confidence and map are those of the image that Pillow wrote and read."""
    saved = Saved(CRAFT, form)
    compute(bench, TARGETS, CRAFT, saved, Explain(saved, CAM()))
    given = []
    for image in rows(bench, CRAFT, "image"):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name, **options, **({"subsampling": 0} if options else {}))
        given.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255)
    x = torch.stack(given)
    assert not torch.equal(x, rows(bench, CRAFT, "image"))
    logits, target = bench.classifier(x), rows(bench, TARGETS, "target")
    assert torch.equal(rows(bench, saved, "predicted"), logits.argmax(1))
    torch.testing.assert_close(rows(bench, saved, "confidence"), logits.softmax(1).gather(1, target[:, None])[:, 0])
    shown = CAM().explain(bench.classifier, x, logits.argmax(1), target)
    torch.testing.assert_close(rows(bench, Explain(saved, CAM()), "map"), shown)


def test_maps_of_failed_attacks_explain_the_reported_class(bench: Bench) -> None:
    failing = Craft(TARGETS, replace(PLAIN, rungs=(0,), warm_start=None), None, None)
    compute(bench, TARGETS, failing, Explain(failing, CAM()))
    reported, target = rows(bench, failing, "predicted"), rows(bench, TARGETS, "target")
    assert not (reported == target).any()
    expected = CAM().explain(bench.classifier, rows(bench, failing, "image"), reported, target)
    torch.testing.assert_close(rows(bench, Explain(failing, CAM()), "map"), expected)


def test_reported_maps_explain_what_the_classifier_says(bench: Bench) -> None:
    compute(bench, TARGETS, CRAFT, Reported(key(CRAFT), CAM()), Explain(CRAFT, CAM()))
    images, reported = to_8bit(rows(bench, CRAFT, "image")), rows(bench, Reported(key(CRAFT), CAM()), "predicted")
    assert torch.equal(reported, bench.classifier(images).argmax(1))
    maps = CAM().explain(bench.classifier, images, reported, rng.image_keys(ids_of(bench)))
    assert torch.allclose(rows(bench, Reported(key(CRAFT), CAM()), "map"), maps, atol=1e-6)
    assert torch.equal(rows(bench, Reported(key(CRAFT), CAM()), "constant"), is_constant(maps))


@pytest.mark.parametrize("interpreter", [CAM(), MASK(Solver(steps=2))])
def test_reported_maps_of_the_true_class_are_the_benign_maps_to_the_bit(bench: Bench, interpreter: CAM | MASK) -> None:
    reported, benign = Reported(key(SELECT), interpreter), Explain(SELECT, interpreter)
    compute(bench, reported, benign)
    assert torch.equal(rows(bench, reported, "predicted"), rows(bench, SELECT, "label"))
    assert torch.equal(rows(bench, reported, "map"), rows(bench, benign, "map"))


@pytest.mark.parametrize(
    "scorer", [FeatureSqueezing(Median(3)), Consistency(CAM(), Noise()), Disagreement(GRAD(), CAM())]
)
def test_detectors_score_the_images_of_any_stage(bench: Bench, scorer: Scorer) -> None:
    compute(bench, TARGETS, CRAFT)
    keys = rng.image_keys(ids_of(bench))
    for of in (SELECT, CRAFT):
        compute(bench, *(Reported(key(of), each) for each in scorer.interpreters), Detect(key(of), scorer))
        seen = look(bench.classifier, to_8bit(rows(bench, of, "image")), keys, scorer.interpreters)
        expected = scorer.scores(bench.classifier, seen)
        assert torch.allclose(rows(bench, Detect(key(of), scorer), "score"), expected, atol=1e-6)


def test_detectors_see_what_a_png_file_holds(bench: Bench) -> None:
    """Its pixels and, as the attack's map on that file, its maps."""
    on_file, shown = Explain(Saved(CRAFT, PNG()), CAM()), Reported(key(CRAFT), CAM())
    compute(bench, TARGETS, CRAFT, on_file.of, on_file, shown, Detect(key(CRAFT), BetweenLevels()))
    assert (rows(bench, CRAFT, "image") != to_8bit(rows(bench, CRAFT, "image"))).any()
    assert not rows(bench, Detect(key(CRAFT), BetweenLevels()), "score").any()
    assert torch.equal(rows(bench, shown, "map"), rows(bench, on_file, "map"))


def test_scores_take_the_stored_maps(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disagreement looks at is never computed twice."""
    scorer = Disagreement(CAM(), GRAD())
    compute(bench, *(Reported(key(SELECT), each) for each in scorer.interpreters))
    monkeypatch.setattr(type(bench.classifier), "__call__", lambda *inputs: pytest.fail("the classifier was asked"))
    compute(bench, Detect(key(SELECT), scorer))


def test_only_missing_rows_are_computed(bench: Bench) -> None:
    ids, calls = ids_of(bench), [0]

    @dataclass(frozen=True)
    class Counting(CAM):
        def explain(self, *arguments: Any) -> Tensor:
            calls[0] += len(arguments[1])
            return super().explain(*arguments)

    spec = Explain(SELECT, Counting())
    assert bench.run(spec, ids[:3])
    assert calls == [3]
    assert bench.run(spec, ids)
    assert calls == [5]
    assert not bench.run(spec, ids)
    assert calls == [5]
    assert bench.store.done(key(spec)) == ids


def test_a_stage_is_recorded_beside_its_rows(bench: Bench) -> None:
    bench.run(TARGETS, ids_of(bench))
    assert read_json(bench.store.root / "stages" / key(TARGETS) / "spec.json") == describe(TARGETS)


def test_progress_reaches_what_was_planned(bench: Bench) -> None:
    compute(bench, TARGETS)
    for spec in (CRAFT, MAPS):
        heard: list[Progress] = []
        run_stage(spec, ids_of(bench), bench.store, replace(bench.context, on_step=heard.append))
        assert all(before.steps <= after.steps for before, after in pairwise(heard))
        assert (heard[-1].images, heard[-1].steps) == (5, heard[-1].planned_steps)


def test_what_has_no_rows_of_its_own_is_refused(bench: Bench) -> None:
    with pytest.raises(TypeError, match="Select cannot be computed from ids"):
        bench.run(replace(SELECT, seed=1), ids_of(bench))
