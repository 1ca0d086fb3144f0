"""`underfire study`: every table and figure of the paper by one command."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.cli.attack import say_subject
from underfire.cli.options import command
from underfire.cli.terminal import (
    Column,
    command_line,
    console,
    crews,
    existing_folder,
    images_at_once,
    opened,
    print_columns,
    say,
    say_written,
    stage_bars,
    table_of,
)
from underfire.core.errors import UnderfireError
from underfire.core.text import counted
from underfire.runs.settings import Distributed
from underfire.runs.study_settings import SCALES, StudySettings
from underfire.studies.catalogue import STUDIES, Entry, done

if TYPE_CHECKING:
    from underfire.models.classifier import Classifier
    from underfire.runs.dispatch import Crew
    from underfire.studies.base import Subject
    from underfire.studies.tables import Table

study_app = typer.Typer(help="Ask what the paper's tables ask.", no_args_is_help=True)

DEMO_SCENES = 200  # at least
Out = Annotated[Path, typer.Option(help="Folder of studies; the same command again resumes it.", rich_help_panel="Run")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how long it would take, and stop.", rich_help_panel="Run")]


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
    """The command that executes these studies in one folder."""

    def run(
        settings: StudySettings, machine: Distributed, dry_run: DryRun = False, out: Out = Path("runs/study")
    ) -> None:
        from underfire.runs.suited import suited

        request, classifier = opened(_with_defaults(settings), machine.device)
        subject = _subject(request, classifier)
        request, notes = suited(request, classifier, subject.image_set)
        say_subject(request, classifier, subject.image_set, notes)
        feasible = _feasible(entries, request)
        impossible = _announce(feasible, request, subject, out)
        if not dry_run:
            with crews(machine) as crew_of:
                crew = crew_of(request.model_dump(), classifier)
                _execute(feasible, request, subject, out, images_at_once(machine, classifier, subject.image_set), crew)
        elif impossible:
            raise UnderfireError(" ".join(impossible))

    return run


for _entry in STUDIES.values():
    command(study_app, _entry.name, help=f"{_entry.question} ({_entry.paper})")(_command((_entry,)))
command(study_app, "all", help="All of them, in one folder and one report.")(_command(tuple(STUDIES.values())))


def _with_defaults(settings: StudySettings) -> StudySettings:
    """With what the demo brings along, where nothing else is asked for."""
    from underfire.data import demo

    if settings.images != "demo":
        return settings
    brought = {"interpreters": demo.SHOWN, "defended": (demo.DEFENDED,), "masks": "demo", "eps": demo.EPS}
    return StudySettings.model_validate(brought | settings.model_dump(exclude_unset=True))


def _subject(request: StudySettings, classifier: "Classifier") -> "Subject":
    """The images, the demo's in sufficient number, and the masks that belong to them."""
    from underfire.data import demo
    from underfire.data.class_names import for_classifier
    from underfire.data.image_set import object_masks
    from underfire.studies.base import Subject

    if (request.masks == "demo") != (request.images == "demo") and request.masks is not None:
        raise UnderfireError("The demo's scenes bring their own masks; name --masks FOLDER for images of your own.")
    if request.images == "demo":
        count = max(DEMO_SCENES, request.attacked + request.sizes.benign, request.sizes.located)
        image_set = for_classifier(request.open_images(count), classifier)
        return Subject(classifier, image_set, demo.demo_masks(count))
    image_set = for_classifier(request.open_images(), classifier)
    masks = None if request.masks is None else object_masks(image_set, existing_folder(request.masks))
    return Subject(classifier, image_set, masks)


def _feasible(entries: tuple[Entry, ...], request: StudySettings) -> list[Entry]:
    """Those for which the request names all that they need; UnderfireError if there is none."""
    feasible = []
    for entry in entries:
        lacking = entry.study.lacking(request)
        if lacking is None:
            feasible.append(entry)
        elif len(entries) == 1:
            raise UnderfireError(f"The study '{entry.name}' {lacking}.")
        else:
            say(f"Left out: {entry.name}, which {lacking}.")
    return feasible


def _announce(entries: list[Entry], request: StudySettings, subject: "Subject", out: Path) -> list[str]:
    """Print how long each study will take, and all of them; sentences on those that cannot be done."""
    from underfire.runs.store import Store
    from underfire.studies.estimates import stopwatch

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


def _execute(
    entries: list[Entry], request: StudySettings, subject: "Subject", out: Path, batch: int, crew: "Crew | None"
) -> None:
    """One study after another; one that cannot be done does not keep the others from it."""
    from underfire.report import write_report_of
    from underfire.runs.execute import Manner
    from underfire.studies.base import FIGURES, TABLES

    say_once, failed = cache(say), list[str]()  # several studies may notice the same
    for entry in entries:
        try:
            with stage_bars() as on_progress:
                manner = Manner(command_line(), batch, say_once, on_progress, crew)
                run = entry.study.execute(request, subject, out / entry.name, manner)
        except UnderfireError as problem:
            failed.append(f"{entry.name}: {problem}")
            continue
        for each in entry.study.tables(run):
            _print(each)
        written = {f"{entry.name}, {name}": run.path / name for name in (TABLES, FIGURES)}
        say("")
        say_written({label: folder for label, folder in written.items() if folder.is_dir()})
        say("")
    if done(out):
        say_written({"Report": write_report_of(out)})
    if failed:
        raise UnderfireError(" ".join(failed))


def _print(table: "Table") -> None:
    """The paper's values under ours."""
    from underfire.studies import tables

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
    return counted(round(seconds), "second")
