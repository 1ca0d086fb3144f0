"""Do maps depend on what the classifier learned? Model-parameter randomisation (Adebayo et al. 2018).

    made = study(settings, classifier, image_set)
    run = carry_out(made, Path("runs/x"), classifier, command="…")
    rows = summarise(comparisons(run))

Each map of the trained classifier is compared with the map of the same image and class once the head or all layers are
re-initialised, with a map made again (the ceiling), and with another image's map (the floor).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from underfire.core.image_ops import is_constant
from underfire.core.io import read_table
from underfire.core.types import UnderfireError
from underfire.data.image_set import ImageSet
from underfire.data.selection import Selection
from underfire.interpreters import Interpreter
from underfire.interpreters.randomize import DEPTHS
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import map_l1, rank_correlation
from underfire.models.classifier import Classifier
from underfire.runs.compute import choose, keep
from underfire.runs.execute import Chosen, Planned, Study, environment, preflight
from underfire.runs.folder import Run
from underfire.runs.settings import Inputs
from underfire.runs.specs import Explain, ExplainRandomised, Select, describe, key
from underfire.runs.store import Store

TABLE = "sanity.parquet"
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "interpreter": pa.string(),
        "compared_with": pa.string(),
        "rank_correlation": pa.float64(),
        "map_l1": pa.float64(),
        "constant": pa.bool_(),
    }
)


class SanitySettings(Inputs):
    """Everything that decides what a run computes."""

    n: int = 32


def study(settings: SanitySettings, classifier: Classifier, image_set: ImageSet) -> Study:
    """The maps; what cannot be classified or explained is found out when the images are chosen."""
    select = Select(classifier.fingerprint(), image_set.digest, settings.n, settings.seed)

    def chosen() -> Chosen:
        selection = choose(select, image_set, classifier)
        if len(selection.samples.ids) < 2:
            raise UnderfireError("One image has no other to be compared with; give two or more (--n).")
        preflight(settings.explainers(), classifier, selection.samples)
        description = _describe(settings, classifier, image_set, selection)
        return Chosen(description, partial(keep, select, selection.samples))

    stages, table = tuple(plan(settings, select)), partial(sanity_table, settings, select)
    return Study(_spec(settings, select), chosen, stages, TABLE, table)


def plan(settings: SanitySettings, select: Select) -> Iterator[Planned]:
    """The images, then for each interpreter its maps, the same again, and those of the randomised classifiers."""
    yield Planned("images", select, "image", "benign", None)
    for each in settings.explainers():
        name, maps = each.name, Explain(select, each)
        yield Planned(f"maps, {name}", maps, "map", "benign", name)
        yield Planned(f"maps again, {name}", replace(maps, draw=1), "step", "benign", name)
        for depth in DEPTHS:
            spec = ExplainRandomised(select, each, depth, settings.seed)
            yield Planned(f"{depth} randomised, {name}", spec, "map", f"{depth}-randomised", name)


def sanity_table(settings: SanitySettings, select: Select, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x interpreter x what its map is compared with."""
    tables = []
    for each in settings.explainers():
        maps = store.read(key(Explain(select, each)), "map", ids)
        for compared, others in _others(settings, select, each, maps, ids, store):
            columns = {
                "id": ids,
                "interpreter": [each.name] * len(ids),
                "compared_with": [compared] * len(ids),
                "rank_correlation": rank_correlation(maps, others).tolist(),
                "map_l1": map_l1(maps, others).double().tolist(),
                "constant": (is_constant(maps) | is_constant(others)).tolist(),
            }
            tables.append(pa.table(columns, SCHEMA))
    return pa.concat_tables(tables)


def _others(
    settings: SanitySettings, select: Select, each: Interpreter, maps: Tensor, ids: tuple[str, ...], store: Store
) -> Iterator[tuple[str, Tensor]]:
    """What each image's map is compared with: the ceiling, the randomised classifiers' maps, the floor."""
    yield "the same again", store.read(key(Explain(select, each, draw=1)), "map", ids)
    for depth in DEPTHS:
        yield f"{depth} randomised", store.read(key(ExplainRandomised(select, each, depth, settings.seed)), "map", ids)
    yield "another image", maps.roll(1, 0)


@dataclass(frozen=True)
class SanitySummary:
    """One interpreter and what its maps are compared with; `constant` counts pairs in which a map shows nothing."""

    interpreter: str
    compared_with: str
    rank_correlation: Estimate
    map_l1: Estimate
    constant: int


def comparisons(run: Run) -> pa.Table:
    """The run's table."""
    return read_table(run.path / TABLE, SCHEMA)


def summarise(table: pa.Table) -> list[SanitySummary]:
    """One SanitySummary per (interpreter, comparison), in the order of the table."""
    pairs = dict.fromkeys(zip(*(table[name].to_pylist() for name in ("interpreter", "compared_with")), strict=True))
    return [_summary(table, *pair) for pair in pairs]


def _summary(table: pa.Table, interpreter: str, compared: str) -> SanitySummary:
    chosen = pc.and_(pc.equal(table["interpreter"], interpreter), pc.equal(table["compared_with"], compared))
    rows = table.filter(chosen)
    correlation, distance = (mean_interval(rows[name].to_numpy()) for name in ("rank_correlation", "map_l1"))
    return SanitySummary(interpreter, compared, correlation, distance, pc.sum(rows["constant"]).as_py())


def _spec(settings: SanitySettings, select: Select) -> dict[str, Any]:
    """What two runs must share to be the same run."""
    digests = {"model_fingerprint": select.model, "images_digest": select.images}
    return {"study": "sanity", **settings.model_dump(mode="json"), **digests}


def _describe(
    settings: SanitySettings, classifier: Classifier, image_set: ImageSet, selection: Selection
) -> dict[str, Any]:
    """What run.json says of the model, the images and the interpreters."""
    return {
        "interpreters": describe(settings.explainers()),
        **environment(settings, classifier, image_set),
        "selection": {
            "requested": settings.n,
            "examined": selection.examined,
            "misclassified": selection.misclassified,
        },
        "skipped": [{"id": name, "reason": reason} for name, reason in selection.skipped],
    }
