"""What `underfire detect` leaves in a run folder: every score, how detectors were calibrated, and their matrix.

cells = matrix(detections(open_run("runs/x")))
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from underfire.core.errors import UnderfireError
from underfire.core.io import groups, read_table, rows_where, write_csv
from underfire.detection.calibration import roc
from underfire.metrics.intervals import Estimate, share
from underfire.runs.folder import Run

TABLE = "detections.parquet"
MATRIX = "detection-matrix.csv"
DETECTORS = "detectors.json"  # how each was calibrated
FIT, CHECK, RUN = "fit", "check", "run"  # what an image is there for: threshold, false-positive rate, or itself
FEW = 20  # images; the interval of a share of fewer can be wider than 40 points
COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "part": pa.string(),
        "attack": pa.string(),
        "interpreter": pa.string(),  # whose map the attack was after; null where it was after none
        "detector": pa.string(),
        "family": pa.string(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "flagged": pa.bool_(),
        "success": pa.bool_(),  # of the attack; null for benign images
        "correct": pa.bool_(),  # whether a benign image is classified so; null for attacked ones
    }
)
MATRIX_COLUMNS = pa.schema(
    {
        "detector": pa.string(),
        "family": pa.string(),
        "attack": pa.string(),
        "interpreter": pa.string(),
        "n": pa.int64(),  # images on which the attack succeeded, and the share of them that is flagged
        "detected": pa.float64(),
        "low": pa.float64(),
        "high": pa.float64(),
        "auc": pa.float64(),  # of these against the held-out benign images that are classified correctly
        "failures": pa.int64(),  # the same of the images on which it failed
        "failures_detected": pa.float64(),
        "failures_low": pa.float64(),
        "failures_high": pa.float64(),
        "held_out": pa.int64(),  # the same of the held-out benign images as they come: the false-positive rate
        "fpr": pa.float64(),
        "fpr_low": pa.float64(),
        "fpr_high": pa.float64(),
        "correct": pa.int64(),  # the same of those that are classified correctly, like the ones that set the threshold
        "fpr_correct": pa.float64(),
        "fpr_correct_low": pa.float64(),
        "fpr_correct_high": pa.float64(),
        "misclassified": pa.int64(),  # the same of those that are not
        "fpr_misclassified": pa.float64(),
        "fpr_misclassified_low": pa.float64(),
        "fpr_misclassified_high": pa.float64(),
        "threshold": pa.float64(),
    }
)


def detections(run: Run) -> pa.Table:
    """One row per image x attack x interpreter x detector; UnderfireError if there are none of this version."""
    path = run.path / TABLE
    if not path.is_file():
        raise UnderfireError(f"{run.path} contains no detections; make them with: underfire detect {run.path}")
    return read_table(path, COLUMNS)


@dataclass(frozen=True)
class FalsePositives:
    """Which share of the held-out benign images is flagged: of them as they come, of those that are classified
    correctly, and of those that are not."""

    overall: Estimate
    correct: Estimate
    misclassified: Estimate

    @property
    def caution(self) -> str:
        """What to say where misclassified images are few or none; empty elsewhere."""
        n = self.misclassified.n
        if not n:
            return "None of the held-out images is misclassified, so nothing is known of such."
        return f"Misclassified images held out are few, {n}: their rate is rough." if n < FEW else ""

    def row(self) -> dict[str, Any]:
        """As MATRIX_COLUMNS name them."""
        return {
            **_columns(self.overall, "held_out", "fpr", "fpr_low", "fpr_high"),
            **_columns(self.correct, "correct", "fpr_correct", "fpr_correct_low", "fpr_correct_high"),
            **_columns(
                self.misclassified,
                "misclassified",
                "fpr_misclassified",
                "fpr_misclassified_low",
                "fpr_misclassified_high",
            ),
        }


@dataclass(frozen=True)
class Calibration:
    """A detector's threshold, from `fitted` benign images that are classified correctly, and how many of the held-out
    ones exceed it."""

    detector: str
    family: str
    threshold: float
    fitted: int
    false_positives: FalsePositives


@dataclass(frozen=True)
class DetectionRate:
    """What one detector makes of one attacker: which share of the successful and of the failed images it flags.

    auc ranks the successful images against the held-out benign ones that are classified correctly; None where none
    succeeded.
    """

    calibration: Calibration
    attack: str
    interpreter: str | None
    successes: Estimate
    failures: Estimate
    auc: float | None

    def row(self) -> dict[str, Any]:
        """As MATRIX_COLUMNS name it; shares of no image are null."""
        fitted = self.calibration
        return {
            "detector": fitted.detector,
            "family": fitted.family,
            "attack": self.attack,
            "interpreter": self.interpreter,
            **_columns(self.successes, "n", "detected", "low", "high"),
            "auc": self.auc,
            **_columns(self.failures, "failures", "failures_detected", "failures_low", "failures_high"),
            **fitted.false_positives.row(),
            "threshold": fitted.threshold,
        }


def calibrations(table: pa.Table) -> list[Calibration]:
    """One Calibration per detector, in the order of the table."""
    return [_calibration(rows) for _, rows in groups(table, "detector")]


def matrix(table: pa.Table) -> list[DetectionRate]:
    """Detectors x attackers: one DetectionRate per (detector, attack, interpreter), in the order of the table."""
    cells = []
    for _, rows in groups(table, "detector"):
        calibration, held_out = _calibration(rows), rows_where(rows, part=CHECK, correct=True)
        attacked = rows.filter(pc.not_equal(rows["attack"], "benign"))
        cells += [_cell(calibration, held_out, its) for _, its in groups(attacked, "attack", "interpreter")]
    return cells


def write_matrix(path: Path, cells: list[DetectionRate]) -> None:
    """The matrix as a CSV file, in one move."""
    write_csv(path, pa.Table.from_pylist([each.row() for each in cells], MATRIX_COLUMNS))


def _calibration(rows: pa.Table) -> Calibration:
    held_out, fitted = rows_where(rows, part=CHECK), rows_where(rows, part=FIT).num_rows
    detector, family, threshold = (held_out[name][0].as_py() for name in ("detector", "family", "threshold"))
    flagged, correct = (held_out[name].to_numpy().astype(bool) for name in ("flagged", "correct"))
    false_positives = FalsePositives(share(flagged), share(flagged[correct]), share(flagged[~correct]))
    return Calibration(detector, family, threshold, fitted, false_positives)


def _cell(calibration: Calibration, held_out: pa.Table, rows: pa.Table) -> DetectionRate:
    attack, interpreter = (rows[name][0].as_py() for name in ("attack", "interpreter"))
    success, flagged = (rows[name].to_numpy().astype(bool) for name in ("success", "flagged"))
    auc = None
    if success.any():
        benign, scores = (torch.tensor(each["score"].to_numpy()) for each in (held_out, rows))
        auc = roc(benign, scores[torch.from_numpy(success)]).auc
    return DetectionRate(calibration, attack, interpreter, share(flagged[success]), share(flagged[~success]), auc)


def _columns(value: Estimate, *names: str) -> dict[str, Any]:
    return dict(zip(names, (value.n, value.value, value.low, value.high) if value.n else (0, *[None] * 3), strict=True))
