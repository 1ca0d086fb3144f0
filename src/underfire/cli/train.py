"""`underfire train`: what has to be learned before it can be attacked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.cli.options import command
from underfire.cli.terminal import chosen_device, crews, existing_folder, one_bar, say, say_written
from underfire.core.errors import UnderfireError
from underfire.core.text import counted
from underfire.runs.config import write_config
from underfire.runs.settings import Machine, Shared, sized
from underfire.training.recipes import (
    AidRecipe,
    ClassifierRecipe,
    ClassifierSource,
    EncoderSource,
    MaskerRecipe,
    TrainingSource,
    Turns,
)

if TYPE_CHECKING:
    from underfire.data.image_set import ImageSet
    from underfire.models.classifier import Classifier
    from underfire.models.files import ClassifierManifest, MaskerManifest
    from underfire.models.masker import Masker
    from underfire.training.dataset import TrainingSet

train_app = typer.Typer(help="Train what has to be learned before it can be attacked.", no_args_is_help=True)

OnStep = Callable[[int, float], None]
Init = Annotated[
    Path, typer.Option(help="The masker to defend, from: underfire train rts.", rich_help_panel="Classifier")
]
Out = Annotated[
    Path,
    typer.Option(help="The file to write; the same command again goes on with its training.", rich_help_panel="Run"),
]
SCORES = {
    "drift": "ΔL1 of benign maps to those of the masker before",
    "separation": "ΔL1 of attacked images' maps to benign ones",
    "success": "share of attacks that succeed",
    "area": "mean of the mask",
    "whole": "confidence, whole image",
    "kept": "confidence, part that the mask keeps",
    "removed": "confidence, image without that part",
    "blurred": "confidence, wholly blurred image",
    "localisation_error": "boxes that miss the object",
}


@train_app.callback()
def _train() -> None:
    """Train what has to be learned before it can be attacked."""


@command(train_app)
def rts(source: TrainingSource, through: EncoderSource, recipe: MaskerRecipe, machine: Machine, out: Out) -> None:
    """Train RTS's masker for a classifier (Eq. 8), on any images of its kind; their labels are not used."""
    from underfire.models.classifier import Classifier
    from underfire.training.rts import FeatureExtractor, train_masker

    where = chosen_device(machine.device)
    classifier = Classifier.load(source.model, source.weights, source.normalize, device=where)
    named = through.encoder, through.encoder_weights, through.encoder_normalize
    encoder = None if named[0] is None else Classifier.load(named[0], *named[1:], device=where)
    training_set = _training_set(classifier, source)
    extractor = FeatureExtractor(classifier, encoder, named)
    with _training_bar(recipe.steps, out) as on_step:
        masker = train_masker(extractor, training_set, recipe, out, on_step)
    write_config(out.with_suffix(".config.toml"), source, through, recipe)
    _say_masker(masker, training_set, out)


@command(train_app)
def aid(
    source: TrainingSource,
    recipe: AidRecipe,
    turns: Turns,
    machine: Shared,
    init: Init,
    out: Out,
) -> None:
    """Train RTS's masker against its own attacker (AID, Eq. 15 and 16); one row of --out's .csv per check."""
    from underfire.interpreters import RTS
    from underfire.models.classifier import Classifier
    from underfire.training.aid import recipe_for, train_aid

    alternation = turns.given()
    classifier = Classifier.load(source.model, source.weights, source.normalize, device=chosen_device(machine.device))
    undefended = RTS.load(init)
    recipe = recipe_for(undefended.masker, **recipe.model_dump(exclude_unset=True), **alternation)
    training_set = _training_set(classifier, source)
    with crews(machine) as crew_of, _training_bar(recipe.steps, out) as on_step:
        crew = crew_of(source.model_dump(), classifier)
        masker = train_aid(classifier, undefended, training_set, recipe, out, on_step, crew)
    write_config(out.with_suffix(".config.toml"), source, recipe, turns, init=str(init))
    _say_masker(masker, training_set, out)


