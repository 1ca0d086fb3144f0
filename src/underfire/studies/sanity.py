"""Do maps depend on what the classifier learned? Model-parameter randomisation (Adebayo et al. 2018).

    made = experiment(settings, Subject(classifier, image_set))
    run = execute(made, Path("runs/x"), classifier, Manner("…"))
    rows = summarise(comparisons(run))

Each map of the trained classifier is compared with the maps of the same image and class once the head or all layers are
re-initialised, by SEEDS draws of their weights, with a map made again (the ceiling), and with another image's map (the
floor). Means are over images, each of them averaged over its draws.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import interpreter_name
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import is_constant
from underfire.core.io import groups, read_table
from underfire.interpreters import Interpreter
from underfire.interpreters.randomize import DEPTHS
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import map_l1, rank_correlation
from underfire.runs.choosing import choose
from underfire.runs.execute import Chosen, Experiment, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import Planned
from underfire.runs.settings import Inputs
from underfire.runs.specs import Explain, ExplainRandomised, Select, describe
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies.base import Study, Subject, chosen, identity, per_image, select_from
from underfire.studies.stage_rows import StageRows, by_parts
from underfire.studies.tables import Row, Table, Value

TABLE = "sanity.parquet"
SEEDS = 3  # draws of the weights of each randomised classifier: one alone may be a lucky one
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "interpreter": pa.string(),
        "compared_with": pa.string(),
        "weights_seed": pa.int64(),  # that the weights were drawn from; null where none were
        "rank_correlation": pa.float64(),
        "map_l1": pa.float64(),
        "constant": pa.bool_(),
    }
)


class SanitySettings(Inputs):
    """Everything that decides what a run computes."""

    n: int = 32


def experiment(settings: SanitySettings, subject: Subject) -> Experiment:
    """The maps; what cannot be classified or explained is found out when the images are chosen."""
    select = select_from(settings, subject.classifier, subject.image_set)

    def choose_images() -> Chosen:
        selection = choose(select, subject.image_set, subject.classifier)
        if len(selection.chosen.ids) < 2:
            raise UnderfireError("One image has no other to be compared with; give two or more (--n).")
        preflight(settings.explainers(), subject.classifier, selection.chosen.samples([0]))
        return chosen(settings, subject, select, selection, {"interpreters": describe(settings.explainers())})

    stages, table = tuple(plan(settings, select)), partial(sanity_table, settings, select)
    return Experiment(
        identity(settings, select, "sanity"), choose_images, stages, TABLE, SCHEMA, table, subject.image_set
    )


def plan(settings: SanitySettings, select: Select) -> Iterator[Planned]:
    """The images, then for each interpreter its maps, the same again, and those of each randomised classifier."""
    yield Planned("images", select, "image", "benign", None)
    for each in settings.explainers():
        name, maps = each.name, Explain(select, each)
        yield Planned(f"maps, {name}", maps, "map", "benign", name)
        yield Planned(f"maps again, {name}", replace(maps, draw=1), "step", "benign", name)
        for spec in _randomised(settings, select, each):
            label = f"{spec.depth} randomised by seed {spec.seed}, {name}"
            yield Planned(label, spec, "map", f"{spec.depth}-randomised-{spec.seed}", name)


def sanity_table(settings: SanitySettings, select: Select, ids: tuple[str, ...], store: Store) -> Iterator[pa.Table]:
    """One row per image x interpreter x what its map is compared with."""
    before = dict(zip(ids, (*ids[-1:], *ids), strict=False))
    for each in settings.explainers():
        for other in _others(settings, select, each):
            yield by_parts(ids, store, partial(_compared, Explain(select, each), other, before))


@dataclass(frozen=True)
class _Other:
    """What maps are compared with; `seed` is that of the weights, where some were drawn."""

    name: str
    maps: Explain | ExplainRandomised
    seed: int | None = None
    of_another: bool = False  # image, that before it


def _others(settings: SanitySettings, select: Select, each: Interpreter) -> Iterator[_Other]:
    """Ceiling, randomised classifiers, floor."""
    yield _Other("the same again", Explain(select, each, draw=1))
    for spec in _randomised(settings, select, each):
        yield _Other(f"{spec.depth} randomised", spec, spec.seed)
    yield _Other("another image", Explain(select, each), of_another=True)


def _compared(explain: Explain, other: _Other, before: Mapping[str, str], held: StageRows) -> pa.Table:
    images = tuple(before[name] for name in held.ids) if other.of_another else held.ids
    maps, others = held.of(explain, "map"), StageRows(images, held.store).of(other.maps, "map")
    return per_image(
        SCHEMA,
        held.ids,
        interpreter=explain.interpreter.name,
        compared_with=other.name,
        weights_seed=other.seed,
        rank_correlation=rank_correlation(maps, others),
        map_l1=map_l1(maps, others).double(),
        constant=is_constant(maps) | is_constant(others),
    )


def _randomised(settings: SanitySettings, select: Select, each: Interpreter) -> Iterator[ExplainRandomised]:
    for depth in DEPTHS:
        for seed in range(settings.seed, settings.seed + SEEDS):
            yield ExplainRandomised(select, each, depth, seed)


@dataclass(frozen=True)
class SanitySummary:
    """One interpreter and what its maps are compared with; `constant` counts pairs in which a map shows nothing.

    Several draws of one image's map are averaged first, so that n and the intervals are those of images.
    """

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
    return [
        SanitySummary(
            interpreter,
            compared_with,
            rank_correlation=mean_interval(rows["rank_correlation"].to_numpy(), rows["id"].to_pylist()),
            map_l1=mean_interval(rows["map_l1"].to_numpy(), rows["id"].to_pylist()),
            constant=pc.sum(rows["constant"]).as_py(),
        )
        for (interpreter, compared_with), rows in groups(table, "interpreter", "compared_with")
    ]


def tables(run: Run) -> Iterator[Table]:
    """Maps of randomised classifiers; not in the paper."""
    rows = [
        Row(
            (interpreter_name(each.interpreter), each.compared_with),
            ((Value("rank correlation", each.rank_correlation),), (Value("ΔL1", each.map_l1),)),
        )
        for each in summarise(comparisons(run))
    ]
    title = "Maps of the trained classifier against those of a randomised one"
    note = (
        "A map that stays the same shows nothing of what was learned; another image's map is the floor. "
        f"Randomised classifiers are drawn {SEEDS} times, and each image's maps averaged over them."
    )
    yield Table("sanity", title, ("Interpreter", "Compared with"), ("rank correlation", "ΔL1"), tuple(rows), note)


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    return experiment(SanitySettings(**request.inputs()), subject)


STUDY = Study(_experiment, (TABLE,), tables)
