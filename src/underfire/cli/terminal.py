"""What the commands share: options, devices, image sizes, and printing."""

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from pydantic import BaseModel, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from underfire.attacks import engine
from underfire.core.types import UnderfireError
from underfire.interpreters.registry import INTERPRETERS
from underfire.metrics.intervals import Estimate
from underfire.models.classifier import Classifier
from underfire.models.loading import LoadedNetwork
from underfire.runs.execute import Report
from underfire.runs.plan import Planned
from underfire.runs.settings import Source

console = Console()
S = TypeVar("S", bound=BaseModel)
N = TypeVar("N", bound=Source)

Model = Annotated[str, typer.Option(help="torchvision:NAME, path/file.py:builder, or demo.")]
Weights = Annotated[str | None, typer.Option(help="DEFAULT or another torchvision name, or a state-dict file.")]
Normalize = Annotated[str | None, typer.Option(help="imagenet, none, or M,M,M/S,S,S.")]
ImagesAt = Annotated[str, typer.Option(help="Folder of images, .npz with images and labels, or demo.")]
LabelTable = Annotated[
    str | None, typer.Option(help="CSV: file, class_index [, class_name]; or HAM10000's or ISIC 2018's own.")
]
Split = Annotated[
    str | None, typer.Option(help="Part of the images: of the table's column split; else train or test, by lesion.")
]
Crop = Annotated[int | None, typer.Option(help="Centre crop in pixels; default: the weights' own.")]
Resize = Annotated[int | None, typer.Option(help="Short side in pixels, before the crop.")]
InterpreterNames = Annotated[
    str,
    typer.Option(help=f"Comma-separated: {', '.join(INTERPRETERS)}; with its masker, rts:FILE; smoothed, smooth:NAME."),
]
FeaturesLayer = Annotated[str | None, typer.Option(help="Layer that CAM and Grad-CAM explain; default: found.")]
Budget = Annotated[str | None, typer.Option(help="L-infinity budget of pgd, such as 8/255; default: the recipe's.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …; auto takes a GPU if there is one.")]
Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
Batch = Annotated[int, typer.Option(min=1, help="Images worked on at a time.")]


def chosen_device(name: str) -> torch.device:
    """The device of that name; UnderfireError if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as problem:
        raise UnderfireError(f"The device '{name}' cannot be used: {str(problem).splitlines()[0]}") from problem
    return device


def opened(settings: N, device: str) -> tuple[N, Classifier]:
    """The classifier that the settings name, and the settings with the image sizes that its weights want."""
    classifier = Classifier.load(
        settings.model, settings.weights, settings.normalize, features=settings.features, device=chosen_device(device)
    )
    crop, resize = sizes(classifier.origin, settings.crop, settings.resize)
    return settings.model_copy(update={"crop": crop, "resize": resize}), classifier


def sizes(origin: LoadedNetwork | None, crop: int | None, resize: int | None) -> tuple[int | None, int | None]:
    """(crop, resize) as asked for, else those that the network's weights want."""
    if crop is not None or origin is None:
        return crop, resize
    return origin.crop, origin.resize if resize is None else resize


def say(text: str) -> None:
    """Print as it is: no markup, no colours, no line breaks inside a path."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


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


def bracketed(value: Estimate) -> str:
    """A mean and its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def names_in(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in text.split(","))


def budget_in(text: str | None) -> float | None:
    """A budget as it is typed, a fraction or a number; UnderfireError if it is neither."""
    if text is None:
        return None
    try:
        numerator, slash, denominator = text.partition("/")
        return float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise UnderfireError(f"--eps {text} is no number; write it like 8/255 or 0.031.") from None


def command_line() -> str:
    """The command that is running, as it was typed."""
    return shlex.join(["underfire", *sys.argv[1:]])


def checked(kind: Callable[..., S], **values: Any) -> S:
    """Settings made of options; UnderfireError names the option that is wrong."""
    try:
        return kind(**values)
    except ValidationError as problem:
        first = problem.errors()[0]
        option = ".".join(map(str, first["loc"])).replace("_", "-")
        raise UnderfireError(f"--{option} {first['input']}: {first['msg']}.") from None


@contextmanager
def progress_bars() -> Iterator[Report]:
    """One bar per stage, drawn when it first reports; an interrupt says how to go on."""
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[state]:>28}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(planned: Planned, progress: engine.Progress) -> None:
            if planned.label not in tasks:
                tasks[planned.label] = bars.add_task(planned.label, state="")
            state = f"{progress.images} images done"
            if planned.kind == "image":
                state += f", {progress.successes} succeeded"
            bars.update(tasks[planned.label], completed=progress.steps, total=progress.planned_steps, state=state)

        try:
            yield on_progress
        except KeyboardInterrupt:
            bars.stop()
            typer.echo("underfire: interrupted; the same command again goes on from here.", err=True)
            raise typer.Exit(130) from None
