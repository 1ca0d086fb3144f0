"""`underfire study`: every table and figure of the paper by one command."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from underfire.cli.terminal import (
    Batch,
    Budget,
    Column,
    Crop,
    Device,
    FeaturesLayer,
    ImagesAt,
    LabelTable,
    Model,
    Normalize,
    Resize,
    Seed,
    Split,
    Weights,
    budget_in,
    checked,
    command_line,
    console,
    existing_folder,
    names_in,
    opened,
    print_columns,
    progress_bars,
    say,
    table_of,
)
from underfire.core.types import UnderfireError
from underfire.data import demo
from underfire.data.image_set import object_masks
from underfire.models.classifier import Classifier
from underfire.report import write_report_of
from underfire.runs.settings import SCALES, StudySettings
from underfire.runs.store import Store
from underfire.studies import tables
from underfire.studies.base import FIGURES, TABLES, Manner, Subject
from underfire.studies.catalogue import STUDIES, Entry, done
from underfire.studies.estimates import stopwatch

study_app = typer.Typer(help="Ask what the paper's tables ask.", no_args_is_help=True)

DEMO_SCENES = 200  # at least


@study_app.callback()
def _study() -> None:
    """Ask what the paper's tables ask."""


@study_app.command("list")
def list_studies() -> None:
    """The studies, and the tables and figures of the paper that each makes."""
    table = table_of("", ("study", "makes", "asks"), ())
    for entry in STUDIES.values():
        table.add_row(entry.name, entry.paper, entry.question)
    console.print(table)
    scales = ", ".join(f"{name} {scale.attacked}" for name, scale in SCALES.items())
    say(f"Images attacked by --scale: {scales}.")


def _command(entries: tuple[Entry, ...]) -> Callable[..., None]:
    """The command that carries out these studies in one folder."""

    def command(
        model: Model,
        images: ImagesAt,
        weights: Weights = None,
        labels: LabelTable = None,
        split: Split = None,
        masks: Annotated[
            str | None, typer.Option(help="Folder of NAME.png, white where the object is; the demo has its own.")
        ] = None,
        interpreter: Annotated[
            str | None, typer.Option(help="Comma-separated, as for underfire attack; default: cam,grad.")
        ] = None,
        defended: Annotated[
            str | None, typer.Option(help="Defended interpreters for the study aid: rts:FILE,smooth:NAME.")
        ] = None,
        scale: Annotated[str, typer.Option(help=f"How many images: {', '.join(SCALES)}.")] = "standard",
        n: Annotated[int | None, typer.Option("--n", min=1, help="Images in place of the scale's.")] = None,
        recipe: Annotated[str, typer.Option(help="annealed or paper.")] = "annealed",
        eps: Budget = None,
        steps: Annotated[int | None, typer.Option(help="ADV2 steps after the warm start.")] = None,
        normalize: Normalize = None,
        features: FeaturesLayer = None,
        crop: Crop = None,
        resize: Resize = None,
        seed: Seed = 0,
        device: Device = "auto",
        batch: Batch = 16,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how long it would take, and stop.")] = False,
        out: Annotated[Path, typer.Option(help="Folder of studies; the same command again resumes it.")] = Path(
            "runs/study"
        ),
    ) -> None:
        given: dict[str, Any] = {"model": model, "weights": weights, "normalize": normalize, "features": features}
        given |= {
            "images": images,
            "labels": labels,
            "split": split,
            "crop": crop,
            "resize": resize,
            "masks": masks,
            "seed": seed,
        }
        given |= {"scale": scale, "n": n, "recipe": recipe, "eps": budget_in(eps), "steps": steps}
        given |= {"interpreters": interpreter and names_in(interpreter), "defended": defended and names_in(defended)}
        named = {name: value for name, value in given.items() if value is not None}
        request, classifier = opened(checked(StudySettings, **(_defaults(images) | named)), device)
        subject = _subject(request, classifier)
        feasible = _feasible(entries, request)
        impossible = _announce(feasible, request, subject, out)
        if not dry_run:
            _carry_out(feasible, request, subject, out, batch)
        elif impossible:
            raise UnderfireError(" ".join(impossible))

    return command


