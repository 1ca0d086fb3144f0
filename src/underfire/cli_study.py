"""`underfire study`: what the paper's tables ask, one command each."""

from pathlib import Path
from typing import Annotated, Any

import typer

from underfire.data import ImageSet, object_masks
from underfire.demo import demo_images, demo_masks
from underfire.store import Run
from underfire.studies import aid, attacks, gap, localisation, sanity
from underfire.terminal import (
    Batch,
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
    Weights,
    bracketed,
    checked,
    command_line,
    console,
    existing_folder,
    names_in,
    opened,
    percentage,
    progress_bars,
    say,
    table_of,
)
from underfire.types import UnderfireError

study_app = typer.Typer(help="Ask what the paper's tables ask.", no_args_is_help=True)

DEMO_SCENES = 200  # at least


@study_app.callback()
def _study() -> None:
    """Ask what the paper's tables ask."""


@study_app.command("localisation")
def study_localisation(
    model: Model,
    images: ImagesAt,
    masks: Annotated[str, typer.Option(help="Folder of NAME.png, white where the object is; the demo has its own.")],
    weights: Weights = None,
    labels: LabelTable = None,
    interpreter: InterpreterNames = "cam,grad",
    n: Annotated[int, typer.Option("--n", min=2, help="How many images: half to choose parameters on.")] = 200,
    normalize: Normalize = None,
    features: FeaturesLayer = None,
    crop: Crop = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
    out: Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.")] = Path(
        "runs/localisation"
    ),
) -> None:
    """Find the object from maps alone (Table 2): error of the box around what is salient, and the pointing game."""
    given: dict[str, Any] = {"model": model, "weights": weights, "normalize": normalize, "features": features}
    given |= {"images": images, "labels": labels, "crop": crop, "resize": resize}
    settings = checked(localisation.Settings, **given, masks=masks, interpreters=names_in(interpreter), n=n, seed=seed)
    if (images == "demo") != (masks == "demo"):
        raise UnderfireError("The demo's scenes bring their own masks: give --images demo together with --masks demo.")
    settings, classifier = opened(settings, device)
    if images == "demo":
        image_set, pictured = demo_images(max(n, DEMO_SCENES)), demo_masks(max(n, DEMO_SCENES))
    else:
        image_set = settings.open_images()
        pictured = object_masks(image_set, existing_folder(masks))
    with progress_bars() as on_progress:
        run = localisation.execute(
            settings, classifier, image_set, pictured, out, command=command_line(), width=batch, on_progress=on_progress
        )
    _print_localisation(run)
    say(f"\nRun folder: {out}")


@study_app.command("sanity")
def study_sanity(
    model: Model,
    images: ImagesAt,
    weights: Weights = None,
    labels: LabelTable = None,
    interpreter: InterpreterNames = "cam,grad",
    n: Annotated[int, typer.Option("--n", min=2, help="How many correctly classified images.")] = 32,
    normalize: Normalize = None,
    features: FeaturesLayer = None,
    crop: Crop = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
    out: Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.")] = Path("runs/sanity"),
) -> None:
    """Re-initialise the classifier's head or all its layers: maps that stay the same show nothing it has learned."""
    given: dict[str, Any] = {"model": model, "weights": weights, "normalize": normalize, "features": features}
    given |= {"images": images, "labels": labels, "crop": crop, "resize": resize}
    settings = checked(sanity.Settings, **given, interpreters=names_in(interpreter), n=n, seed=seed)
    settings, classifier = opened(settings, device)
    image_set = demo_images(DEMO_SCENES) if images == "demo" else settings.open_images()
    with progress_bars() as on_progress:
        run = sanity.execute(
            settings, classifier, image_set, out, command=command_line(), width=batch, on_progress=on_progress
        )
    _print_sanity(run)
    say(f"\nRun folder: {out}")


@study_app.command("gap")
def study_gap(
    model: Model,
    images: ImagesAt,
    weights: Weights = None,
    labels: LabelTable = None,
    interpreter: InterpreterNames = "cam,grad",
    n: Annotated[int, typer.Option("--n", min=1, help="How many correctly classified images to attack.")] = 32,
    normalize: Normalize = None,
    features: FeaturesLayer = None,
    crop: Crop = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
    out: Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.")] = Path("runs/gap"),
) -> None:
    """Attack, then compare what the probability and its integrated gradients gain (Proposition 1)."""
    given: dict[str, Any] = {"model": model, "weights": weights, "normalize": normalize, "features": features}
    given |= {"images": images, "labels": labels, "crop": crop, "resize": resize}
    settings = checked(attacks.Settings, **given, interpreters=names_in(interpreter), n=n, seed=seed)
    settings, classifier = opened(settings, device)
    image_set = settings.open_images()
    with progress_bars() as on_progress:
        run = gap.execute(
            settings, classifier, image_set, out, command=command_line(), width=batch, on_progress=on_progress
        )
    _print_gap(run)
    say(f"\nRun folder: {out}\nPlot:       {out / gap.PLOT}")