@command(train_app, "classifier")
def train_a_classifier(source: ClassifierSource, recipe: ClassifierRecipe, machine: Machine, out: Out) -> None:
    """Train a classifier on classes of one's own, all alike; one row of --out's .csv per check."""
    from underfire.data.image_set import open_images
    from underfire.models.new_head import load_with_new_head
    from underfire.training.classifier import labelled, train_classifier

    where = chosen_device(machine.device)
    if source.images == "demo":
        raise UnderfireError("The demo's classifier comes trained; give --images a folder or an .npz.")
    if source.unlabelled:
        raise UnderfireError("A classifier learns from labels; give --labels a table of them.")
    image_set = open_images(source.images, source.labels, split=source.split)
    start = load_with_new_head(source.model, source.weights, source.normalize, image_set.classes, recipe.seed)
    source = sized(source, start)
    image_set = replace(image_set, crop=source.crop, resize=source.resize)
    training_set = _read(image_set, None)
    examples = labelled(training_set, image_set)
    with _training_bar(recipe.steps, out) as on_step:
        manifest = train_classifier(start, examples, recipe, out, where, on_step)
    write_config(out.with_suffix(".config.toml"), source, recipe)
    _say_classifier(manifest, training_set)
    say("")
    say_written({"Classifier": out})
    say(f"Use it: --model {source.model} --weights {out}")


def _training_set(classifier: "Classifier", source: TrainingSource) -> "TrainingSet":
    from underfire.data.image_set import object_masks, open_images
    from underfire.training.dataset import demo_training_set

    if source.images == "demo" and source.split is not None:
        raise UnderfireError(f"The demo's scenes are not split; leave out --split {source.split}.")
    if source.images == "demo" and source.masks is not None:
        raise UnderfireError(f"The demo's scenes bring their own masks; leave out --masks {source.masks}.")
    if source.images == "demo":
        return demo_training_set()
    source = sized(source, classifier.origin)
    image_set = open_images(source.images, source.labels, source.crop, source.resize, source.split)
    return _read(image_set, None if source.masks is None else object_masks(image_set, existing_folder(source.masks)))


def _read(image_set: "ImageSet", objects: "ImageSet | None") -> "TrainingSet":
    from underfire.training.dataset import read_training_set

    with one_bar("reading images", len(image_set)) as show:
        return read_training_set(image_set, objects, lambda count: show(count, f"{count}/{len(image_set)}"))


@contextmanager
def _training_bar(steps: int, out: Path) -> Iterator[OnStep]:
    there_already = out.exists()
    with one_bar("training", steps) as show:
        yield lambda step, loss: show(step + 1, f"{step + 1}/{counted(steps, 'step')}, loss {loss:.3f}")
    if there_already:
        say(f"{out} was trained before.")


def _say_masker(masker: "Masker", training_set: "TrainingSet", out: Path) -> None:
    _tell(masker.manifest, training_set)
    say("")
    say_written({"Masker": out})
    say(f"Use it: --interpreter rts:{out}")


def _say_classifier(manifest: "ClassifierManifest", training_set: "TrainingSet") -> None:
    scores = manifest.scores
    held_out = counted(round(scores["images"]), "held-out image")
    say(f"{counted(manifest.training.get('steps_done', 0), 'step')}; on {held_out}:")
    say(f"  accuracy {100 * scores['accuracy']:.1f} %, balanced accuracy {100 * scores['balanced_accuracy']:.1f} %")
    _tell_skipped(training_set)


def _tell(manifest: "MaskerManifest", training_set: "TrainingSet") -> None:
    done, images = manifest.training.get("steps_done", 0), manifest.scores.get("images") or 0
    say(f"{counted(done, 'step')}; means over {counted(round(images), 'held-out image')}:")
    for name, meaning in SCORES.items():
        value = manifest.scores.get(name)
        if value is not None:
            say(f"  {meaning:48} {value:.3f}")
    _tell_skipped(training_set)


def _tell_skipped(training_set: "TrainingSet") -> None:
    if training_set.skipped:
        name, reason = training_set.skipped[0]
        say(f"{counted(len(training_set.skipped), 'image')} could not be used; the first was {name}: {reason}")
