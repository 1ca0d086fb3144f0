"""Do maps stay deceived when another interpreter, or another classifier, looks? (Table 9, Fig. 14)

    table = execute(open_run("runs/x"), classifier, Manner("…"))
    cells = summarise(table)                                # see `underfire.studies.transfers`

The images of an attack's run are explained by every interpreter. Per image, for source g and shown interpreter g',

    dL1(g -> g') = mean |g'(x_g; ct) - g'(x0; y0)|

with x_g the image that was made for g; g -> g is the run's own row. Images of the attack that ignores the map, and
benign images under random noise of the same size, explained for their true class, are the null rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa
import torch
from torch import Tensor

from underfire.attacks.names import interpreter_name, made_for
from underfire.core.errors import UnderfireError
from underfire.core.io import nullable, read_table, rows_where, write_bytes, write_csv, write_table
from underfire.core.types import Samples
from underfire.data.corruptions import PNG
from underfire.interpreters import Interpreter
from underfire.metrics.maps import compare_draws
from underfire.models.classifier import Classifier
from underfire.runs.compute import in_one_sentence
from underfire.runs.dispatch import Crew
from underfire.runs.execute import Manner, adding_to, perform, preflight
from underfire.runs.folder import CHOSEN, Run
from underfire.runs.outcomes import OUTCOMES
from underfire.runs.plan import AttackPlan, Planned, scored_maps
from underfire.runs.specs import Explain, ExplainElsewhere, Saved, Select, SignNoise, key
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies import effectiveness, paper
from underfire.studies.base import Study, Subject, per_image
from underfire.studies.figures import Drawing, Figure, gallery, papers
from underfire.studies.galleries import image, map_of, samples
from underfire.studies.stage_rows import StageRows, by_parts
from underfire.studies.tables import Row, Table, Value
from underfire.studies.transfers import AVERAGES, SCHEMA, TABLE, averages, heat_map, summarise, transfers

NOISE = "noise"


@dataclass(frozen=True)
class Elsewhere:
    """Another classifier that maps are made by, with its name, and who computes with it if not this process."""

    name: str
    classifier: Classifier
    crew: Crew | None = None


@dataclass(frozen=True)
class TransferSource:
    """Images, attacked ones as PNG files, whose maps are compared with the benign ones; `interpreter` is the one that
    they were made for, if any."""

    attack: str
    interpreter: Interpreter | None
    spec: Saved | SignNoise

    @property
    def name(self) -> str:
        return self.attack if self.interpreter is None else f"{self.attack} {self.interpreter.name}"


def execute(
    run: Run,
    classifier: Classifier,
    manner: Manner,
    shown: Sequence[Interpreter] | None = None,
    elsewhere: Elsewhere | None = None,
) -> pa.Table:
    """Compute the maps that the run folder lacks and write the table; the rows of this call.

    Maps are those of `shown`, by default the run's interpreters, on the run's classifier or, if given, elsewhere. Rows
    of earlier calls with other interpreters or classifiers stay in the table. UnderfireError, before anything is
    written, if the run is unfinished or an image cannot be explained.
    """
    made = effectiveness.recorded(run)
    shown = made.explainers if shown is None else shown
    store = run.store
    ids = _finished(run, made, store)
    first = StageRows(ids[:1], store)
    samples = Samples(first.ids, first.of(made.select, "image"), first.of(made.select, "label"))
    used = classifier if elsewhere is None else elsewhere.classifier
    _check_classes(used, classifier, samples)
    preflight(shown, used, samples)
    earlier = read_table(run.path / TABLE, SCHEMA) if (run.path / TABLE).exists() else SCHEMA.empty_table()
    with adding_to(run):
        perform([noise(made)], ids, manner.context(classifier, len(ids)), run, manner)
        seeing = manner if elsewhere is None else replace(manner, crew=elsewhere.crew)
        perform(plan(made, shown, elsewhere), ids, manner.context(used, len(ids)), run, seeing)
        table = transfer_table(made, shown, elsewhere, ids, store)
        everything = pa.concat_tables([_others(earlier, table), table])
        picture = heat_map(rows_where(everything, model_fingerprint=used.fingerprint()))
        write_bytes(run.path / plot_name(elsewhere), picture)
        write_table(run.path / TABLE, everything)
        write_csv(run.path / AVERAGES, averages(everything))
    return table


def sources(made: AttackPlan) -> list[TransferSource]:
    """ADV2 for each interpreter, then the null rows: attacks after no single map, and noise of the first one's size."""
    ordered = sorted(made.attacks, key=lambda each: each.interpreter is None)
    noise = TransferSource(NOISE, None, SignNoise(made.attacks[0].craft, made.settings.seed))
    return [*(TransferSource(each.name, each.interpreter, Saved(each.craft, PNG())) for each in ordered), noise]


