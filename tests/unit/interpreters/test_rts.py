"""RTS: the masker's mask and nothing else, from the features of one pass; it is refused for other classifiers."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tiny_maskers import masker_file, tiny_masker, tiny_rts
from tiny_networks import CLASSES, classifier, images
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import block_mean
from underfire.data import demo
from underfire.data.scenes import scenes
from underfire.interpreters import RTS
from underfire.interpreters.protocol import NoBelief
from underfire.interpreters.registry import interpreter_named
from underfire.models.classifier import Classifier
from underfire.models.files import Encoder, MaskerManifest, write_network
from underfire.models.masker import MaskerNetwork
from underfire.runs.specs import Explain, Select, key
from underfire.training.loop import initialised

Y = torch.tensor([0, 3])


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier("resnet")


def foreign_file(path: Path, model: Classifier, encoder: Classifier, shares_classes: bool) -> Path:
    """A masker for `model` that sees through another network."""
    manifest, _ = tiny_masker(encoder)
    seen = Encoder(
        layers=manifest.encoder.layers,
        channels=manifest.encoder.channels,
        fingerprint=encoder.fingerprint(),
        shares_classes=shares_classes,
    )
    network = initialised(lambda: MaskerNetwork(seen.channels, CLASSES, 8, not shares_classes), 0)
    if network.prototypes is not None:
        network.prototypes += torch.arange(CLASSES)[:, None]
    write_network(path, MaskerManifest(classifier=model.fingerprint(), classes=CLASSES, encoder=seen, width=8), network)
    return path


def test_the_map_is_the_mask_of_the_tapped_features(model: Classifier) -> None:
    interpreter = tiny_rts(model)
    _, features = model.tap(images(2), interpreter.masker.manifest.encoder.layers)
    with torch.no_grad():
        expected = interpreter.masker.network(features, Y, 8, 8)
    assert torch.equal(interpreter.explain(model, images(2), Y, Y), expected)


def test_the_grid_is_half_the_side_of_small_images_and_a_quarter_of_others(model: Classifier) -> None:
    interpreter = tiny_rts(model)
    assert interpreter.explain(model, images(2, side=32), Y, Y).shape == (2, 16, 16)
    assert interpreter.explain(model, images(2, side=64), Y, Y).shape == (2, 16, 16)


def test_prediction_and_map_come_from_one_pass(model: Classifier) -> None:
    interpreter, calls = tiny_rts(model), list[int]()
    handle = model.network.register_forward_hook(lambda *_: calls.append(1))
    interpreter.read(model, NoBelief(), images(2), Y)
    handle.remove()
    assert len(calls) == 1


def test_the_encoder_s_own_head_is_the_classifier_s(model: Classifier) -> None:
    reading = tiny_rts(model).read(model, NoBelief(), images(2), Y)
    assert torch.equal(reading.terms["encoder"], -reading.log_prob)


def test_another_encoder_lends_its_features_and_its_head(tmp_path: Path, model: Classifier) -> None:
    encoder = classifier("mobilenet")
    path = foreign_file(tmp_path / "masker.safetensors", model, encoder, shares_classes=True)
    interpreter, x = RTS.load(path, encoder), images(2)
    reading = interpreter.read(model, NoBelief(), x, Y)
    with torch.no_grad():
        logits, features = encoder.tap(x, interpreter.masker.manifest.encoder.layers)
        expected = interpreter.masker.network(features, Y, 8, 8)
        assert torch.equal(reading.logits, model(x))
    torch.testing.assert_close(reading.maps[:, 0].detach(), expected)
    log_p = logits.log_softmax(1).gather(1, Y[:, None])[:, 0]
    torch.testing.assert_close(reading.terms["encoder"].detach(), -log_p)


def test_an_encoder_of_other_classes_is_compared_with_prototypes(tmp_path: Path, model: Classifier) -> None:
    encoder = classifier("mobilenet")
    path = foreign_file(tmp_path / "masker.safetensors", model, encoder, shares_classes=False)
    interpreter = RTS.load(path, encoder)
    term = interpreter.read(model, NoBelief(), images(2), Y).terms["encoder"]
    _, (deepest, _) = encoder.tap(images(2), interpreter.masker.manifest.encoder.layers)
    expected = (deepest.mean((2, 3)) - Y[:, None]).square().mean(1)
    torch.testing.assert_close(term, expected)


def test_an_encoder_that_is_not_the_one_is_refused(tmp_path: Path, model: Classifier) -> None:
    path = foreign_file(tmp_path / "masker.safetensors", model, classifier("mobilenet"), shares_classes=True)
    with pytest.raises(UnderfireError, match="sees through another network than its classifier; name that network"):
        RTS.load(path)
    with pytest.raises(UnderfireError, match="trained on the features of another network"):
        RTS.load(path, classifier("densenet"))
    own = masker_file(tmp_path / "own.safetensors", model)
    with pytest.raises(UnderfireError, match="sees through its classifier's own features; leave out encoder="):
        RTS.load(own, model)


def test_another_classifier_s_masker_is_refused(model: Classifier) -> None:
    other = classifier("densenet")
    for refused in (
        lambda: tiny_rts(model).explain(other, images(2), Y, Y),
        lambda: tiny_rts(model).read(other, NoBelief(), images(2), Y),
    ):
        with pytest.raises(
            UnderfireError, match=r"trained for another classifier .*train one for this: underfire train"
        ):
            refused()


def test_it_is_what_its_file_holds_wherever_that_lies(tmp_path: Path, model: Classifier) -> None:
    here = RTS.load(masker_file(tmp_path / "here.safetensors", model))
    moved = RTS.load((tmp_path / "here.safetensors").rename(tmp_path / "there.safetensors"))
    other = RTS.load(masker_file(tmp_path / "here.safetensors", model, seed=1))
    select = Select("m", "i", 1, 0)
    assert here == moved != other
    assert key(Explain(select, here)) == key(Explain(select, moved)) != key(Explain(select, other))
    assert replace(here, digest=other.digest) == other


def test_in_double_precision_the_map_is_the_same_but_for_rounding(model: Classifier) -> None:
    double = classifier("resnet", torch.float64)
    x = images(2, dtype=torch.float64)
    maps = tiny_rts(double).explain(double, x, Y, Y)
    assert maps.dtype == torch.float64
    torch.testing.assert_close(maps.float(), tiny_rts(model).explain(model, x.float(), Y, Y), rtol=0, atol=1e-4)


def test_named_on_the_command_line(tmp_path: Path, model: Classifier) -> None:
    path = masker_file(tmp_path / "a:masker.safetensors", model)
    assert interpreter_named(f"rts:{path}") == RTS.load(path)
    for text, complaint in {
        "cam:x": "Interpreter 'cam' takes no argument; leave out ':x'",
        "cam:": "Interpreter 'cam' takes no argument",
        "lime": "There is no interpreter 'lime'; there are cam, grad",
        "rts:": "There is no masker",
        f"rts:{tmp_path / 'none'}": "There is no masker",
    }.items():
        with pytest.raises(UnderfireError, match=complaint):
            interpreter_named(text)


def test_the_packaged_masker_after_aid_is_the_same_classifiers_and_another_one() -> None:
    plain, defended = interpreter_named("rts"), interpreter_named(demo.DEFENDED)
    assert isinstance(plain, RTS)
    assert isinstance(defended, RTS)
    model, shown = Classifier.load("demo"), scenes(8, seed=4321).samples
    assert defended.masker.manifest.classifier == plain.masker.manifest.classifier == model.fingerprint()
    assert defended != plain == RTS.demo()
    before, after = (each.explain(model, shown.images, shown.labels, shown.labels) for each in (plain, defended))
    assert after.shape == before.shape
    assert 0.001 < (after - before).abs().mean() < 0.1  # its maps of benign scenes stay what they were, but for little


def test_the_packaged_masker_is_the_packaged_classifier_s_and_finds_its_objects() -> None:
    weights = files("underfire.models") / "weights" / "demo-masker.safetensors"
    assert len(weights.read_bytes()) < 1_000_000
    fresh = scenes(100, seed=4321)
    model, interpreter = Classifier.load("demo"), RTS.demo()
    maps = interpreter.explain(model, fresh.samples.images, fresh.samples.labels, fresh.samples.labels)
    inside = block_mean(fresh.masks.float(), 4)
    on_objects, elsewhere = ((maps * share).sum() / share.sum() for share in (inside, 1 - inside))
    assert on_objects > 5 * elsewhere
    assert maps.mean() < 0.25
