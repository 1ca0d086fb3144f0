"""`underfire detect`: would a detector have noticed the attacks of a run?"""

from pathlib import Path
from typing import Annotated

import typer

from underfire.detectors import SQUEEZED
from underfire.store import Run, open_run
from underfire.studies import detection
from underfire.studies.runs import reopen
from underfire.terminal import (
    Batch,
    Device,
    Seed,
    checked,
    chosen_device,
    command_line,
    console,
    percentage,
    progress_bars,
    say,
    table_of,
)


def detect(
    run: Annotated[Path, typer.Argument(help="A run folder that underfire attack has left.")],
    detector: Annotated[
        str, typer.Option(help=f"fs (feature squeezing), or fs: with its squeezers: fs:{'+'.join(SQUEEZED)}.")
    ] = "fs",
    benign: Annotated[int, typer.Option(help="Benign images to calibrate on, half of them to check.")] = 200,
    fpr: Annotated[float, typer.Option(help="False-positive rate to calibrate for.")] = 0.05,
    seed: Seed = 0,
    device: Device = "auto",
    batch: Batch = 16,
) -> None:
    """Score every image of a run by calibrated detectors; adds detections.parquet and detectors.json to it."""
    settings = checked(detection.Settings, detector=detector, benign=benign, fpr=fpr, seed=seed)
    opened = open_run(run)
    detection.attacked(opened)
    classifier, image_set = reopen(opened, chosen_device(device))
    with progress_bars() as on_progress:
        detection.execute(
            settings, opened, classifier, image_set, command=command_line(), width=batch, on_progress=on_progress
        )
    _print(opened, settings)
    say(f"\nRun folder: {run}")


def _print(run: Run, settings: detection.Settings) -> None:
    table = detection.detections(run)
    calibrations = detection.calibrations(table)
    fitted, held_out = calibrations[0].fitted, calibrations[0].false_positives.n
    rate = f"{100 * settings.fpr:g} % false positives"
    say(f"\nThresholds from {fitted} benign images, for {rate}; checked on {held_out} others.")
    thresholds = table_of(
        "",
        ("detector",),
        ("threshold", "false positives, %"),
    )
    for each in calibrations:
        thresholds.add_row(each.detector, f"{each.threshold:.4f}", percentage(each.false_positives))
    console.print(thresholds)
    say("Flagged, % of the images on which the attack succeeded and on which it failed:")
    rates = table_of(
        "",
        ("detector", "attack", "map"),
        ("succeeded", "n", "failed", "n", "AUC"),
    )
    for row in detection.summarise(table):
        rates.add_row(
            row.detector,
            row.attack,
            row.interpreter or "",
            percentage(row.successes),
            str(row.successes.n),
            percentage(row.failures),
            str(row.failures.n),
            "" if row.auc is None else f"{row.auc:.3f}",
        )
    console.print(rates)
    if fitted + held_out < settings.benign:
        say(f"No more than {fitted + held_out} benign images were found that the run did not attack.")
