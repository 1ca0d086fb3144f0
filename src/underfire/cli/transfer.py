"""`underfire transfer`: the images of a run as other interpreters, or another classifier, see them."""

from pathlib import Path
from typing import Annotated

import typer

from underfire.cli.terminal import (
    Batch,
    Device,
    Normalize,
    Weights,
    chosen_device,
    console,
    names_in,
    progress_bars,
    say,
    table_of,
)
from underfire.core.types import UnderfireError
from underfire.interpreters.registry import INTERPRETERS, interpreter_named
from underfire.metrics.intervals import Estimate
from underfire.models.classifier import Classifier
from underfire.runs.execute import reopen
from underfire.runs.folder import open_run
from underfire.studies import transfer as study
from underfire.studies.transfer import Elsewhere, TransferCell


def transfer(
    run: Annotated[Path, typer.Argument(help="The run folder of an attack.")],
    interpreter: Annotated[
        str | None, typer.Option(help=f"Comma-separated: {', '.join(INTERPRETERS)}; default: those of the run.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another classifier to see the images by; default: that of the run.")
    ] = None,
    weights: Weights = None,
    normalize: Normalize = None,
    features: Annotated[str | None, typer.Option(help="The other classifier's layer that CAM explains.")] = None,
    device: Device = "auto",
    batch: Batch = 16,
) -> None:
    """Explain a run's images by other interpreters or another classifier: are these deceived too (Table 9)?"""
    if model is None and (weights, normalize, features) != (None, None, None):
        raise UnderfireError(
            "--weights, --normalize and --features are those of another --model; name it or leave them out."
        )
    opened, names = open_run(run), None if interpreter is None else names_in(interpreter)
    if names is not None and len({name.partition(":")[0] for name in names}) < len(names):
        raise UnderfireError(f"--interpreter {interpreter} names an interpreter twice; name it once.")
    shown = None if names is None else [interpreter_named(name) for name in names]
    classifier, _ = reopen(opened, chosen_device(device))
    elsewhere = None
    if model is not None:
        other = Classifier.load(model, weights, normalize, features=features, device=classifier.device)
        elsewhere = Elsewhere(model, other)
    with progress_bars() as on_progress:
        table = study.execute(opened, classifier, shown, elsewhere, batch_size=batch, on_progress=on_progress)
    cells = study.summarise(table)
    _print_matrix(cells)
    _print_differences(cells)
    say(f"\nTable:    {run / study.TABLE}\nHeat-map: {run / study.plot_name(elsewhere)}")


def _print_matrix(cells: list[TransferCell]) -> None:
    rows, columns = (dict.fromkeys(names) for names in ([c.made_for for c in cells], [c.interpreter for c in cells]))
    means = {(c.made_for, c.interpreter): f"{c.map_l1.value:.3f}{'*' if c.own else ' '}" for c in cells}
    table = table_of("", ("made for",), tuple(columns))
    for row in rows:
        table.add_row(row, *(means[row, column] for column in columns))
    say(f"Mean ΔL1 to the benign map over {cells[0].map_l1.n} images (* own interpreter); model: {cells[0].model}")
    console.print(table)


def _print_differences(cells: list[TransferCell]) -> None:
    table = table_of("", ("made for", "shown by"), ("ΔL1", "IoU", "says", "own − ΔL1"))
    for cell in cells:
        shown = (_bracketed(cell.map_l1), _short(cell.iou_mean.value, 2), _short(cell.predicted.value, 2))
        table.add_row(cell.made_for, cell.interpreter, *shown, _bracketed(cell.difference) if cell.difference else "")
    say("95 % intervals in brackets; says: how often the model reports the explained class")
    console.print(table)


def _bracketed(value: Estimate) -> str:
    interval = f" [{_short(value.low)}, {_short(value.high)}]" if value.has_interval else ""
    return f"{_short(value.value)}{interval}"


def _short(value: float, digits: int = 3) -> str:
    """Without the zero before the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"
