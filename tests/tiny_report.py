"""A run held in memory, and what a test asks of the page that shows it."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from underfire.attacks.names import SOLVERS, attacker
from underfire.core.io import write_json, write_table
from underfire.report import RunView, write_report
from underfire.runs.folder import SHARED, Rows, Run
from underfire.runs.outcomes import COLUMNS_SCHEMA, OUTCOMES
from underfire.runs.store import Store
from underfire.studies import detections
from underfire.studies.detections import DETECTORS

FLOWING = ("stadv", "adv2-stadv")
HOSTILE_CLASS = "<script>alert(1)</script>"
HOSTILE_ID = '"><img src=x onerror=alert(2)>.jpg'
INFO = {
    "underfire": "0.1.0",
    "command": "underfire attack photos --interpreter cam --eps 0.031 && echo '</pre><b>'",
    "created": "2026-05-04T10:11:12+00:00",
    "spec": {"craft": {"attack": "adv2", "steps": 300, "eps": 0.031}, "select": {"n": 12}},
    "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
    "seed": 0,
    "device": "cpu",
    "model": {"name": "tiny", "weights": "demo", "normalization": "none", "features": "layer3"},
    "classes": ["disc", "square", HOSTILE_CLASS],
    "wall_seconds": {"craft": 12.34},
    "skipped": [{"id": "broken.jpg", "reason": "not an <i>image</i>"}],
    "selection": {"examined": 15, "misclassified": 3, "requested": 12},
}


def these(
    ids: tuple[str, ...], rows: npt.NDArray[Any], only: Collection[str] | None
) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
    """The rows of those ids that are asked for."""
    places = [place for place, id in enumerate(ids) if only is None or id in only]
    return tuple(ids[place] for place in places), rows[places].astype(np.float32)


@dataclass(frozen=True)
class FakeRun:
    """A run held in memory: pictures of discs and squares, maps that are blobs."""

    ids: tuple[str, ...]
    side: int = 64
    interpreters: tuple[str, ...] = ("cam", "grad")
    attacks: tuple[str, ...] = ("pgd", "adv2")
    info: Mapping[str, Any] = field(default_factory=lambda: INFO)
    path: Path = Path("nowhere")

    def outcomes(self) -> pa.Table:
        rows = [
            outcome(id, attack, interpreter, success=index % 6 != 5, iou_mean=self._iou(attack, index))
            for attack in self.attacks
            for interpreter in self.interpreters
            for index, id in enumerate(self.ids)
        ]
        return table(rows)

    def images(
        self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        assert (interpreter is None) == (attack == "benign" or shared(attack))
        noise = np.random.default_rng(1).choice((-0.03, 0.03), (len(self.ids), 3, self.side, self.side))
        images = np.stack([picture(index, self.side) for index in range(len(self.ids))])
        images = images if attack == "benign" else (images + noise).clip(0, 1)
        return these(self.ids, images, only)

    def maps(
        self, attack: str, interpreter: str, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        cells = 7 if interpreter == "cam" else 56
        drift = 0.3 if attack in SOLVERS else 0.0
        blobs = [blob(0.3 + 0.03 * index + drift, 0.5, cells) for index in range(len(self.ids))]
        return these(self.ids, np.stack(blobs), only)

    def thetas(
        self, attack: str, interpreter: str | None = None, only: Collection[str] | None = None
    ) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        assert (interpreter is None) == shared(attack)
        assert "stadv" in attack
        swirl = np.stack([blob(0.3, 0.5, self.side), -2 * blob(0.7, 0.5, self.side)])
        return these(self.ids, np.stack([(1 + index) * swirl for index in range(len(self.ids))]), only)

    def _iou(self, attack: str, index: int) -> float:
        return 0.1 + 0.05 * index if attack in SOLVERS else 0.95 - 0.02 * index


@dataclass(frozen=True)
class HeldRun(Run):
    """A run folder of which outcomes and maps are held in memory."""

    held: FakeRun

    @property
    def info(self) -> dict[str, Any]:
        return dict(self.held.info)

    def outcomes(self) -> pa.Table:
        return self.held.outcomes()

    def maps(self, attack: str, interpreter: str, only: Collection[str] | None = None) -> Rows:
        return self.held.maps(attack, interpreter, only)


def keep_study(run: FakeRun, folder: Path, **info: Any) -> Path:
    """The run as a study's on the disk: images and maps in the folder around its own."""
    store, stages = Store(folder.parent), list[dict[str, Any]]()

    def stage(kind: str, attack: str, interpreter: str | None, rows: Any) -> None:
        name = "-".join(filter(None, (kind, attack, interpreter)))
        stages.append({"key": name, "kind": kind, "attack": attack, "interpreter": interpreter})
        if not store.done(name):
            store.append(name, run.ids, {kind: torch.from_numpy(rows[1])})

    for attack in ("benign", "target", *run.attacks):
        for made in () if attack == "target" else (None,) if attack == "benign" or shared(attack) else run.interpreters:
            stage("image", attack, made, run.images(attack, made))
        for interpreter in run.interpreters:
            stage("map", attack, interpreter, run.maps(attack, interpreter))
    write_table(folder / OUTCOMES, pa.Table.from_pylist(run.outcomes().to_pylist(), COLUMNS_SCHEMA))
    write_json(folder / "run.json", {**run.info, SHARED: True, "stages": stages, **info})
    return folder


def shared(attack: str) -> bool:
    """Whether an attack's images are the same for all interpreters, as all are that others made."""
    known = attacker(attack)
    return known is None or known.shared


