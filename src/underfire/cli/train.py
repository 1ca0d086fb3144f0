"""`underfire train`: what has to be learned before it can be attacked."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from underfire.cli.terminal import (
    Crop,
    Device,
    ImagesAt,
    LabelTable,
    Model,
    Normalize,
    Resize,
    Seed,
    Split,
    Weights,
    checked,
    chosen_device,
    console,
    existing_folder,
    say,
    sizes,
)
from underfire.core.types import UnderfireError
from underfire.data.image_set import ImageSet, object_masks, open_images
from underfire.interpreters import RTS
from underfire.models import files
from underfire.models.classifier import Classifier
from underfire.models.files import MaskerManifest
from underfire.models.loading import load_with_new_head
from underfire.models.masker import Masker
from underfire.training.aid import recipe_for, train_aid
from underfire.training.classifier import ClassifierRecipe, labelled, train_classifier
from underfire.training.dataset import TrainingSet, demo_training_set, read_training_set
from underfire.training.rts import FeatureExtractor, MaskerRecipe, train_masker

train_app = typer.Typer(help="Train what has to be learned before it can be attacked.", no_args_is_help=True)

OnStep = Callable[[int, float], None]
Trained = TypeVar("Trained")
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


@train_app.command()
def rts(
    model: Model,
    images: ImagesAt,
    out: Annotated[Path, typer.Option(help="The masker's file; the same command again goes on with its training.")],
    weights: Weights = None,
    labels: LabelTable = None,
    split: Split = None,
    masks: Annotated[str | None, typer.Option(help="Folder of NAME.png, white where the object is.")] = None,
    normalize: Normalize = None,
    crop: Crop = None,
    resize: Resize = None,
    encoder: Annotated[str | None, typer.Option(help="Another network to see through: torchvision:NAME.")] = None,
    encoder_weights: Annotated[str | None, typer.Option(help="Its weights, like --weights.")] = None,
    steps: Annotated[int, typer.Option(help="Most steps; the best network on held-out images is kept.")] = 1200,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    area: Annotated[float, typer.Option(help="Weight of the mask's area in the loss; higher for smaller masks.")] = 8,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train RTS's masker for a classifier (Eq. 8), on any images of its kind; their labels are not used."""
    recipe = checked(MaskerRecipe, steps=steps, batch=batch, lr=lr, area=area, seed=seed)
    where = chosen_device(device)
    classifier = Classifier.load(model, weights, normalize, device=where)
    through = None if encoder is None else Classifier.load(encoder, encoder_weights, device=where)
    training_set = _training_set(classifier, images, labels, split, masks, crop, resize)
    extractor = FeatureExtractor(classifier, through, (encoder, encoder_weights))
    _trained(
        out, recipe.steps, training_set, lambda on_step: train_masker(extractor, training_set, recipe, out, on_step)
    )


