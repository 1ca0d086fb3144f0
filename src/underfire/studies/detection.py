"""Would a detector have noticed? Every image of a run scored by detectors that are calibrated on other, benign images.

    run = execute(settings, open_run("runs/x"), classifier, image_set, command="…")
    rows = summarise(detections(run))

The benign images are correctly classified ones that the run did not attack. One half of them sets each threshold; on
the other half the false-positive rate is measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator

from underfire.classifiers import Classifier
from underfire.data import ImageSet
from underfire.detectors import JOINT, Detector, check_enough, joint, roc, squeezing_named
from underfire.metrics import Estimate, share
from underfire.rng import halves
from underfire.stages import Context, Detect, Select, choose, keep, key
from underfire.store import Run, Store, write_json, write_table
from underfire.studies.runs import Planned, Report, even_width, perform
from underfire.types import Row, UnderfireError

TABLE = "detections.parquet"
DETECTORS = "detectors.json"
FIT, CHECK, RUN = "fit", "check", "run"  # what an image is there for: threshold, false-positive rate, or itself
COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "part": pa.string(),
        "attack": pa.string(),
        "interpreter": pa.string(),  # whose map the attack was after; null where it was after none
        "detector": pa.string(),
        "score": pa.float64(),
        "threshold": pa.float64(),
        "flagged": pa.bool_(),
        "success": pa.bool_(),  # of the attack; null for benign images
    }
)


class Settings(BaseModel):
    """Which detectors, and on how many benign images they are calibrated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: str = "fs"
    benign: int = Field(default=200, ge=2)
    fpr: float = Field(default=0.05, gt=0, lt=1)
    seed: int = 0

    @field_validator("detector")
    @classmethod
    def _known(cls, text: str) -> str:
        squeezing_named(text)
        return text


@dataclass(frozen=True)
class Pictured:
    """Images that a stage holds, and the attack that made them."""

    key: str
    attack: str
    interpreter: str | None
    ids: tuple[str, ...]