def plan(made: AttackPlan, shown: Sequence[Interpreter], elsewhere: Elsewhere | None) -> Iterator[Planned]:
    """For each shown interpreter its benign maps and those of every source."""
    for g in shown:
        for drawn in maps_of(made.select, g, elsewhere):
            yield Planned(f"benign maps, {g.name}", drawn, "map", "benign", g.name)
        for each in sources(made):
            for drawn in maps_of(each.spec, g, elsewhere):
                yield Planned(f"{each.name} → {g.name}", drawn, "map", each.attack, g.name)


def maps_of(
    of: Select | Saved | SignNoise, interpreter: Interpreter, elsewhere: Elsewhere | None
) -> tuple[Explain | ExplainElsewhere, ...]:
    """The stages that hold these maps, one for each draw; on the run's classifier they are the run's own, if it has
    them."""
    own = scored_maps(of, interpreter)
    if elsewhere is None:
        return own
    model = elsewhere.classifier.fingerprint()
    return tuple(ExplainElsewhere(of, interpreter, model, each.draw) for each in own)


def transfer_table(
    made: AttackPlan,
    shown: Sequence[Interpreter],
    elsewhere: Elsewhere | None,
    ids: tuple[str, ...],
    store: Store,
) -> pa.Table:
    """One row per image x source x shown interpreter."""
    return pa.concat_tables(
        by_parts(ids, store, partial(_shown, made, source, g, elsewhere)) for source in sources(made) for g in shown
    )


def _shown(
    made: AttackPlan, source: TransferSource, g: Interpreter, elsewhere: Elsewhere | None, held: StageRows
) -> pa.Table:
    """What one interpreter shows of the images of one source."""
    select, g_own, labels = made.select, source.interpreter, held.of(made.select, "label")
    benign, spec = (maps_of(of, g, elsewhere)[0] for of in (select, source.spec))
    reported = spec if isinstance(spec, ExplainElsewhere) else source.spec
    return per_image(
        SCHEMA,
        held.ids,
        attack=source.attack,
        source=None if g_own is None else g_own.name,
        interpreter=g.name,
        model=made.settings.model if elsewhere is None else elsewhere.name,
        model_fingerprint=spec.model if isinstance(spec, ExplainElsewhere) else select.model,
        class_true=labels,
        class_explained=labels if isinstance(source.spec, SignNoise) else held.of(source.spec, "predicted"),
        class_predicted=held.of(reported, "predicted"),
        **nullable(_moved(select, source, g, elsewhere, held)),
        own=elsewhere is None and g == g_own,
        own_l1=None if g_own is None else _moved(select, source, g_own, None, held)["map_l1"],
        map_constant=held.of(spec, "constant"),
        benign_constant=held.of(benign, "constant"),
    )


def _moved(
    select: Select, source: TransferSource, g: Interpreter, elsewhere: Elsewhere | None, held: StageRows
) -> dict[str, Tensor]:
    """How far an interpreter's maps of a source are from its benign ones."""
    return compare_draws(*(held.maps(maps_of(of, g, elsewhere)) for of in (source.spec, select)))


