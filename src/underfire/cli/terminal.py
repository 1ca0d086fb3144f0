"""What the commands share: devices, image sizes, printing and progress."""

import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from underfire.core.errors import UnderfireError, first_line
from underfire.core.text import counted
from underfire.runs.settings import Batches, Shared, Source, sized

if TYPE_CHECKING:
    from types import FrameType

    import torch

    from underfire.attacks import engine
    from underfire.data.image_set import ImageSet
    from underfire.models.classifier import Classifier
    from underfire.runs.dispatch import Crew
    from underfire.runs.execute import Report
    from underfire.runs.plan import Planned

N = TypeVar("N", bound=Source)


def forgive_output() -> None:
    """Replace what the output has no characters for; where there is no output, print to nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def finish_output() -> None:
    """Print what is left; where nobody reads any more it goes nowhere, so that the exit code stays what it is."""
    try:
        sys.stdout.flush()
    except ValueError:
        return  # closed before
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Output(io.StringIO):
    """Standard output that never fails: what nobody reads any more is dropped."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stdout, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stdout.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()

    def isatty(self) -> bool:
        with suppress(ValueError):
            return sys.stdout is not None and sys.stdout.isatty()
        return False


console = Console(file=Output())


def chosen_device(name: str) -> "torch.device":
    """The device of that name; UnderfireError if it cannot be used."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as problem:
        raise UnderfireError(f"The device '{name}' cannot be used: {first_line(problem)}") from problem
    return device


def opened(settings: N, device: str) -> "tuple[N, Classifier]":
    """The classifier that the settings name, and the settings with the image sizes that its weights want."""
    classifier = settings.load(settings.model, chosen_device(device))
    return sized(settings, classifier.origin), classifier


@contextmanager
def crews(machine: Shared) -> "Iterator[Callable[[Mapping[str, Any], Classifier], Crew | None]]":
    """Who computes with a classifier that was loaded by such settings: workers, or None for this process.

    All of them, and this process, use as many threads, on which last bits depend.
    """
    import torch

    if machine.threads is not None or not machine.alone:
        torch.set_num_threads(machine.threads or 1)
    if machine.alone:
        yield lambda source, classifier: None
        return
    from underfire.runs.reference import Reference
    from underfire.runs.workers import Hiring, hired, seeing

    device = "cpu" if chosen_device(machine.device).type == "cpu" else "cuda"
    say(f"Starting {counted(machine.workers, 'worker')}.")
    with hired(Hiring(machine.workers, machine.ray, machine.threads or 1, device)) as workers:
        yield lambda source, classifier: seeing(workers, Reference.of(source, classifier))


def images_at_once(machine: Batches, classifier: "Classifier", image_set: "ImageSet") -> int:
    """How many images are worked on at a time, said where it was not asked for and is not what it always is."""
    from underfire.runs.memory import ON_CPU, largest_batch

    if machine.batch is not None:
        return machine.batch
    chosen = largest_batch(classifier, image_set)
    if chosen != ON_CPU:
        say(f"Working on {counted(chosen, 'image')} at a time, which {classifier.device} has memory for (--batch).")
    return chosen


def say(text: str) -> None:
    """Print as it is: no markup, no colours, no line breaks inside a path."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_written(paths: Mapping[str, Path]) -> None:
    """Print where what was written lies; --quiet leaves the paths alone."""
    width = max(map(len, paths)) + 1
    for label, path in paths.items():
        line = str(path) if console.quiet else f"{label + ':':{width}} {path}"
        console.file.write(f"{line}\n")


def existing_folder(path: str) -> Path:
    """The folder at `path`; UnderfireError if there is none."""
    folder = Path(path)
    if not folder.is_dir():
        raise UnderfireError(f"There is no folder {path}.")
    return folder


def table_of(title: str, names: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    """An empty table: columns of names, broken where the terminal is narrow, then columns of numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in names:
        table.add_column(name, overflow="fold", min_width=8)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


@dataclass(frozen=True)
class Column:
    """Numbers, one per row; a value may have several lines."""

    heading: str
    values: list[str]

    @property
    def width(self) -> int:
        return max(len(line) for each in (self.heading, *self.values) for line in each.split("\n"))


def print_columns(title: str, names: list[str], columns: list[Column]) -> None:
    """One table below another where the terminal is too narrow for all columns."""
    beside, room = list[Column](), console.width - Column("", names).width - 2
    for column in columns:
        if beside and sum(each.width + 1 for each in (*beside, column)) > room:
            _print_table(title, names, beside)
            beside = []
        beside.append(column)
    _print_table(title, names, beside)


def _print_table(title: str, names: list[str], columns: list[Column]) -> None:
    table = table_of(title, ("",), tuple(each.heading for each in columns))
    for row in zip(names, *(each.values for each in columns), strict=True):
        table.add_row(*row)
    console.print(table)


def command_line() -> str:
    """The command that is running, as it was typed."""
    return shlex.join(["underfire", *sys.argv[1:]])


@contextmanager
def progress_bars(going_on: str = "from here") -> Iterator[Progress]:
    """Bars with what a task says of its state; an interrupt says how to go on."""
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[state]:>28}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as bars, _interrupts() as heard:
        try:
            yield bars
        except BaseException as problem:
            if not heard and not isinstance(problem, KeyboardInterrupt):
                raise
            bars.stop()
            typer.echo(f"underfire: interrupted; the same command again goes on {going_on}.", err=True)
            raise typer.Exit(130) from None


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The interrupts (SIGINT) so far: a library in which one comes may make another exception of it."""
    heard = list[int]()

    def hear(number: int, frame: "FrameType | None") -> None:
        heard.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def stage_bars() -> "Iterator[Report]":
    """One bar per stage, drawn when it first reports."""
    with progress_bars() as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(planned: "Planned", progress: "engine.Progress") -> None:
            if planned.label not in tasks:
                tasks[planned.label] = bars.add_task(planned.label, state="")
            state = f"{counted(progress.images, 'image')} done"
            if planned.kind == "image":
                state += f", {progress.successes} succeeded"
            bars.update(tasks[planned.label], completed=progress.steps, total=progress.planned_steps, state=state)

        yield on_progress


@contextmanager
def one_bar(name: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A single bar: tell it how many are done, and the state in words."""
    with progress_bars("from the last checkpoint") as bars:
        task = bars.add_task(name, total=total, state="")
        yield lambda done, state: bars.update(task, completed=done, state=state)
