"""`underfire transfer`: the images of a run as other interpreters, or another classifier, see them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.cli.terminal import (
    chosen_device,
    command_line,
    console,
    crews,
    images_at_once,
    say,
    say_written,
    stage_bars,
    table_of,
)
from underfire.core.errors import UnderfireError
from underfire.core.text import counted
from underfire.interpreters.registry import interpreter_named
from underfire.runs.settings import Distributed
from underfire.runs.study_settings import TransferSettings

if TYPE_CHECKING:
    from underfire.metrics.intervals import Estimate
    from underfire.studies.transfers import TransferCell


def transfer(
    run: Annotated[Path, typer.Argument(help="The run folder of an attack.")],
    settings: TransferSettings,
    machine: Distributed,
) -> None:
    """Explain a run's images by other interpreters or another classifier: are these deceived too (Table 9)?"""
    from underfire.runs.config import write_config
    from underfire.runs.execute import Manner, reopen, source_of
    from underfire.runs.folder import open_run
    from underfire.studies import transfer as study
    from underfire.studies.transfers import AVERAGES, TABLE, summarise

    opened, names = open_run(run), settings.interpreters
    if names is not None and len({name.partition(":")[0] for name in names}) < len(names):
        raise UnderfireError(f"--interpreter {','.join(names)} names an interpreter twice; name it once.")
    shown = None if names is None else [interpreter_named(name) for name in names]
    classifier, image_set = reopen(opened, chosen_device(machine.device))
    elsewhere = None
    if settings.model is not None:
        elsewhere = study.Elsewhere(settings.model, settings.load(settings.model, classifier.device))
    batch = images_at_once(machine, classifier, image_set)
    with crews(machine) as crew_of, stage_bars() as on_progress:
        if elsewhere is not None:
            elsewhere = replace(elsewhere, crew=crew_of(settings.model_dump(), elsewhere.classifier))
        manner = Manner(command_line(), batch, say, on_progress, crew_of(source_of(opened), classifier))
        table = study.execute(opened, classifier, manner, shown, elsewhere)
    write_config(run / "config-transfer.toml", settings, batch=batch)
    cells = summarise(table)
    _print_matrix(cells)
    _print_differences(cells)
    say("")
    say_written({"Table": run / TABLE, "Averages": run / AVERAGES, "Heat-map": run / study.plot_name(elsewhere)})


def _print_matrix(cells: "list[TransferCell]") -> None:
    rows, columns = (dict.fromkeys(names) for names in ([c.made_for for c in cells], [c.interpreter for c in cells]))
    means = {(c.made_for, c.interpreter): f"{c.map_l1.value:.3f}{'*' if c.own else ' '}" for c in cells}
    table = table_of("", ("made for",), tuple(columns))
    for row in rows:
        table.add_row(row, *(means[row, column] for column in columns))
    say(
        f"Mean ΔL1 to the benign map over {counted(cells[0].map_l1.n, 'image')} (* own interpreter); "
        f"model: {cells[0].model}"
    )
    console.print(table)


def _print_differences(cells: "list[TransferCell]") -> None:
    table = table_of("", ("made for", "shown by"), ("ΔL1", "IoU", "says", "own − ΔL1"))
    for cell in cells:
        shown = (_bracketed(cell.map_l1), _short(cell.iou_mean.value, 2), _short(cell.predicted.value, 2))
        table.add_row(cell.made_for, cell.interpreter, *shown, _bracketed(cell.difference) if cell.difference else "")
    say("95 % intervals in brackets; says: how often the model reports the explained class")
    console.print(table)


def _bracketed(value: "Estimate") -> str:
    interval = f" [{_short(value.low)}, {_short(value.high)}]" if value.has_interval else ""
    return f"{_short(value.value)}{interval}"


def _short(value: float, digits: int = 3) -> str:
    """Without the zero before the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"
