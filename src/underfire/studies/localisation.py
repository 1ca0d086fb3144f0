"""Do interpreters see the object? Weakly supervised localisation and the pointing game (Table 2).

    made = experiment(settings, Subject(classifier, image_set, masks))
    run = execute(made, Path("runs/x"), classifier, Manner("…"))
    rows = summarise(localisations(run))

All images count, whatever the classifier makes of them: maps explain the class it reports, and a wrong class is an
error. Parameters are chosen on one half of the images and scored on the other; images of one group are in one half.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from underfire.attacks.names import interpreter_name
from underfire.core.image_ops import is_constant
from underfire.core.io import groups, read_table, rows_where
from underfire.core.rng import halves
from underfire.core.rows import in_parts
from underfire.data.image_set import ImageSet
from underfire.interpreters.baselines import Centre, RandomMap
from underfire.interpreters.protocol import Explainer
from underfire.metrics.intervals import Estimate, share
from underfire.metrics.localisation import fit_all, hits, is_wrong, overlaps, upscaled
from underfire.metrics.maps import boxes
from underfire.runs.choosing import find, keep
from underfire.runs.execute import Chosen, Experiment, preflight
from underfire.runs.folder import Run
from underfire.runs.needs import SHARD
from underfire.runs.plan import Planned
from underfire.runs.settings import Inputs
from underfire.runs.specs import Explain, Locate, describe, key
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies import paper
from underfire.studies.base import NEEDS_LABELS, Study, Subject, described, examined, identity, per_image
from underfire.studies.stage_rows import StageRows
from underfire.studies.tables import Row, Table, Value

TABLE = "localisation.parquet"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "half": pa.string(),  # validation, on which rules were chosen, or test
        "interpreter": pa.string(),
        "class_true": pa.int64(),
        "class_predicted": pa.int64(),
        "map_constant": pa.bool_(),
        "points_at_object": pa.float64(),
        "points_at_box": pa.float64(),
        "rule": pa.string(),
        "parameter": pa.float64(),
        "best_rule": pa.bool_(),
        "iou": pa.float64(),  # of the boxes
        "box_wrong": pa.bool_(),
        "error": pa.bool_(),  # wrong box or wrong class
    }
)


class LocalisationSettings(Inputs):
    """Everything that decides what a run computes."""

    masks: str
    n: int = 200


def experiment(settings: LocalisationSettings, subject: Subject) -> Experiment:
    """The maps; what cannot be classified or explained is found out when the images are chosen."""
    classifier, image_set, masks = subject.classifier, subject.image_set, subject.masks
    assert masks is not None
    source = Locate(classifier.fingerprint(), image_set.digest, masks.digest, settings.n, settings.seed)

    def choose_images() -> Chosen:
        located, predicted = find(source, image_set, masks, classifier)
        ids, wrong = located.chosen.ids, int((predicted != located.chosen.labels).sum())
        halves(ids, settings.seed, image_set.groups_of(ids))
        preflight(settings.explainers(), classifier, located.chosen.samples([0]))
        counts = {"examined": len(predicted), "misclassified": wrong}
        says = {
            "interpreters": describe(_explainers(settings)),
            **described(settings, subject, located.skipped, **counts),
        }
        kept = partial(keep, source, located.chosen, object=located.objects, predicted=predicted)
        return Chosen(says, ids, kept, examined(subject, located.chosen, wrong, len(predicted)))

    stages, table = tuple(plan(settings, source)), partial(localisation_table, settings, source, image_set)
    spec = identity(settings, source, "localisation", masks_digest=source.masks)
    return Experiment(spec, choose_images, stages, TABLE, SCHEMA, table, image_set)


def plan(settings: LocalisationSettings, source: Locate) -> Iterator[Planned]:
    """The images, then the maps of the floors and of each interpreter."""
    yield Planned("images", source, "image", "benign", None)
    for each in _explainers(settings):
        yield Planned(f"maps, {each.name}", Explain(source, each), "map", "benign", each.name)


def localisation_table(
    settings: LocalisationSettings, source: Locate, image_set: ImageSet, ids: tuple[str, ...], store: Store
) -> Iterator[pa.Table]:
    """One row per image x interpreter x rule."""
    labels, predicted = (store.read(key(source), name, ids) for name in ("label", "predicted"))
    misclassified = predicted != labels
    fitting, _ = halves(ids, settings.seed, image_set.groups_of(ids))
    half = np.full(len(ids), "test", dtype=object)
    half[fitting.numpy()] = "validation"
    for each in _explainers(settings):
        parts = [_measured(StageRows(part, store), source, Explain(source, each)) for part in in_parts(ids, SHARD)]
        measured = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        scored = list(fit_all(measured, misclassified, fitting))
        best = min(scored, key=lambda rule: (rule.choice.error, -rule.choice.overlap))
        for rule in scored:
            yield per_image(
                SCHEMA,
                ids,
                half=half.tolist(),
                interpreter=each.name,
                class_true=labels,
                class_predicted=predicted,
                map_constant=measured["constant"],
                points_at_object=measured["points at object"],
                points_at_box=measured["points at box"],
                rule=rule.rule,
                parameter=rule.parameter,
                best_rule=rule is best,
                iou=rule.ious.double(),
                box_wrong=is_wrong(rule.ious, torch.zeros_like(misclassified)),
                error=is_wrong(rule.ious, misclassified),
            )


def _measured(held: StageRows, source: Locate, maps: Explain) -> dict[str, Tensor]:
    """What each map says of its object, the overlaps by the rule."""
    objects, raw = held.of(source, "object"), held.of(maps, "map")
    shown = upscaled(raw, *objects.shape[1:])
    return {
        **overlaps(shown, objects),
        "constant": is_constant(raw),
        "points at object": hits(shown, objects),
        "points at box": hits(shown, boxes(objects)),
    }


@dataclass(frozen=True)
class LocalisationSummary:
    """One interpreter under one rule on the test half; `best` marks the rule that did best on the other half."""

    interpreter: str
    rule: str
    parameter: float
    best: bool
    error: Estimate  # wrong box or wrong class
    box_error: Estimate  # wrong box
    points_at_object: Estimate
    points_at_box: Estimate
    constant: int  # maps without a box


def localisations(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[LocalisationSummary]:
    """One LocalisationSummary per (interpreter, rule), in the order of the table, from the test half alone."""
    judged = rows_where(table, half="test")
    return [_summary(rows, *pair) for pair, rows in groups(judged, "interpreter", "rule")]


def _summary(rows: pa.Table, interpreter: str, rule: str) -> LocalisationSummary:
    def share_of(name: str) -> Estimate:
        return share(rows[name].to_numpy(zero_copy_only=False))

    return LocalisationSummary(
        interpreter,
        rule,
        parameter=rows["parameter"][0].as_py(),
        best=rows["best_rule"][0].as_py(),
        error=share_of("error"),
        box_error=share_of("box_wrong"),
        points_at_object=share_of("points_at_object"),
        points_at_box=share_of("points_at_box"),
        constant=pc.sum(rows["map_constant"]).as_py(),
    )


def _explainers(settings: LocalisationSettings) -> list[Explainer]:
    """The floors and the interpreters."""
    return [RandomMap(seed=settings.seed), Centre(), *settings.explainers()]


def tables(run: Run) -> Iterator[Table]:
    """Table 2, the floors beside the interpreters; then every rule."""
    found = summarise(localisations(run))
    best = [each for each in found if each.best]
    measure = tuple(
        (Value("error", each.error, paper.LOCALISATION.get(each.interpreter), percent=True),) for each in best
    )
    pointing = tuple((Value("pointing", each.points_at_object, percent=True),) for each in best)
    title = f"Table 2. Error in weakly supervised localisation, {best[0].error.n} images"
    note = "Pointing: how often the map's peak is on the object. Rules were chosen on the other half of the images."
    rows = (Row(("Measure",), measure), Row(("Pointing",), pointing))
    yield Table("table-2", title, ("",), tuple(interpreter_name(each.interpreter) for each in best), rows, note)
    by_rule = [
        Row(
            (interpreter_name(each.interpreter), f"{each.rule} {each.parameter:g}"),
            ((Value("error", each.error, percent=True),), (Value("wrong box", each.box_error, percent=True),)),
        )
        for each in found
    ]
    title = "Localisation by threshold rule"
    yield Table("localisation-rules", title, ("Interpreter", "Rule"), ("error", "wrong box"), tuple(by_rule))


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    n = request.sizes.located if request.n is None else request.n
    return experiment(LocalisationSettings(**{**request.inputs(), "n": n, "masks": request.masks}), subject)


def _lacking(request: StudySettings) -> str | None:
    if request.unlabelled:
        return NEEDS_LABELS
    return None if request.masks else "needs to know where objects are: name a folder of pictures with --masks"


STUDY = Study(_experiment, (TABLE,), tables, lacking=_lacking)