for _name, _entry in STUDIES.items():
    study_app.command(_name, help=f"{_entry.question} ({_entry.paper})")(_command((_entry,)))
study_app.command("all", help="All of them, in one folder and one report.")(_command(tuple(STUDIES.values())))


def _defaults(images: str) -> dict[str, Any]:
    """What the demo brings along."""
    if images != "demo":
        return {}
    return {"interpreters": demo.SHOWN, "defended": (demo.DEFENDED,), "masks": "demo", "eps": demo.EPS}


def _subject(request: StudySettings, classifier: Classifier) -> Subject:
    """The images, the demo's in sufficient number, and the masks that belong to them."""
    if (request.masks == "demo") != (request.images == "demo") and request.masks is not None:
        raise UnderfireError("The demo's scenes bring their own masks; name --masks FOLDER for images of your own.")
    if request.images == "demo":
        count = max(DEMO_SCENES, request.attacked + request.sizes.benign, request.sizes.located)
        return Subject(classifier, request.open_images(count), demo.demo_masks(count))
    image_set = request.open_images()
    masks = None if request.masks is None else object_masks(image_set, existing_folder(request.masks))
    return Subject(classifier, image_set, masks)


def _feasible(entries: tuple[Entry, ...], request: StudySettings) -> list[Entry]:
    """Those for which the request names all that they need; UnderfireError if there is none."""
    feasible = list[Entry]()
    for entry in entries:
        lacking = entry.study.lacking(request)
        if lacking is None:
            feasible.append(entry)
        elif len(entries) == 1:
            raise UnderfireError(f"The study '{entry.name}' {lacking}.")
        else:
            say(f"Left out: {entry.name}, which {lacking}.")
    return feasible


def _announce(entries: list[Entry], request: StudySettings, subject: Subject, out: Path) -> list[str]:
    """Print how long each study will take, and all of them; sentences on those that cannot be done."""
    table, total, impossible = table_of("", ("study",), ("stages", "lacking", "about")), 0.0, list[str]()
    with console.status("timing one image"), stopwatch(subject.classifier, Store(out)) as watch:
        for entry in entries:
            try:
                experiment = entry.study.experiment(request, subject)
                expected = watch.estimate(experiment, entry.study.plan(request, experiment))
            except UnderfireError as problem:
                impossible.append(f"{entry.name}: {problem}")
                continue
            seconds = sum(each.seconds for each in expected)
            total += seconds
            lacking = sum(each.images > 0 for each in expected)
            table.add_row(entry.name, str(len(expected)), str(lacking), _duration(seconds))
    console.print(table)
    say(f"About {_duration(total)} on {subject.classifier.device}, timed on one image; detectors come on top.")
    return impossible


def _carry_out(entries: list[Entry], request: StudySettings, subject: Subject, out: Path, batch: int) -> None:
    """One study after another; one that cannot be done does not keep the others from it."""
    failed: list[str] = []
    for entry in entries:
        try:
            with progress_bars() as on_progress:
                manner = Manner(command_line(), batch, on_progress)
                run = entry.study.execute(request, subject, out / entry.name, manner)
        except UnderfireError as problem:
            failed.append(f"{entry.name}: {problem}")
            continue
        for each in entry.study.tables(run):
            _print(each)
        written = (run.path / name for name in (TABLES, FIGURES))
        say(f"\n{entry.name}: {', '.join(str(folder) for folder in written if folder.is_dir())}\n")
    if done(out):
        say(f"Report: {write_report_of(out)}")
    if failed:
        raise UnderfireError(" ".join(failed))


def _print(table: tables.Table) -> None:
    """The paper's values under ours."""
    columns = [
        Column(heading, ["\n".join(tables.lines_of(row.cells[place])) for row in table.rows])
        for place, heading in enumerate(table.columns)
    ]
    print_columns(table.title, [", ".join(row.names) for row in table.rows], columns)
    for note in table.notes:
        say(note)


def _duration(seconds: float) -> str:
    """In the largest unit of which there is one."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