def outcome(id: str, attack: str, interpreter: str, **changes: Any) -> dict[str, Any]:
    """One row of the outcome table."""
    row = {
        "id": id, "attack": attack, "interpreter": interpreter, "class_true": 0, "class_target": 2,
        "class_predicted": 2, "confidence": 0.97, "success": True, "map_l1": 0.05, "map_l2": 0.07,
        "iou_mean": 0.9, "iou_half": 0.8, "iou_top15": 0.7, "map_constant": False, "target_constant": False,
        "benign_l1": 0.05, "benign_iou": 0.9, "target_map_of": None,
        "repeat_l1": 0.01, "linf": 0.031, "success_png": True, "steps": 300, "reason": "budget",
        "flow_mean": 0.25 if "stadv" in attack else None, "flow_smoothness": 812.4 if "stadv" in attack else None,
    }  # fmt: skip
    known = attacker(attack)
    row |= {
        "solver": known and known.solver.name,
        "map_aware": known and known.map_aware,
        "evades": known and known.evades,
    }
    row |= changes
    overlap = row["iou_mean"]
    return {"judgement": "plausible" if overlap is not None and overlap > 0.5 else "changed"} | row


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table that keeps its schema when there are none."""
    return pa.Table.from_pylist([*rows, outcome("", "stadv", "")]).slice(0, len(rows))


def picture(index: int, side: int) -> npt.NDArray[np.float64]:
    """A colour gradient with a disc or a square (3, side, side)."""
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    hue = 2 * np.pi * (index / 12 + np.array([0, 1 / 3, 2 / 3]))[:, None, None]
    image = 0.5 + 0.3 * np.cos(hue + 2 * x + y)
    distance = np.hypot(x - 0.5, y - 0.5) if index % 2 else np.maximum(abs(x - 0.5), abs(y - 0.5))
    return np.where(distance < 0.25, 1 - image, image)


def blob(x: float, y: float, cells: int) -> npt.NDArray[np.float64]:
    """A Gaussian bump on a square grid."""
    grid = (np.arange(cells) + 0.5) / cells
    return np.exp(-20 * ((grid[None] - x) ** 2 + (grid[:, None] - y) ** 2))


class Tags(HTMLParser):
    """Collects the start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def drawn_from(page: str) -> dict[str, Any]:
    """The data that the page's scripts draw cards from."""
    found: dict[str, Any] = json.loads(
        page.partition('<script type="application/json" id="data">')[2].partition("<")[0]
    )
    return found


def render(run: RunView, folder: Path) -> str:
    return write_report(run, folder / "report.html").read_text(encoding="utf-8")


def detection_rows(
    detector: str, attack: str = "benign", interpreter: str | None = None, part: str = "run", **scores: Any
) -> list[dict[str, Any]]:
    """Rows of detections.parquet with a threshold of 1: one per score, of images on which the attack, or where there is
    none the classifier, succeeded, or `failed`."""
    outcomes = [(score, True) for score in scores.get("scores", ())] + [(s, False) for s in scores.get("failed", ())]
    return [
        {
            "id": f"{part}-{number}", "part": part, "attack": attack, "interpreter": interpreter,
            "detector": detector, "family": detector.partition(":")[0], "score": score, "threshold": 1.0,
            "flagged": score > 1, "success": None if attack == "benign" else success,
            "correct": success if attack == "benign" else None,
        }
        for number, (score, success) in enumerate(outcomes)
    ]  # fmt: skip


def benign_rows(detector: str) -> list[dict[str, Any]]:
    """Ten scores that set the threshold, and as many held-out ones, of which one exceeds it."""
    fit = detection_rows(detector, part="fit", scores=[0.1 * number for number in range(10)])
    return fit + detection_rows(detector, part="check", scores=[0.1 * number for number in range(1, 10)] + [2.0])


def write_detections(folder: Path, rows: list[dict[str, Any]], target: Any = 0.05) -> pa.Table:
    """detections.parquet and detectors.json."""
    write_json(folder / DETECTORS, {"spec": {"fpr": target}})
    return write_rows(folder / detections.TABLE, rows, detections.COLUMNS)


def transfer_row(
    source: str | None, interpreter: str, distance: float, own: float | None = 0.05, **changes: Any
) -> Any:
    """A row of transfer.parquet."""
    row = {
        "id": "a.jpg", "attack": "pgd" if source is None else "adv2", "source": source, "interpreter": interpreter,
        "model": "tiny", "model_fingerprint": "f0", "class_true": 0, "class_explained": 1, "class_predicted": 1,
        "map_l1": distance, "map_l2": 0.1, "iou_mean": 0.5, "iou_half": 0.5, "iou_top15": 0.5,
        "own": source == interpreter, "own_l1": None if source is None else own,
        "map_constant": False, "benign_constant": False,
    }  # fmt: skip
    return row | changes


def gap_row(attack: str, interpreter: str | None, prediction: float, interpretation: float) -> dict[str, Any]:
    """A row of gap.parquet."""
    return {
        "id": "a.jpg", "attack": attack, "interpreter": interpreter, "class_target": 1, "prediction_loss": prediction,
        "interpretation_loss": interpretation, "gap": interpretation - prediction, "completeness_error": 0.001,
        "ig_l1": 0.125, "ig_iou": 0.625,
    }  # fmt: skip


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """A study's table as a file."""
    table = pa.Table.from_pylist(rows, schema)
    write_table(path, table)
    return table
