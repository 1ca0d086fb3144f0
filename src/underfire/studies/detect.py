"""Would a detector have noticed? Every image of a run scored by detectors that are calibrated on other, benign images.

    run = execute(settings, open_run("runs/x"), Subject(classifier, image_set), Manner("…"))
    cells = matrix(detections(run))

Thresholds are set and false-positive rates measured on benign images that the run did not attack (see
`underfire.studies.calibration_images`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from underfire.core.errors import UnderfireError
from underfire.core.io import write_json, write_table
from underfire.core.types import Row, Samples
from underfire.detection.calibration import Detector, Standardisation, check_enough, joint
from underfire.detection.registry import Judgement, judgements_named
from underfire.detection.scores import Scorer
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner, adding_to, perform, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import Planned
from underfire.runs.specs import Detect, Meet, Reported, key
from underfire.runs.store import Store
from underfire.runs.study_settings import DetectSettings
from underfire.studies.base import Subject, per_image
from underfire.studies.calibration_images import CalibrationImages, Met, met, not_attacked
from underfire.studies.detections import (
    COLUMNS,
    DETECTORS,
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


def execute(settings: DetectSettings, run: Run, subject: Subject, manner: Manner) -> Run:
    """Add what the run folder lacks; detections of earlier settings make room for these, maps and scores are kept.

    The subject is that of the run (see `reopen`). What cannot be scored is found out before anything is written.
    """
    classifier = subject.classifier
    check_enough(settings.benign // 2, settings.fpr)
    asked, pictured, store = judgements(settings, run), attacked(run, settings.attacks), run.store
    unseen = not_attacked(run, pictured[0].ids, subject.image_set)
    scorers = _scorers(asked)
    _preflight(scorers, pictured[0], classifier, store)
    source = Meet(classifier.fingerprint(), unseen.digest, settings.benign, settings.seed)
    with adding_to(run):
        found = met(source, unseen, classifier, store, settings.fpr)
        benign = found.halved(settings.seed, unseen.groups_of(found.ids))
        check_enough(int(benign.fitting.sum()), settings.fpr)
        others = Pictured(key(source), "benign", None, benign.ids)
        everything = [others, *pictured]
        context = manner.context(classifier, max(len(each.ids) for each in everything))
        for each in everything:
            perform(plan(scorers, each), each.ids, context, run, manner)
        table = _table(settings, asked, benign, others, pictured, store)
        write_json(run.path / DETECTORS, _describe(settings, manner.command, others.key, found, calibrations(table)))
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


def _table(
    settings: DetectSettings,
    asked: tuple[Judgement, ...],
    benign: CalibrationImages,
    others: Pictured,
    pictured: list[Pictured],
    store: Store,
) -> pa.Table:
    """The table of detections, the images of the calibration among them."""

    def scores(of: Pictured, scorer: Scorer) -> Row:
        return store.read(key(Detect(of.key, scorer)), "score", of.ids)

    tables = []
    for judgement in asked:
        parts = {of: [scores(of, each) for each in judgement.parts] for of in (others, *pictured)}
        calibrated = calibrate(judgement, [each[benign.fitting] for each in parts[others]], settings.fpr)
        for of, found in parts.items():
            score = calibrated.score(found)
            attacked = of.attack != "benign"
            scored = per_image(
                COLUMNS,
                of.ids,
                part=list(benign.parts) if of is others else RUN,
                attack=of.attack,
                interpreter=of.interpreter,
                detector=judgement.name,
                family=judgement.family,
                score=score,
                threshold=calibrated.detector.threshold,
                flagged=calibrated.detector.flag(score),
                success=store.read(of.key, "success", of.ids) if attacked else None,
                correct=benign.correct if of is others else None if attacked else True,
            )
            tables.append(scored)
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class Calibrated:
    """The scale of each part of a judgement, and the threshold of their maximum."""

    scales: tuple[Standardisation, ...]
    detector: Detector

    def score(self, parts: Iterable[Row]) -> Row:
        """Of images by what each part scores them."""
        return joint([scale(each) for scale, each in zip(self.scales, parts, strict=True)])


def calibrate(judgement: Judgement, benign: list[Row], fpr: float) -> Calibrated:
    """By what each part scores benign images; UnderfireError if no threshold keeps that false-positive rate."""
    try:
        scales = tuple(judgement.scale.fit(each) for each in benign)
        detector = Detector.fit(joint([judgement.scale.left_out(each) for each in benign]), fpr)
        return Calibrated(scales, detector)
    except UnderfireError as problem:
        raise UnderfireError(f"The detector {judgement.name} cannot be calibrated. {problem}") from problem


def _describe(
    settings: DetectSettings, command: str, stage: str, benign: Met, found: list[Calibration]
) -> dict[str, Any]:
    """detectors.json."""
    return {
        "command": command,
        "underfire": version("underfire"),
        "spec": settings.model_dump(mode="json"),
        "benign": {
            "stage": stage,
            "requested": settings.benign,
            "found": int(benign.correct.sum()),
            "misclassified": benign.misclassified,
        },
        "detectors": [
            {
                "name": each.detector,
                "threshold": each.threshold,
                "fitted": each.fitted,
                "fpr_target": settings.fpr,
                **each.false_positives.row(),
            }
            for each in found
        ],
    }
