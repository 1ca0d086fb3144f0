"""`underfire train`: what has to be learned before it can be attacked."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from underfire.classifiers import Classifier
from underfire.data import ImageSet, object_masks, open_images
from underfire.maskers import Manifest
from underfire.rts_training import FeatureExtractor, Recipe, train_masker
from underfire.terminal import (
    Crop,
    Device,
    ImagesAt,
    LabelTable,
    Model,
    Normalize,
    Resize,
    Seed,
    Weights,
    chosen_device,
    console,
    existing_folder,
    say,
    sizes,
)
from underfire.training_sets import TrainingSet, demo_training_set, read_training_set
from underfire.types import UnderfireError

train_app = typer.Typer(help="Train what has to be learned before it can be attacked.", no_args_is_help=True)

SCORES = {
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
    recipe = _recipe(steps=steps, batch=batch, lr=lr, area=area, seed=seed)
    where = chosen_device(device)
    classifier = Classifier.load(model, weights, normalize, device=where)
    through = None if encoder is None else Classifier.load(encoder, encoder_weights, device=where)
    if images == "demo" and masks is not None:
        raise UnderfireError(f"The demo's scenes bring their own masks; leave out --masks {masks}.")
    if images == "demo":
        training_set = demo_training_set()
    else:
        image_set = open_images(images, labels, *sizes(classifier, crop, resize))
        training_set = _training_set(
            image_set, None if masks is None else object_masks(image_set, existing_folder(masks))
        )
    there_already = out.exists()
    try:
        with _bar(recipe.steps) as on_step:
            extractor = FeatureExtractor(classifier, through, (encoder, encoder_weights))
            masker = train_masker(extractor, training_set, recipe, out, on_step)
    except KeyboardInterrupt:
        typer.echo("underfire: interrupted; the same command again goes on from the last checkpoint.", err=True)
        raise typer.Exit(130) from None
    _tell(masker.manifest, training_set)
    say(f"\nMasker: {out}{', trained before' if there_already else ''}\nUse it: --interpreter rts:{out}")


def _training_set(image_set: ImageSet, objects: ImageSet | None) -> TrainingSet:
    with Progress(console=console) as bars:
        task = bars.add_task("reading images", total=len(image_set))
        return read_training_set(image_set, objects, lambda count: bars.update(task, completed=count))


@contextmanager
def _bar(steps: int) -> Iterator[Callable[[int, float], None]]:
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


def _tell(manifest: Manifest, training_set: TrainingSet) -> None:
    done, images = manifest.training.get("steps_done"), manifest.scores.get("images") or 0
    say(f"{done} steps; means over {images:.0f} held-out images:")
    for name, meaning in SCORES.items():
        value = manifest.scores.get(name)
        if value is not None:
            say(f"  {meaning:40} {value:.3f}")
    if training_set.skipped:
        name, reason = training_set.skipped[0]
        say(f"{len(training_set.skipped)} images could not be used; the first was {name}: {reason}")


def _recipe(**values: Any) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise UnderfireError(f"--{first['loc'][0]} {first['input']}: {first['msg']}.") from None