def plot_name(elsewhere: Elsewhere | None) -> str:
    """The file that holds the heat-map."""
    return "transfer.svg" if elsewhere is None else f"transfer-{elsewhere.classifier.fingerprint()}.svg"


def noise(made: AttackPlan) -> Planned:
    """Benign images with random signs of the first attack's size."""
    spec = sources(made)[-1].spec
    return Planned("noise", spec, "step", NOISE, None)


def _finished(run: Run, made: AttackPlan, store: Store) -> tuple[str, ...]:
    """The run's images; UnderfireError unless every stage holds all of them."""
    ids = tuple(run.info[CHOSEN])
    for planned in made.stages:
        if not ids or set(ids) - set(store.done(key(planned.spec))):
            raise UnderfireError(f"{run.path} lacks {planned.label}; finish the run with its own command first.")
    return ids


def _check_classes(used: Classifier, classifier: Classifier, samples: Samples) -> None:
    """UnderfireError unless both classifiers know as many classes."""
    with torch.no_grad(), in_one_sentence("The model cannot classify these images"):
        K, own = (each(samples.images[:1].to(each.device)).shape[1] for each in (used, classifier))
    if own != K:
        raise UnderfireError(f"The other model has {K} classes and the run's has {own}; they must be the same classes.")


def _others(earlier: pa.Table, table: pa.Table) -> pa.Table:
    """Rows of earlier calls by other interpreters or classifiers than those of this table."""
    names = ("interpreter", "model_fingerprint")
    renewed = set(zip(*(table[name].to_pylist() for name in names), strict=True))
    pairs = zip(*(earlier[name].to_pylist() for name in names), strict=True)
    return earlier.filter(pa.array([pair not in renewed for pair in pairs], pa.bool_()))


def tables(run: Run) -> Iterator[Table]:
    """Table 9 on the run's own classifier, with noise of the attack's size below."""
    own = rows_where(transfers(run), model_fingerprint=run.info["model"]["fingerprint"])
    cells = {(each.attack, each.source, each.interpreter): each.map_l1 for each in summarise(own)}
    shown = list(dict.fromkeys(name for _, _, name in cells))
    rows = []
    for attack, source in dict.fromkeys((attack, source) for attack, source, _ in cells):
        printed = paper.TRANSFER if attack in ("adv2", "pgd") else {}
        values = tuple(
            (Value("ΔL1", cells.get((attack, source, name)), printed.get((source, name))),) for name in shown
        )
        rows.append(Row((made_for(attack, source),), values))
    title = "Table 9. L1 distance between attribution maps of adversarial and benign inputs (row/column: source/target)"
    yield Table("table-9", title, ("",), tuple(map(interpreter_name, shown)), tuple(rows))


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 14."""
    text = "Maps of adversarial inputs across interpreters: benign left, adversarial right"
    yield papers(14, text, lambda: _across(run))


def _across(run: Run) -> Drawing:
    """One image: rows are whom it was made for, pairs of columns who shows it."""
    made = effectiveness.recorded(run)
    interpreters, (id, *_) = made.explainers, samples(run)
    rows = []
    for source in sources(made):
        if source.interpreter is None:
            continue
        panels = [image(run, id, "adv2", source.interpreter.name)]
        for shown in interpreters:
            adversarial = run.store.read(key(maps_of(source.spec, shown, None)[0]), "map", (id,))[0]
            panels += [map_of(run, id, "benign", shown.name), adversarial]
        rows.append((interpreter_name(source.interpreter.name), panels))
    titles = [title for each in interpreters for title in (interpreter_name(each.name), "adversarial")]
    return gallery(["input", *titles], rows)


def _further(request: StudySettings, select: Select) -> Iterator[Planned]:
    made = AttackPlan.of(effectiveness.attack_settings(request), select)
    yield noise(made)
    yield from plan(made, made.explainers, None)


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    execute(run, subject.classifier, manner)


STUDY = Study(effectiveness.attacking(), (OUTCOMES, TABLE), tables, figures, _further, _add)
