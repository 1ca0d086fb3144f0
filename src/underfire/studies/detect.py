"""Would a detector have noticed? Every image of a run scored by detectors that are calibrated on other, benign images.

    run = execute(settings, open_run("runs/x"), classifier, image_set, command="…")
    cells = matrix(detections(run))

The benign images are correctly classified ones that the run did not attack. One half of them sets each threshold; on
the other half the false-positive rate is measured.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from underfire.core.errors import UnderfireError
from underfire.core.io import write_json, write_table
from underfire.core.rng import halves
from underfire.core.types import Row, Samples
from underfire.data.image_set import ImageSet
from underfire.detection.calibration import Detector, Standardisation, check_enough, joint
from underfire.detection.registry import Judgement, judgements_named
from underfire.detection.scores import Scorer
from underfire.models.classifier import Classifier
from underfire.runs.compute import Context, choose, keep
from underfire.runs.execute import Report, adding_to, even_batch_size, perform, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import Planned
from underfire.runs.settings import DetectSettings
from underfire.runs.specs import Detect, Reported, Select, key
from underfire.runs.store import Store
from underfire.studies.base import per_image
from underfire.studies.detections import (
    CHECK,
    COLUMNS,
    DETECTORS,
    FIT,
    MATRIX,
    RUN,
    TABLE,
    Calibration,
    calibrations,
    matrix,
    write_matrix,
)


@dataclass(frozen=True)
class Pictured:
    """Images that a stage holds, and the attack that made them."""

    key: str
    attack: str
    interpreter: str | None
    ids: tuple[str, ...]


def execute(
    settings: DetectSettings,
    run: Run,
    classifier: Classifier,
    image_set: ImageSet,
    *,
    command: str,
    batch_size: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Add what the run folder lacks; detections of earlier settings make room for these, maps and scores are kept.

    classifier and image_set are those of the run (see `reopen`). What cannot be scored is found out before anything
    is written.
    """
    check_enough(settings.benign // 2, settings.fpr)
    asked, pictured, store = judgements(settings, run), attacked(run, settings.attacks), run.store
    unseen = _unseen(run, pictured[0].ids, image_set)
    scorers = _scorers(asked)
    _preflight(scorers, pictured[0], classifier, store)
    select = Select(classifier.fingerprint(), unseen.digest, settings.benign, settings.seed)
    with adding_to(run):
        if len(store.done(key(select))) < settings.benign:
            selection = choose(select, unseen, classifier)
            check_enough(len(selection.samples.ids) // 2, settings.fpr)
            keep(select, selection.samples, store)
        others = Pictured(key(select), "benign", None, store.done(key(select))[: settings.benign])
        everything = [others, *pictured]
        context = Context(classifier, store, even_batch_size(max(len(each.ids) for each in everything), batch_size))
        for each in everything:
            perform(plan(scorers, each), each.ids, context, run, on_progress)
        table = _table(settings, asked, others, pictured, store)
        write_json(run.path / DETECTORS, _describe(settings, command, others, calibrations(table)))
        write_table(run.path / TABLE, table)
        write_matrix(run.path / MATRIX, matrix(table))
    return run


def judgements(settings: DetectSettings, run: Run) -> tuple[Judgement, ...]:
    """The detectors asked for, by this run's interpreters; UnderfireError says what is wrong with their names."""
    spec = run.info.get("spec")
    named = spec.get("interpreters") if isinstance(spec, Mapping) else None
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise UnderfireError(f"run.json in {run.path} does not list its interpreters; run the attack again.")
    return judgements_named(settings.detector, named)


def attacked(run: Run, attacks: tuple[str, ...] = ()) -> list[Pictured]:
    """The images of a run that stages hold so far, the benign ones first, then those of the attacks that are named, or
    of all. UnderfireError if none is attacked.
    """
    try:
        stages = [
            Pictured(str(each["key"]), each["attack"], each["interpreter"], run.stored(str(each["key"])))
            for each in run.info.get("stages", ())
            if each["kind"] == "image"
        ]
    except (KeyError, TypeError):
        raise UnderfireError(f"run.json in {run.path} does not list its stages; run the attack again.") from None
    held = sorted((each for each in stages if each.ids), key=lambda each: each.attack != "benign")
    if len(held) < 2 or held[0].attack != "benign":
        raise UnderfireError(
            f"{run.path} contains no attacked images, so there is nothing to detect; make some with: underfire attack"
        )
    names = list(dict.fromkeys(each.attack for each in held[1:]))
    if unknown := [each for each in attacks if each not in names]:
        raise UnderfireError(f"{run.path} contains no attack '{unknown[0]}'; it contains {', '.join(names)}.")
    return [each for each in held if not attacks or each.attack in ("benign", *attacks)]


def plan(scorers: tuple[Scorer, ...], pictured: Pictured) -> Iterator[Planned]:
    """The maps that the scorers look at, each once, and then the scores of these images."""
    attack, made_for = pictured.attack, pictured.interpreter
    for interpreter in dict.fromkeys(each for scorer in scorers for each in scorer.interpreters):
        label = f"reported maps, {interpreter.name}"
        yield Planned(label, Reported(pictured.key, interpreter), "reported", attack, made_for)
    for scorer in scorers:
        yield Planned(scorer.name, Detect(pictured.key, scorer), "score", attack, made_for)


def _scorers(asked: tuple[Judgement, ...]) -> tuple[Scorer, ...]:
    """All the parts, each once."""
    return tuple(dict.fromkeys(part for judgement in asked for part in judgement.parts))


def _preflight(scorers: tuple[Scorer, ...], benign: Pictured, classifier: Classifier, store: Store) -> None:
    """One map by each interpreter, on one of the run's own images."""
    ids = benign.ids[:1]
    sample = Samples(ids, *(store.read(benign.key, name, ids) for name in ("image", "label")))
    preflight(dict.fromkeys(each for scorer in scorers for each in scorer.interpreters), classifier, sample)


def _unseen(run: Run, seen: tuple[str, ...], image_set: ImageSet) -> ImageSet:
    """The images that the run did not attack."""
    others = [i for i, name in enumerate(image_set.ids) if name not in set(seen)]
    if not others:
        raise UnderfireError(f"{run.path} attacked all of its {len(seen)} images and leaves none to calibrate on.")
    return image_set.take(others)


def _table(
    settings: DetectSettings, asked: tuple[Judgement, ...], others: Pictured, pictured: list[Pictured], store: Store
) -> pa.Table:
    """The table of detections, the images of the calibration among them."""
    fitting, _ = halves(others.ids, settings.seed)
    part = np.full(len(others.ids), CHECK, dtype=object)
    part[fitting.numpy()] = FIT

    def scores(of: Pictured, scorer: Scorer) -> Row:
        return store.read(key(Detect(of.key, scorer)), "score", of.ids)

    tables = []
    for judgement in asked:
        parts = {of: [scores(of, each) for each in judgement.parts] for of in (others, *pictured)}
        scales, detector = _fitted(judgement, [benign[fitting] for benign in parts[others]], settings.fpr)
        for of, found in parts.items():
            score = joint([scale(each) for scale, each in zip(scales, found, strict=True)])
            scored = per_image(
                COLUMNS,
                of.ids,
                part=part.tolist() if of is others else RUN,
                attack=of.attack,
                interpreter=of.interpreter,
                detector=judgement.name,
                family=judgement.family,
                score=score,
                threshold=detector.threshold,
                flagged=detector.flag(score),
                success=None if of.attack == "benign" else store.read(of.key, "success", of.ids),
            )
            tables.append(scored)
    return pa.concat_tables(tables)


def _fitted(judgement: Judgement, benign: list[Row], fpr: float) -> tuple[list[Standardisation], Detector]:
    """The scale of each part, and the threshold of their maximum."""
    try:
        scales = [judgement.scale.fit(each) for each in benign]
        return scales, Detector.fit(joint([judgement.scale.left_out(each) for each in benign]), fpr)
    except UnderfireError as problem:
        raise UnderfireError(f"The detector {judgement.name} cannot be calibrated. {problem}") from problem


def _describe(settings: DetectSettings, command: str, others: Pictured, found: list[Calibration]) -> dict[str, Any]:
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
