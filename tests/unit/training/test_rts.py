"""Training a masker: every term of Eq. 8 falls on the demo's scenes; a training resumes its own and no other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import classifier, images, network
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import blur
from underfire.core.rng import image_keys
from underfire.interpreters import RTS
from underfire.models.classifier import Classifier
from underfire.models.files import Encoder
from underfire.models.masker import MaskerNetwork
from underfire.training import rts
from underfire.training.dataset import Batch, TrainingSet, demo_training_set, split
from underfire.training.loop import Checkpoint
from underfire.training.rts import (
    FeatureExtractor,
    MaskerRecipe,
    background,
    blended,
    eq8,
    measure,
    prepare,
    train_masker,
)

CPU = torch.device("cpu")
SHORT = MaskerRecipe(steps=6, batch=4, judge_every=3, width=8)


def a_training_set(n: int = 12, seed: int = 0, objects: Tensor | None = None) -> TrainingSet:
    pixels = (255 * images(n, seed=seed)).round().byte()
    return TrainingSet(tuple(f"image {i}" for i in range(n)), pixels, objects, f"{n} of seed {seed}")


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier("resnet")


# ------------------------------------------------------------------ Eq. 8


@pytest.mark.extended
def test_training_lowers_every_term_on_scenes_never_seen(tmp_path: Path) -> None:
    extractor, scenes = FeatureExtractor(Classifier.load("demo")), demo_training_set(80)
    recipe = MaskerRecipe(steps=30, batch=16, judge_every=30, width=16)
    fitted, judged = split(scenes.ids, 0.2, seed=0)
    before, encoder = prepare(extractor, scenes, fitted, recipe)

    def terms(masker: MaskerNetwork) -> dict[str, float]:
        with torch.no_grad():
            rows = eq8(extractor, encoder, masker, scenes.batch(judged, CPU), recipe)
        return {name: row.mean().item() for name, row in rows.items()}

    begun = terms(before)
    ended = terms(train_masker(extractor, scenes, recipe, tmp_path / "masker.safetensors").network)
    assert set(begun) == {"roughness", "area", "kept", "removed"}
    assert all(ended[name] < begun[name] for name in begun), (begun, ended)


def test_total_is_eq_8() -> None:
    row = {name: torch.tensor([float(i)]) for i, name in enumerate(("roughness", "area", "kept", "removed"), start=1)}
    recipe = MaskerRecipe(roughness=10, area=20, removed=30)
    assert recipe.total(row).item() == 10 + 40 + 3 + 120


def test_phi_keeps_what_the_mask_keeps_and_its_complement_the_rest() -> None:
    x, ground = images(1), torch.zeros(1, 3, 16, 16)
    masks = torch.zeros(1, 4, 4)
    masks[:, :, :2] = 1
    kept, removed = blended(x, masks, ground)
    assert torch.equal(kept[..., :6], x[..., :6])
    assert torch.equal(kept[..., 10:], ground[..., 10:])
    torch.testing.assert_close(kept + removed, x + ground)


def test_terms_are_those_of_the_blended_images(model: Classifier) -> None:
    """From their definitions, one image at a time."""
    extractor, batch = FeatureExtractor(model), a_training_set().batch(torch.arange(3), CPU)
    masker, encoder = prepare(extractor, a_training_set(), torch.arange(8), SHORT)
    with torch.no_grad():
        terms = eq8(extractor, encoder, masker, batch, SHORT)
        for i in range(3):
            x = batch.images[i : i + 1]
            logits, features = model.tap(x, encoder.layers)
            y = logits.argmax(1)
            mask = masker(features, y, 8, 8)
            kept, removed = blended(x, mask, blur(x, 1.6))
            p_kept, p_removed = (model(part).softmax(1)[0, y] for part in (kept, removed))
            torch.testing.assert_close(terms["area"][i], mask.mean())
            torch.testing.assert_close(terms["kept"][i], -p_kept.log()[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(terms["removed"][i], p_removed[0] ** SHORT.power, rtol=1e-4, atol=1e-5)


def test_backgrounds_are_drawn_per_image_and_step_and_fixed_on_held_out_images() -> None:
    x, keys = images(60), image_keys(map(str, range(60)))
    fixed, drawn = background(Batch(x, keys), 0), background(Batch(x, keys, step=5), 0)
    torch.testing.assert_close(fixed, blur(x, 1.6).clamp(0, 1))
    blurred = (drawn == fixed).all(3).all(2).all(1)
    plain = drawn.flatten(2).std(2).amax(1) < 1e-6
    noisy = ~blurred & ~plain
    assert blurred.sum() > plain.sum() > 5
    assert noisy.sum() > 5
    assert 0 <= drawn.min() <= drawn.max() <= 1
    order = torch.tensor([40, 3])
    assert torch.equal(background(Batch(x[order], keys[order], step=5), 0), drawn[order])
    assert not torch.equal(background(Batch(x, keys, step=6), 0), drawn)


# ------------------------------------------------------------------ preparation


def test_features_are_measured_before_the_first_step(model: Classifier) -> None:
    masker, encoder = prepare(FeatureExtractor(model), a_training_set(), torch.arange(12), SHORT)
    _, features = model.tap(a_training_set().batch(torch.arange(12), CPU).images, encoder.layers)
    for layer, values in zip(masker.standardise, features, strict=True):
        torch.testing.assert_close(layer.mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_another_network_s_head_counts_where_it_mostly_agrees(model: Classifier) -> None:
    twin = Classifier(network("resnet"), model.mean, (0.21, 0.25, 0.3))
    _, encoder = prepare(
        FeatureExtractor(model, twin, ("file.py:twin", None, "imagenet")), a_training_set(), torch.arange(12), SHORT
    )
    assert encoder == Encoder(
        layers=("relu", "bn1"),
        channels=(12, 8),
        fingerprint=twin.fingerprint(),
        reference="file.py:twin",
        normalize="imagenet",
    )


def test_elsewhere_prototypes_are_the_means_of_the_classes(model: Classifier) -> None:
    stranger = classifier("mobilenet")
    masker, encoder = prepare(FeatureExtractor(model, stranger), a_training_set(), torch.arange(12), SHORT)
    assert not encoder.shares_classes
    x = a_training_set().batch(torch.arange(12), CPU).images
    y = model(x).argmax(1)
    pooled = masker.pool(stranger.tap(x, encoder.layers)[1][0])
    for c in y.unique():
        torch.testing.assert_close(masker.prototypes[c], pooled[y == c].mean(0), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ the whole training


def test_a_masker_names_its_classifier_and_its_training(tmp_path: Path, model: Classifier) -> None:
    out = tmp_path / "masker.safetensors"
    steps: list[int] = []
    manifest = train_masker(
        FeatureExtractor(model), a_training_set(), SHORT, out, lambda step, loss: steps.append(step)
    ).manifest
    assert steps == list(range(6))
    assert manifest.classifier == model.fingerprint()
    assert (manifest.classes, manifest.width) == (5, 8)
    assert manifest.training["steps_done"] == 6
    assert manifest.training["size"] == [16, 16]
    assert SHORT.model_dump().items() <= manifest.training.items()
    assert [path.name for path in tmp_path.iterdir()] == ["masker.safetensors"]
    assert RTS.load(out).explain(model, images(2), torch.tensor([0, 1]), torch.tensor([0, 1])).shape == (2, 8, 8)


def test_resumed_equals_uninterrupted(tmp_path: Path, model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rts, "Checkpoint", lambda path, identity: Checkpoint(path, identity, every=2))
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train_masker(FeatureExtractor(model), a_training_set(), SHORT, whole)

    def interrupt(step: int, loss: float) -> None:
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_masker(FeatureExtractor(model), a_training_set(), SHORT, parts, interrupt)
    assert not parts.exists()
    with pytest.raises(UnderfireError, match="checkpoint of a training with other settings"):
        train_masker(FeatureExtractor(model), a_training_set(), SHORT.model_copy(update={"seed": 1}), parts)
    train_masker(FeatureExtractor(model), a_training_set(), SHORT, parts)
    assert whole.read_bytes() == parts.read_bytes()


def test_the_seed_decides(tmp_path: Path, model: Classifier) -> None:
    digests = [
        train_masker(
            FeatureExtractor(model),
            a_training_set(),
            MaskerRecipe(**{**SHORT.model_dump(), "seed": seed}),
            tmp_path / name,
        ).digest
        for seed, name in ((0, "a.safetensors"), (0, "b.safetensors"), (1, "c.safetensors"))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_finished_training_is_not_done_again(tmp_path: Path, model: Classifier) -> None:
    out = tmp_path / "masker.safetensors"
    first = train_masker(FeatureExtractor(model), a_training_set(), SHORT, out)
    again = train_masker(
        FeatureExtractor(model), a_training_set(), SHORT, out, lambda step, loss: pytest.fail("trained again")
    )
    assert again.digest == first.digest


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"recipe": SHORT.model_copy(update={"lr": 0.5})}, "lr was 0.003 and is now 0.5"),
        ({"training_set": a_training_set(seed=1)}, "images was 12 of seed 0 and is now 12 of seed 1"),
        ({"extractor": FeatureExtractor(classifier("densenet"))}, "classifier was"),
    ],
)
def test_another_training_s_masker_is_not_overwritten(
    tmp_path: Path, model: Classifier, change: dict[str, Any], complaint: str
) -> None:
    out = tmp_path / "masker.safetensors"
    arguments = {"extractor": FeatureExtractor(model), "training_set": a_training_set(), "recipe": SHORT, "out": out}
    train_masker(**arguments)
    before = out.read_bytes()
    with pytest.raises(UnderfireError, match=f"holds a masker of another training: .*{complaint}"):
        train_masker(**(arguments | change))
    assert out.read_bytes() == before


def test_a_classifier_without_features_is_one_sentence(tmp_path: Path) -> None:
    flat = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 5)))
    with pytest.raises(UnderfireError, match="No layer of this network gives feature maps"):
        train_masker(FeatureExtractor(flat), a_training_set(), SHORT, tmp_path / "masker.safetensors")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ held-out score


def test_scores_of_known_masks(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """One mask shows everything, one nothing but the object's place, one another place."""
    objects = torch.zeros(3, 16, 16, dtype=torch.bool)
    objects[:, :4, :4] = True
    masks = torch.zeros(3, 8, 8)
    masks[0], masks[1, :2, :2], masks[2, 4:, 4:] = 1, 1, 1
    masks[0, 0, 0] = 0.99
    known = a_training_set(3, objects=objects)
    extractor, encoder = FeatureExtractor(model), prepare(FeatureExtractor(model), known, torch.arange(3), SHORT)[1]
    monkeypatch.setattr(rts, "masks_of", lambda *_: masks)
    scores = measure(extractor, encoder, MaskerNetwork([12], 5, 8), known.batches(torch.arange(3), 3, CPU))
    x = known.batch(torch.arange(3), CPU).images
    with torch.no_grad():
        y = model(x).argmax(1)
        p_whole, p_blurred = (model(z).softmax(1)[torch.arange(3), y] for z in (x, blur(x, 1.6)))
    assert scores["images"] == 3
    assert scores["area"] == pytest.approx(masks.mean().item())
    assert scores["localisation_error"] == pytest.approx(2 / 3)
    assert scores["whole"] == pytest.approx(p_whole.mean().item(), rel=1e-4)
    assert scores["blurred"] == pytest.approx(p_blurred.mean().item(), rel=1e-4)