def execute(
    settings: Settings,
    run: Run,
    classifier: Classifier,
    image_set: ImageSet,
    *,
    command: str,
    width: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Add what the run folder lacks; detections of earlier settings make room for these, scores are kept.

    classifier and image_set are those of the run (see `reopen`).
    """
    check_enough(settings.benign // 2, settings.fpr)
    pictured, store = attacked(run), Store(run.path)
    unseen = _unseen(run, pictured[0], image_set)
    select = Select(classifier.fingerprint(), unseen.digest, settings.benign, settings.seed)
    if not store.done(key(select)):
        selection = choose(select, unseen, classifier)
        check_enough(len(selection.samples.ids) // 2, settings.fpr)
        keep(select, selection.samples, store)
    others = Pictured(key(select), "benign", None, store.done(key(select)))
    everything = [others, *pictured]
    context = Context(classifier, store, even_width(max(len(each.ids) for each in everything), width))
    for each in everything:
        for planned in plan(settings, each):
            perform(planned, each.ids, context, on_progress)
    table = _table(settings, others, pictured, store)
    write_json(run.path / DETECTORS, _describe(settings, command, others, calibrations(table)))
    write_table(run.path / TABLE, table)
    return run


def attacked(run: Run) -> list[Pictured]:
    """The images of a run that stages hold so far, the benign ones first; UnderfireError if none is attacked."""
    store = Store(run.path)
    try:
        stages = [
            Pictured(str(each["key"]), each["attack"], each["interpreter"], store.done(str(each["key"])))
            for each in run.info.get("stages", ())
            if each["kind"] == "image"
        ]
    except (KeyError, TypeError):
        raise UnderfireError(f"run.json in {run.path} does not list its stages; run the attack again.") from None
    held = sorted((each for each in stages if each.ids), key=lambda each: each.attack != "benign")
    if len(held) < 2 or held[0].attack != "benign":
        raise UnderfireError(
            f"{run.path} holds no attacked images, so there is nothing to detect; make some with: underfire attack"
        )
    return held


def plan(settings: Settings, pictured: Pictured) -> Iterator[Planned]:
    """The scores of these images by each squeezer."""
    for scorer in squeezing_named(settings.detector):
        spec = Detect(pictured.key, scorer)
        yield Planned(f"detect, {scorer.name}", spec, "score", pictured.attack, pictured.interpreter)


def detections(run: Run) -> pa.Table:
    """One row per image x attack x interpreter x detector; UnderfireError if there are none yet."""
    path = run.path / TABLE
    if not path.is_file():
        raise UnderfireError(f"{run.path} holds no detections; make them with: underfire detect {run.path}")
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as problem:
        raise UnderfireError(f"{path} is damaged; run underfire detect again.") from problem


@dataclass(frozen=True)
class Calibration:
    """A detector's threshold, from `fitted` benign images, and how many of the held-out ones exceed it."""

    detector: str
    threshold: float
    fitted: int
    false_positives: Estimate


@dataclass(frozen=True)
class Summary:
    """What one detector makes of one attack: which share of successful and of failed images it flags.

    auc ranks the successful images against the held-out benign ones; None where none succeeded.
    """

    detector: str
    attack: str
    interpreter: str | None
    successes: Estimate
    failures: Estimate
    auc: float | None


def calibrations(table: pa.Table) -> list[Calibration]:
    """One Calibration per detector, in the order of the table."""
    return [_calibration(name, _where(table, "detector", name)) for name in _distinct(table["detector"])]


def summarise(table: pa.Table) -> list[Summary]:
    """One Summary per (detector, attack, interpreter), in the order of the table."""
    summaries = []
    for name in _distinct(table["detector"]):
        rows = _where(table, "detector", name)
        held_out = _where(rows, "part", CHECK)
        attacks = rows.filter(pc.not_equal(rows["attack"], "benign"))
        for attack in _distinct(attacks["attack"]):
            against = _where(attacks, "attack", attack)
            for interpreter in _distinct(against["interpreter"]):
                summaries.append(_summary(held_out, _where(against, "interpreter", interpreter)))
    return summaries


def _calibration(detector: str, rows: pa.Table) -> Calibration:
    held_out, fitted = _where(rows, "part", CHECK), _where(rows, "part", FIT).num_rows
    return Calibration(detector, held_out["threshold"][0].as_py(), fitted, share(held_out["flagged"].to_numpy()))


def _summary(held_out: pa.Table, rows: pa.Table) -> Summary:
    first, success = rows.slice(0, 1).to_pylist()[0], rows["success"].to_numpy().astype(bool)
    flagged, scores = rows["flagged"].to_numpy().astype(bool), rows["score"].to_numpy()
    auc = None
    if success.any():
        auc = roc(torch.tensor(held_out["score"].to_numpy()), torch.tensor(scores[success])).auc
    names = (first["detector"], first["attack"], first["interpreter"])
    return Summary(*names, share(flagged[success]), share(flagged[~success]), auc)


def _distinct(column: pa.ChunkedArray) -> list[Any]:
    return list(dict.fromkeys(column.to_pylist()))


def _where(table: pa.Table, column: str, value: str | None) -> pa.Table:
    chosen = pc.is_null(table[column]) if value is None else pc.equal(table[column], value)
    return table.filter(chosen)


def _unseen(run: Run, benign: Pictured, image_set: ImageSet) -> ImageSet:
    """The images that the run did not attack."""
    seen = set(benign.ids)
    others = [i for i, name in enumerate(image_set.ids) if name not in seen]
    if not others:
        raise UnderfireError(f"{run.path} attacked all of its {len(seen)} images and leaves none to calibrate on.")
    return image_set.take(others)


def _scores(settings: Settings, pictured: Pictured, store: Store) -> dict[str, Row]:
    """By detector: each squeezer, and their joint score where there are several."""
    scorers = squeezing_named(settings.detector)
    single = {each.name: store.read(key(Detect(pictured.key, each)), "score", pictured.ids) for each in scorers}
    return {**single, JOINT: joint(list(single.values()))} if len(single) > 1 else single


def _table(settings: Settings, others: Pictured, pictured: list[Pictured], store: Store) -> pa.Table:
    """The table of detections, the images of the calibration among them."""
    fitting, _ = halves(others.ids, settings.seed)
    part = np.full(len(others.ids), CHECK, dtype=object)
    part[fitting.numpy()] = FIT
    tables = []
    scores = {each: _scores(settings, each, store) for each in (others, *pictured)}
    for name, benign in scores[others].items():
        detector = _fitted(name, benign[fitting], settings.fpr)
        for each, held in scores.items():
            n = len(each.ids)
            columns: dict[str, Any] = {
                "id": each.ids,
                "part": part.tolist() if each is others else [RUN] * n,
                "attack": [each.attack] * n,
                "interpreter": [each.interpreter] * n,
                "detector": [name] * n,
                "score": held[name].tolist(),
                "threshold": [detector.threshold] * n,
                "flagged": detector.flag(held[name]).tolist(),
                "success": [None] * n
                if each.attack == "benign"
                else store.read(each.key, "success", each.ids).tolist(),
            }
            tables.append(pa.table(columns, COLUMNS))
    return pa.concat_tables(tables)


def _fitted(name: str, scores: Row, fpr: float) -> Detector:
    try:
        return Detector.fit(scores, fpr)
    except UnderfireError as problem:
        raise UnderfireError(f"The detector {name} cannot be calibrated. {problem}") from problem


def _describe(settings: Settings, command: str, others: Pictured, found: list[Calibration]) -> dict[str, Any]:
    """detectors.json."""
    return {
        "command": command,
        "underfire": version("underfire"),
        "spec": settings.model_dump(mode="json"),
        "benign": {"stage": others.key, "requested": settings.benign, "found": len(others.ids)},
        "detectors": [
            {
                "name": each.detector,
                "threshold": each.threshold,
                "fitted": each.fitted,
                "checked": each.false_positives.n,
                "fpr_target": settings.fpr,
                "fpr": each.false_positives.value,
                "fpr_low": each.false_positives.low,
                "fpr_high": each.false_positives.high,
            }
            for each in found
        ],
    }
