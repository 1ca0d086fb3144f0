"""The command line: parse, call, print."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from underfire.attacks.names import ATTACKS, RECIPES, SOLVERS, TARGET_CLASSES, TARGET_MAPS
from underfire.cli.detect import detect
from underfire.cli.study import study_app
from underfire.cli.terminal import (
    Batch,
    Budget,
    Crop,
    Device,
    FeaturesLayer,
    ImagesAt,
    InterpreterNames,
    LabelTable,
    Model,
    Normalize,
    Resize,
    Seed,
    Split,
    Weights,
    budget_in,
    checked,
    chosen_device,
    command_line,
    console,
    names_in,
    opened,
    progress_bars,
    say,
    table_of,
)
from underfire.cli.train import train_app
from underfire.cli.transfer import transfer
from underfire.core.types import UnderfireError
from underfire.data.corruptions import CHANGES
from underfire.data.demo import EPS, SHOWN, demo_images
from underfire.data.image_set import ImageSet
from underfire.detection.names import DETECTORS, SQUEEZERS
from underfire.interpreters.registry import INTERPRETERS
from underfire.models.classifier import Classifier
from underfire.report import write_report, write_report_of
from underfire.report.tables import heads, lines
from underfire.report.wording import wording
from underfire.runs.folder import Run, is_targeted
from underfire.runs.outcomes import summarise
from underfire.runs.settings import AttackSettings
from underfire.studies import effectiveness
from underfire.training import demo as demo_training

app = typer.Typer(
    help="If someone attacked this classifier, would its explanation have warned us?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(train_app, name="train")
app.add_typer(study_app, name="study")
app.command()(transfer)
app.command()(detect)

Out = Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.")]

Count = Annotated[int, typer.Option("--n", min=1, help="How many correctly classified images to attack.")]


@app.command()
def attack(
    model: Model,
    images: ImagesAt,
    weights: Weights = None,
    labels: LabelTable = None,
    split: Split = None,
    interpreter: InterpreterNames = "cam,grad",
    solver: Annotated[str, typer.Option(help="pgd changes pixel values, stadv bends the image; or both.")] = "pgd",
    recipe: Annotated[str, typer.Option(help=f"{' or '.join(RECIPES)}.")] = "annealed",
    n: Count = 16,
    eps: Budget = None,
    steps: Annotated[int | None, typer.Option(help="ADV2 steps after the warm start; default: the recipe's.")] = None,
    target_class: Annotated[
        str, typer.Option(help=f"{', '.join(TARGET_CLASSES)}: index N, or a CSV with columns file and target.")
    ] = "random",
    target_map: Annotated[
        str, typer.Option(help=f"{', '.join(TARGET_MAPS)}: a picture, white where important.")
    ] = "benign",
    evade: Annotated[
        str | None,
        typer.Option(help="Detectors to hide from as well, such as fs:median:3,fs,ensemble: attacks of their own."),
    ] = None,
    normalize: Normalize = None,
    features: FeaturesLayer = None,
    crop: Crop = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
    out: Out = Path("runs/attack"),
) -> None:
    """Attack classifier and interpreters with PGD or StAdv and its ADV2; leaves a run folder and its report."""
    settings = checked(
        AttackSettings,
        model=model,
        weights=weights,
        normalize=normalize,
        features=features,
        images=images,
        labels=labels,
        split=split,
        crop=crop,
        resize=resize,
        interpreters=names_in(interpreter),
        solvers=names_in(solver),
        recipe=recipe,
        n=n,
        eps=budget_in(eps),
        steps=steps,
        target_class=target_class,
        target_map=target_map,
        evade=() if evade is None else names_in(evade),
        seed=seed,
    )
    settings, classifier = opened(settings, device)
    _attack(settings, classifier, settings.open_images(), out, batch)


@app.command()
def demo(
    n: Count = 16,
    seed: Seed = 0,
    device: Device = "auto",
    out: Out = Path("runs/demo"),
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the demo classifier anew and stop.")] = False,
) -> None:
    """The whole path on synthetic scenes and a small classifier; needs no download and no data."""
    if retrain:
        _retrain(out)
        return
    settings = checked(AttackSettings, model="demo", images="demo", interpreters=SHOWN, n=n, eps=EPS, seed=seed)
    _attack(settings, Classifier.load("demo", device=chosen_device(device)), demo_images(), out, batch=16)
    say(
        "\nTry your own model next:\n"
        "  underfire attack --model torchvision:resnet18 --weights DEFAULT --images FOLDER --interpreter cam,grad\n"
        "  underfire attack --model my_model.py:build --weights my.safetensors --images FOLDER --crop 224"
    )


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder, or a folder of studies.")]) -> None:
    """Write report.html anew from what a folder holds."""
    say(f"Report: {write_report_of(run)}")


@app.command("list")
def list_names() -> None:
    """What can be named on the command line."""
    say(f"interpreters  {', '.join(INTERPRETERS)}")
    say(f"solvers       {', '.join(SOLVERS)}")
    say(f"attacks       {', '.join(ATTACKS)}")
    say(f"recipes       {', '.join(RECIPES)}")
    say(f"target class  {', '.join(TARGET_CLASSES)}")
    say(f"target map    {', '.join(TARGET_MAPS)}")
    say(f"detectors     {', '.join(DETECTORS)}")
    say(f"squeezers     {', '.join(SQUEEZERS)}")
    say(f"changes       {', '.join(CHANGES)}")
    say("models        torchvision:NAME, path/file.py:builder, demo")


def main() -> None:
    """Entry point: errors become one sentence and a non-zero exit code."""
    try:
        app()
    except UnderfireError as problem:
        typer.echo(f"underfire: {' '.join(str(problem).split())}", err=True)
        sys.exit(1)


def _attack(settings: AttackSettings, classifier: Classifier, image_set: ImageSet, out: Path, batch: int) -> None:
    normalization = classifier.origin.normalization if classifier.origin else "given"
    say(f"Model {settings.model} on {classifier.device}; normalisation: {normalization}.")
    with progress_bars() as on_progress:
        run = effectiveness.execute(
            settings, classifier, image_set, out, command=command_line(), batch_size=batch, on_progress=on_progress
        )
    _print_summary(run)
    say(f"\nRun folder: {out}\nReport:     {write_report(run, out / 'report.html')}")


def _print_summary(run: Run) -> None:
    selection, skipped = run.info["selection"], run.info["skipped"]
    found = selection["examined"] - selection["misclassified"]
    title = f"{'1 image' if found == 1 else f'{found} images'}; means, with their 95 % interval in brackets"
    targeted = is_targeted(run.info)
    table = table_of(title, ("interpreter", "attack"), heads(wording(run.info), targeted))
    for line in lines(summarise(run.outcomes()), targeted):
        table.add_row(*line)
    console.print(table)
    if skipped:
        say(f"{len(skipped)} files could not be used; run.json lists them with the reasons.")
    if found < selection["requested"]:
        examined, wrong = selection["examined"], selection["misclassified"]
        say(f"No more than {found} images were found: of {examined} examined, {wrong} were misclassified.")
    if passed_over := selection.get("passed_over"):
        say(f"{passed_over} images were passed over: they have no target class other than their own.")


def _retrain(out: Path) -> None:
    path = out.with_suffix(".safetensors")
    with Progress(console=console) as bars:
        task = bars.add_task("training", total=demo_training.STEPS)
        accuracy = demo_training.retrain(path, lambda step, _loss: bars.update(task, completed=step + 1))
    say(f"Weights: {path}, held-out accuracy {accuracy:.3f}")