@train_app.command()
def aid(
    model: Model,
    images: ImagesAt,
    init: Annotated[Path, typer.Option(help="The masker to defend, from: underfire train rts.")],
    out: Annotated[Path, typer.Option(help="The masker's file; the same command again goes on with its training.")],
    weights: Weights = None,
    labels: LabelTable = None,
    split: Split = None,
    masks: Annotated[str | None, typer.Option(help="Folder of NAME.png, white where the object is.")] = None,
    normalize: Normalize = None,
    crop: Crop = None,
    resize: Resize = None,
    steps: Annotated[int, typer.Option(help="Most steps; the best network on held-out images is kept.")] = 600,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    defence: Annotated[
        str, typer.Option(help="distillation (Eq. 16), or augmentation: Eq. 15 on attacked images too.")
    ] = "distillation",
    ratio: Annotated[str, typer.Option(help="Steps on Eq. 15 and steps on the defence, in turns.")] = "1:1",
    attack_steps: Annotated[int, typer.Option(help="ADV2 steps whenever an image is attacked anew.")] = 20,
    refresh: Annotated[int, typer.Option(help="Visits of an image from one attack to the next.")] = 1,
    pool: Annotated[int, typer.Option(help="Images that are attacked, at most.")] = 512,
    weight: Annotated[float, typer.Option(help="Weight of Eq. 16 beside Eq. 15.")] = 50,
    margin: Annotated[float, typer.Option(help="Distance of maps beyond which none is rewarded; 1: none.")] = 0.2,
    drift: Annotated[
        float, typer.Option(help="How far benign maps may move from those of --init; 1: anywhere.")
    ] = 0.05,
    fidelity: Annotated[float, typer.Option(help="Weight of what they move beyond that; 0: none.")] = 200,
    judge_every: Annotated[int, typer.Option(help="Steps from one check on held-out images to the next.")] = 50,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train RTS's masker against its own attacker (AID, Eq. 15 and 16); one row of --out's .csv per check."""
    classifier = Classifier.load(model, weights, normalize, device=chosen_device(device))
    undefended = RTS.load(init)
    plain_steps, defending_steps = _ratio(ratio)
    recipe = checked(
        partial(recipe_for, undefended.masker),
        steps=steps,
        batch=batch,
        lr=lr,
        defence=defence,
        plain_steps=plain_steps,
        defending_steps=defending_steps,
        attack_steps=attack_steps,
        refresh=refresh,
        pool=pool,
        weight=weight,
        margin=margin,
        drift=drift,
        fidelity=fidelity,
        judge_every=judge_every,
        seed=seed,
    )
    training_set = _training_set(classifier, images, labels, split, masks, crop, resize)

    def train(on_step: OnStep) -> Masker:
        return train_aid(classifier, undefended, training_set, recipe, out, on_step)

    _trained(out, recipe.steps, training_set, train)


@train_app.command("classifier")
def train_a_classifier(
    model: Annotated[str, typer.Option(help="torchvision:NAME.")],
    images: Annotated[str, typer.Option(help="Folder of images, or .npz with images and labels.")],
    out: Annotated[Path, typer.Option(help="The classifier's file; the same command again goes on with its training.")],
    weights: Annotated[
        str | None, typer.Option(help="Where to begin: DEFAULT or a state-dict file of any task; else at random.")
    ] = None,
    labels: LabelTable = None,
    split: Split = None,
    normalize: Normalize = None,
    crop: Crop = None,
    resize: Resize = None,
    steps: Annotated[int, typer.Option(help="Most steps; the best network on held-out images is kept.")] = 1200,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-4,
    judge_every: Annotated[int, typer.Option(help="Steps from one check on held-out images to the next.")] = 100,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train a torchvision classifier on classes of one's own, all alike; one row of --out's .csv per check."""
    given = {"steps": steps, "batch": batch, "lr": lr, "judge_every": judge_every, "seed": seed}
    recipe = checked(ClassifierRecipe, **given)
    where = chosen_device(device)
    if images == "demo":
        raise UnderfireError("The demo's classifier comes trained; give --images a folder or an .npz.")
    image_set = open_images(images, labels, split=split)
    start = load_with_new_head(model, weights, normalize, image_set.classes, seed)
    crop, resize = sizes(start, crop, resize)
    image_set = replace(image_set, crop=crop, resize=resize)
    training_set = _read(image_set, None)
    examples = labelled(training_set, image_set)
    there_already = out.exists()

    def train(on_step: OnStep) -> files.ClassifierManifest:
        return train_classifier(start, examples, recipe, out, where, on_step)

    manifest = _under_bar(recipe.steps, train)
    scores = manifest.scores
    say(f"{manifest.training.get('steps_done')} steps; on {scores['images']:.0f} held-out images:")
    say(f"  accuracy {100 * scores['accuracy']:.1f} %, balanced accuracy {100 * scores['balanced_accuracy']:.1f} %")
    _tell_skipped(training_set)
    say(f"\nClassifier: {out}{', trained before' if there_already else ''}\nUse it: --model {model} --weights {out}")


def _trained(out: Path, steps: int, training_set: TrainingSet, train: Callable[[OnStep], Masker]) -> None:
    """Train under a progress bar and tell what came of it."""
    there_already = out.exists()
    _tell(_under_bar(steps, train).manifest, training_set)
    say(f"\nMasker: {out}{', trained before' if there_already else ''}\nUse it: --interpreter rts:{out}")


def _under_bar(steps: int, train: Callable[[OnStep], Trained]) -> Trained:
    """Train under a progress bar; an interrupt says how to go on."""
    try:
        with _bar(steps) as on_step:
            return train(on_step)
    except KeyboardInterrupt:
        typer.echo("underfire: interrupted; the same command again goes on from the last checkpoint.", err=True)
        raise typer.Exit(130) from None


def _training_set(
    classifier: Classifier,
    images: str,
    labels: str | None,
    split: str | None,
    masks: str | None,
    crop: int | None,
    resize: int | None,
) -> TrainingSet:
    if images == "demo" and split is not None:
        raise UnderfireError(f"The demo's scenes are not split; leave out --split {split}.")
    if images == "demo" and masks is not None:
        raise UnderfireError(f"The demo's scenes bring their own masks; leave out --masks {masks}.")
    if images == "demo":
        return demo_training_set()
    image_set = open_images(images, labels, *sizes(classifier.origin, crop, resize), split)
    return _read(image_set, None if masks is None else object_masks(image_set, existing_folder(masks)))


def _read(image_set: ImageSet, objects: ImageSet | None) -> TrainingSet:
    with Progress(console=console) as bars:
        task = bars.add_task("reading images", total=len(image_set))
        return read_training_set(image_set, objects, lambda count: bars.update(task, completed=count))


@contextmanager
def _bar(steps: int) -> Iterator[OnStep]:
    columns = (
        TextColumn("training"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps, loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("training", total=steps, loss=math.nan)
        yield lambda step, loss: bars.update(task, completed=step + 1, loss=loss)


def _tell(manifest: MaskerManifest, training_set: TrainingSet) -> None:
    done, images = manifest.training.get("steps_done"), manifest.scores.get("images") or 0
    say(f"{done} steps; means over {images:.0f} held-out images:")
    for name, meaning in SCORES.items():
        value = manifest.scores.get(name)
        if value is not None:
            say(f"  {meaning:48} {value:.3f}")
    _tell_skipped(training_set)


def _tell_skipped(training_set: TrainingSet) -> None:
    if training_set.skipped:
        name, reason = training_set.skipped[0]
        say(f"{len(training_set.skipped)} images could not be used; the first was {name}: {reason}")


def _ratio(text: str) -> tuple[int, int]:
    plain, _, defending = text.partition(":")
    if not (plain.isdecimal() and defending.isdecimal() and int(defending)):
        raise UnderfireError(f"--ratio {text} is no ratio; write it like 1:1, or 0:1 for steps on the defence alone.")
    return int(plain), int(defending)
