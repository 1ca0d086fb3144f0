"""`underfire detect`: would a detector have noticed the attacks of a run?"""

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.cli.terminal import (
    Column,
    chosen_device,
    command_line,
    crews,
    images_at_once,
    print_columns,
    say,
    say_written,
    stage_bars,
)
from underfire.core.text import counted
from underfire.runs.settings import Distributed
from underfire.runs.study_settings import DetectSettings

if TYPE_CHECKING:
    from underfire.metrics.intervals import Estimate
    from underfire.runs.folder import Run
    from underfire.studies.detections import Calibration, DetectionRate


def detect(
    run: Annotated[Path, typer.Argument(help="A run folder that underfire attack has left.")],
    settings: DetectSettings,
    machine: Distributed,
) -> None:
    """Score a run's images by calibrated detectors; adds a table, a matrix and the detectors' thresholds to it."""
    from underfire.runs.config import write_config
    from underfire.runs.execute import Manner, reopen, source_of
    from underfire.runs.folder import open_run
    from underfire.studies import detect as study
    from underfire.studies.base import Subject
    from underfire.studies.detections import MATRIX

    opened = open_run(run)
    study.attacked(opened, settings.attacks)
    study.judgements(settings, opened)
    classifier, image_set = reopen(opened, chosen_device(machine.device))
    batch = images_at_once(machine, classifier, image_set)
    with crews(machine) as crew_of, stage_bars() as on_progress:
        manner = Manner(command_line(), batch, say, on_progress, crew_of(source_of(opened), classifier))
        study.execute(settings, opened, Subject(classifier, image_set), manner)
    write_config(run / "config-detect.toml", settings, batch=batch)
    _print(opened, settings)
    say("")
    say_written({"Matrix": run / MATRIX, "Run folder": run})


def _print(run: "Run", settings: DetectSettings) -> None:
    from underfire.studies.detections import detections, matrix

    cells = matrix(detections(run))
    fitted, held_out = cells[0].calibration.fitted, cells[0].calibration.false_positives
    benign = {"benign, as they come": held_out.overall, "of them right": held_out.correct}
    if held_out.misclassified.n:
        benign["of them wrong"] = held_out.misclassified
    images = counted(fitted, "benign image")
    say(f"\nThresholds from {images} classified right, for {100 * settings.fpr:g} % false positives;")
    say(f"checked on {held_out.overall.n} others, {held_out.misclassified.n} of them wrong.")
    for family, group in groupby(cells, lambda cell: cell.calibration.family):
        by_detector = [list(same) for _, same in groupby(group, lambda cell: cell.calibration.detector)]
        attackers = [" ".join(filter(None, (cell.attack, cell.interpreter))) for cell in by_detector[0]]
        say(f"\n{family}: % flagged of the n successful images, with 95 % intervals")
        counts = [str(cell.successes.n) for cell in by_detector[0]] + [str(each.n) for each in benign.values()]
        print_columns("", [*attackers, *benign], [Column("n", counts), *map(_rates, by_detector)])
        say(f"{family}: AUC of the successful images against right benign ones held out")
        print_columns("", attackers, [*map(_areas, by_detector)])
    if held_out.caution:
        say(held_out.caution)
    if fitted + held_out.correct.n < settings.benign:
        say(f"No more than {fitted + held_out.correct.n} benign images were found that the run did not attack.")


def _rates(cells: "list[DetectionRate]") -> Column:
    """One detector's rates, and its false-positive rates as far as there are images."""
    benign = cells[0].calibration.false_positives
    kinds = [each for each in (benign.overall, benign.correct, benign.misclassified) if each.n]
    return Column(_heading(cells[0].calibration), [_percent(each) for each in (*(c.successes for c in cells), *kinds)])


def _areas(cells: "list[DetectionRate]") -> Column:
    areas = ["" if cell.auc is None else f"{cell.auc:.2f}" for cell in cells]
    return Column(_heading(cells[0].calibration), areas)


def _heading(calibration: "Calibration") -> str:
    """The detector's name within its family."""
    return calibration.detector.removeprefix(f"{calibration.family}:")


def _percent(value: "Estimate") -> str:
    """A share and its interval in whole percent; nothing where it is a share of none."""
    return f"{100 * value.value:.0f} [{100 * value.low:.0f}, {100 * value.high:.0f}]" if value.n else ""