@study_app.command("aid")
def study_aid(
    model: Model,
    images: ImagesAt,
    interpreter: Annotated[
        str, typer.Option(help="The undefended one, then those that are defended: rts:FILE,rts:FILE,smooth:rts:FILE.")
    ],
    weights: Weights = None,
    labels: LabelTable = None,
    masks: Annotated[str | None, typer.Option(help="Folder of NAME.png, white where the object is.")] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="How many correctly classified images.")] = 64,
    located: Annotated[int, typer.Option(help="With masks: images on which objects are to be found.")] = 200,
    eps: Annotated[float | None, typer.Option(help="L-infinity budget; default: the recipe's 8/255.")] = None,
    steps: Annotated[int | None, typer.Option(help="ADV2 steps after the warm start; default: the recipe's.")] = None,
    normalize: Normalize = None,
    features: FeaturesLayer = None,
    crop: Crop = None,
    resize: Resize = None,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
    out: Annotated[Path, typer.Option(help="Run folder; the same command again resumes it.")] = Path("runs/aid"),
) -> None:
    """Attack interpreters that are defended, and disturb their images: do maps tell? (Table 10, Fig. 15)"""
    given: dict[str, Any] = {"model": model, "weights": weights, "normalize": normalize, "features": features}
    given |= {"images": images, "labels": labels, "crop": crop, "resize": resize, "masks": masks, "located": located}
    given |= {"interpreters": names_in(interpreter), "n": n, "eps": eps, "steps": steps, "seed": seed}
    settings, classifier = opened(checked(aid.Settings, **given), device)
    image_set = demo_images(max(n, located, DEMO_SCENES)) if images == "demo" else settings.open_images()
    pictured = None if masks is None else _masks(image_set, masks)
    with progress_bars() as on_progress:
        run = aid.execute(
            settings, classifier, image_set, pictured, out, command=command_line(), width=batch, on_progress=on_progress
        )
    _print_aid(settings, run)
    say(f"\nRun folder: {out}\nPictures:   {out / aid.ATTACK_PICTURE}, {out / aid.NOISE_PICTURE}")


def _masks(image_set: ImageSet, masks: str) -> ImageSet:
    """The demo's own masks, or those in a folder."""
    if masks == "demo":
        return demo_masks(len(image_set))
    return object_masks(image_set, existing_folder(masks))


def _print_aid(settings: aid.Settings, run: Run) -> None:
    rows = aid.summarise(aid.comparisons(run))
    for name in settings.by_label():
        table = table_of(f"{name}, {rows[0].map_l1.n} images", ("images",), ("map ΔL1", "wrong %", "ASR", "AUC", "σ"))
        for row in rows:
            if row.shown_by == name and not row.is_harmless:
                table.add_row(
                    row.images if row.made_for in (None, name) else f"{row.images} for {row.made_for}",
                    bracketed(row.map_l1),
                    f"{100 * row.misclassified.value:.1f}",
                    "" if row.success is None else f"{row.success.value:.3f}",
                    "" if row.auc is None else f"{row.auc:.3f}",
                    "" if row.sigma is None else f"{row.sigma:.3f}",
                )
        console.print(table)
    say("ΔL1 to the own benign map; of benign images to the first interpreter's.")
    say("AUC: map change as a detector of the attack, against random signs of the same size.")
    say("Paper (Table 10): RTS to RTS^A .03 on benign images; under ADV2 RTS .01, RTS^A .10.")
    for name, found in aid.located(settings, run).items():
        say(f"Localisation error of {name}: {percentage(found.error)} % ({found.rule} {found.parameter:g}).")


def _print_localisation(run: Run) -> None:
    rows = localisation.summarise(localisation.localisations(run))
    n = rows[0].error.n
    table = table_of(
        f"{n} images of the test half; %, 95 % interval in brackets; * best on the other half",
        ("interpreter", "rule"),
        ("at", "error", "wrong box", "pointing", "no box", "paper"),
    )
    for row in rows:
        paper = localisation.PAPER.get(row.interpreter) if row.best else None
        table.add_row(
            row.interpreter,
            f"{row.rule}{'*' if row.best else ''}",
            f"{row.parameter:g}",
            percentage(row.error),
            f"{100 * row.box_error.value:.1f}",
            f"{100 * row.points_at_object.value:.1f}",
            str(row.constant),
            "" if paper is None else f"{100 * paper:.1f}",
        )
    console.print(table)
    say("Paper: ImageNet, ResNet-50, Table 2; another data set and classifier, so an anchor for size alone.")


def _print_sanity(run: Run) -> None:
    rows = sanity.summarise(sanity.comparisons(run))
    table = table_of(
        f"{rows[0].map_l1.n} images; means, with 95 % intervals in brackets",
        ("interpreter", "compared with"),
        ("rank correlation", "map ΔL1", "blank"),
    )
    for row in rows:
        shown = (bracketed(row.rank_correlation), bracketed(row.map_l1), str(row.constant))
        table.add_row(row.interpreter, row.compared_with, *shown)
    console.print(table)


def _print_gap(run: Run) -> None:
    rows = gap.summarise(gap.gaps(run))
    table = table_of(
        f"{rows[0].gap.n} images; means, with 95 % intervals in brackets",
        ("attack", "made for"),
        ("prediction", "interpretation", "error", "beyond"),
    )
    for row in rows:
        losses = (bracketed(row.prediction_loss), bracketed(row.interpretation_loss))
        table.add_row(row.attack, row.interpreter or "", *losses, f"{row.error:.3f}", str(row.beyond))
    console.print(table)
    say("Proposition 1: prediction ≤ interpretation, but for the error of the integral; beyond: images for which not.")
