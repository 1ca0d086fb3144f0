"""`underfire detect`: would a detector have noticed the attacks of a run?"""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from underfire.cli.terminal import (
    Batch,
    Column,
    Device,
    Seed,
    checked,
    chosen_device,
    command_line,
    names_in,
    print_columns,
    progress_bars,
    say,
)
from underfire.detection.names import DETECTORS
from underfire.metrics.intervals import Estimate
from underfire.runs.execute import reopen
from underfire.runs.folder import Run, open_run
from underfire.studies import detect as study
from underfire.studies.detections import MATRIX, Calibration, DetectionRate, detections, matrix


def detect(
    run: Annotated[Path, typer.Argument(help="A run folder that underfire attack has left.")],
    detector: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(DETECTORS)}.")] = "fs",
    attack: Annotated[
        str | None, typer.Option(help="Comma-separated names of the run's attacks; default: all of them.")
    ] = None,
    benign: Annotated[int, typer.Option(help="Benign images to calibrate on, half of them to check.")] = 200,
    fpr: Annotated[float, typer.Option(help="False-positive rate to calibrate for.")] = 0.05,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
) -> None:
    """Score a run's images by calibrated detectors; adds a table, a matrix and the detectors' thresholds to it."""
    attacks = () if attack is None else names_in(attack)
    settings = checked(study.DetectSettings, detector=detector, attacks=attacks, benign=benign, fpr=fpr, seed=seed)
    opened = open_run(run)
    study.attacked(opened, settings.attacks)
    study.judgements(settings, opened)
    classifier, image_set = reopen(opened, chosen_device(device))
    with progress_bars() as on_progress:
        study.execute(
            settings, opened, classifier, image_set, command=command_line(), batch_size=batch, on_progress=on_progress
        )
    _print(opened, settings)
    say(f"\nMatrix:     {run / MATRIX}\nRun folder: {run}")


def _print(run: Run, settings: study.DetectSettings) -> None:
    cells = matrix(detections(run))
    fitted, held_out = cells[0].calibration.fitted, cells[0].calibration.false_positives.n
    rate = f"{100 * settings.fpr:g} % false positives"
    say(f"\nThresholds from {fitted} benign images, for {rate}; checked on {held_out} others.")
    for family, group in groupby(cells, lambda cell: cell.calibration.family):
        by_detector = [list(same) for _, same in groupby(group, lambda cell: cell.calibration.detector)]
        attackers = [" ".join(filter(None, (cell.attack, cell.interpreter))) for cell in by_detector[0]]
        say(f"\n{family}: % flagged of the n successful images, with 95 % intervals")
        numbers = Column("n", [str(cell.successes.n) for cell in by_detector[0]] + [str(held_out)])
        print_columns("", [*attackers, "benign, held out"], [numbers, *map(_rates, by_detector)])
        say(f"{family}: AUC of the successful images against benign ones held out")
        print_columns("", attackers, [*map(_areas, by_detector)])
    if fitted + held_out < settings.benign:
        say(f"No more than {fitted + held_out} benign images were found that the run did not attack.")


def _rates(cells: list[DetectionRate]) -> Column:
    """One detector's rates, and its false-positive rate."""
    rates = [*(cell.successes for cell in cells), cells[0].calibration.false_positives]
    return Column(_heading(cells[0].calibration), [_percent(each) for each in rates])


def _areas(cells: list[DetectionRate]) -> Column:
    areas = ["" if cell.auc is None else f"{cell.auc:.2f}" for cell in cells]
    return Column(_heading(cells[0].calibration), areas)


def _heading(calibration: Calibration) -> str:
    """The detector's name within its family."""
    return calibration.detector.removeprefix(f"{calibration.family}:")


def _percent(value: Estimate) -> str:
    """A share and its interval in whole percent; nothing where it is a share of none."""
    return f"{100 * value.value:.0f} [{100 * value.low:.0f}, {100 * value.high:.0f}]" if value.n else ""
