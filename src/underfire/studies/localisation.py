"""Do interpreters see the object? Weakly supervised localisation and the pointing game (Table 2).

    run = execute(settings, classifier, image_set, masks, Path("runs/x"), command="…")
    rows = summarise(localisations(run))

All images count, whatever the classifier makes of them: maps explain the class it reports, and a wrong class is an
error. Parameters are chosen on one half of the images and scored on the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from underfire.core.image_ops import is_constant
from underfire.core.io import read_table
from underfire.core.rng import halves
from underfire.core.types import Labels
from underfire.data.image_set import ImageSet
from underfire.data.selection import LocatedObjects
from underfire.interpreters.baselines import Centre, RandomMap
from underfire.interpreters.protocol import Explainer
from underfire.metrics.intervals import Estimate, share
from underfire.metrics.localisation import fit_all, hits, is_wrong, upscaled
from underfire.metrics.maps import boxes
from underfire.models.classifier import Classifier
from underfire.runs.compute import find, keep
from underfire.runs.execute import Chosen, Planned, Report, Study, carry_out, environment, preflight
from underfire.runs.folder import Run
from underfire.runs.settings import Inputs
from underfire.runs.specs import Explain, Locate, describe, key
from underfire.runs.store import Store

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


def execute(
    settings: LocalisationSettings,
    classifier: Classifier,
    image_set: ImageSet,
    masks: ImageSet,
    out: Path,
    *,
    command: str,
    batch_size: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings."""
    made = study(settings, classifier, image_set, masks)
    return carry_out(made, out, classifier, command=command, batch_size=batch_size, on_progress=on_progress)


def study(settings: LocalisationSettings, classifier: Classifier, image_set: ImageSet, masks: ImageSet) -> Study:
    """The maps; what cannot be classified or explained is found out when the images are chosen."""
    source = Locate(classifier.fingerprint(), image_set.digest, masks.digest, settings.n, settings.seed)

    def chosen() -> Chosen:
        located, predicted = find(source, image_set, masks, classifier)
        halves(located.samples.ids, settings.seed)
        preflight(settings.explainers(), classifier, located.samples)
        description = _describe(settings, classifier, image_set, located, predicted)
        return Chosen(description, partial(keep, source, located.samples, object=located.objects, predicted=predicted))

    stages, table = tuple(plan(settings, source)), partial(localisation_table, settings, source)
    return Study(_spec(settings, source), chosen, stages, TABLE, table)


def plan(settings: LocalisationSettings, source: Locate) -> Iterator[Planned]:
    """The images, then the maps of the floors and of each interpreter."""
    yield Planned("images", source, "image", "benign", None)
    for each in _explainers(settings):
        yield Planned(f"maps, {each.name}", Explain(source, each), "map", "benign", each.name)


def localisation_table(settings: LocalisationSettings, source: Locate, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x interpreter x rule."""
    labels, predicted, objects = (store.read(key(source), name, ids) for name in ("label", "predicted", "object"))
    misclassified = predicted != labels
    fitting, _ = halves(ids, settings.seed)
    half = np.full(len(ids), "test", dtype=object)
    half[fitting.numpy()] = "validation"
    tables = []
    for each in _explainers(settings):
        raw = store.read(key(Explain(source, each)), "map", ids)
        maps = upscaled(raw, *objects.shape[1:])
        scored = list(fit_all(maps, objects, misclassified, fitting))
        best = min(scored, key=lambda rule: (rule.choice.error, -rule.choice.overlap))
        shared: dict[str, Any] = {
            "id": ids,
            "half": half.tolist(),
            "interpreter": [each.name] * len(ids),
            "class_true": labels.tolist(),
            "class_predicted": predicted.tolist(),
            "map_constant": is_constant(raw).tolist(),
            "points_at_object": hits(maps, objects).tolist(),
            "points_at_box": hits(maps, boxes(objects)).tolist(),
        }
        for rule in scored:
            own = {
                "rule": [rule.rule] * len(ids),
                "parameter": [rule.parameter] * len(ids),
                "best_rule": [rule is best] * len(ids),
                "iou": rule.ious.double().tolist(),
                "box_wrong": is_wrong(rule.ious, torch.zeros_like(misclassified)).tolist(),
                "error": is_wrong(rule.ious, misclassified).tolist(),
            }
            tables.append(pa.table({**shared, **own}, SCHEMA))
    return pa.concat_tables(tables)


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
    judged = table.filter(pc.equal(table["half"], "test"))
    pairs = dict.fromkeys(zip(*(judged[name].to_pylist() for name in ("interpreter", "rule")), strict=True))
    return [_summary(judged, *pair) for pair in pairs]


def _summary(judged: pa.Table, interpreter: str, rule: str) -> LocalisationSummary:
    rows = judged.filter(pc.and_(pc.equal(judged["interpreter"], interpreter), pc.equal(judged["rule"], rule)))
    error, box, at_object, at_box = (
        share(rows[name].to_numpy(zero_copy_only=False))
        for name in ("error", "box_wrong", "points_at_object", "points_at_box")
    )
    first = rows.slice(0, 1).to_pylist()[0]
    constant = pc.sum(rows["map_constant"]).as_py()
    return LocalisationSummary(
        interpreter, rule, first["parameter"], first["best_rule"], error, box, at_object, at_box, constant
    )


def _explainers(settings: LocalisationSettings) -> list[Explainer]:
    """The floors and the interpreters."""
    return [RandomMap(seed=settings.seed), Centre(), *settings.explainers()]


def _spec(settings: LocalisationSettings, source: Locate) -> dict[str, Any]:
    """What two runs must share to be the same run."""
    digests = {"model_fingerprint": source.model, "images_digest": source.images, "masks_digest": source.masks}
    return {"study": "localisation", **settings.model_dump(mode="json"), **digests}


def _describe(
    settings: LocalisationSettings,
    classifier: Classifier,
    image_set: ImageSet,
    located: LocatedObjects,
    predicted: Labels,
) -> dict[str, Any]:
    """What run.json says of the model, the images and the interpreters."""
    return {
        "interpreters": describe(_explainers(settings)),
        **environment(settings, classifier, image_set),
        "selection": {
            "requested": settings.n,
            "examined": len(predicted),
            "misclassified": int((predicted != located.samples.labels).sum()),
        },
        "skipped": [{"id": name, "reason": reason} for name, reason in located.skipped],
    }
