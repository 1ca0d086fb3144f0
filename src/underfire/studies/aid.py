"""Does a defended interpreter tell attacked images from benign ones? (Table 10, Fig. 15 and 16)

    made = experiment(settings, Subject(classifier, image_set))
    run = execute(made, Path("runs/x"), classifier, Manner("…"))
    rows = summarise(comparisons(run))

The first interpreter is the undefended one. Each is asked how far its maps move from its own benign ones

    under PGD, which ignores maps, under ADV2 made for it by a suite of attacks, and under the suite's preset made
    for the undefended one,
    under random signs of the same size as each attack: benign images of which nothing should be told,
    under normal and uniform noise that makes the classifier err on 3 % and 30 % of the images,

and how far its benign maps are from those of the undefended one. With object masks, how well it finds objects is
measured in folders of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from underfire.attacks.names import attack_name
from underfire.attacks.suite import PRESET
from underfire.core.io import rows_where
from underfire.core.rng import image_keys
from underfire.core.types import Images
from underfire.data.image_set import ImageSet
from underfire.metrics.intervals import Estimate
from underfire.models.classifier import Classifier
from underfire.models.noise import NOISES, Trial
from underfire.runs.choosing import choose
from underfire.runs.execute import Chosen, Experiment, Manner, execute, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import scored_maps
from underfire.runs.specs import Explain, Select, Spec, describe, key
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies import localisation, paper
from underfire.studies.aid_views import (
    BENIGN,
    LEVELS,
    SCHEMA,
    TABLE,
    AidSettings,
    AidSummary,
    aid_table,
    comparisons,
    label_of,
    noise_name,
    plan,
    summarise,
    views,
    worst_cases,
)
from underfire.studies.base import Study, Subject, chosen, identity, select_from, settings_of
from underfire.studies.figures import Drawing, Figure, gallery, papers
from underfire.studies.localisation import LocalisationSettings, LocalisationSummary
from underfire.studies.tables import Cell, Row, Table, Value
from underfire.studies.worst_case import WorstCase

SHOWN = 2  # images in a gallery


def experiment(settings: AidSettings, subject: Subject) -> Experiment:
    """Attacks and noises; what cannot be classified, explained or disturbed is found out when images are chosen."""
    classifier, select = subject.classifier, select_from(settings, subject.classifier, subject.image_set)
    shown = tuple(views(settings, select))

    def choose_images() -> Chosen:
        selection = choose(select, subject.image_set, classifier)
        preflight(settings.explainers(), classifier, selection.chosen.samples([0]))
        _check_noises(settings, classifier, selection.chosen)
        says = {"interpreters": {label: describe(each) for label, each in settings.by_label().items()}}
        return chosen(settings, subject, select, selection, says)

    digests = {} if subject.masks is None else {"masks_digest": subject.masks.digest}
    return Experiment(
        identity(settings, select, "aid", **digests),
        choose_images,
        tuple(plan(settings, select, shown)),
        TABLE,
        SCHEMA,
        partial(aid_table, settings, select, shown),
        subject.image_set,
    )


def _check_noises(settings: AidSettings, classifier: Classifier, chosen: ImageSet) -> None:
    def images(places: list[int]) -> Images:
        return chosen.samples(places).images

    for kind in NOISES:
        keys = image_keys(chosen.ids)
        Trial(classifier, images, chosen.labels, keys, kind, settings.seed).check(max(LEVELS))


def recorded(run: Run) -> tuple[AidSettings, Select]:
    """What the run was made with; UnderfireError if it contains no defences or another version's."""
    otherwise = f"{run.path} contains no defences that this version made; run the study again."
    return settings_of(run, AidSettings, "aid", otherwise)


# --- object masks -----------------------------------------------------------------------------


def locate(run: Run, subject: Subject, manner: Manner) -> None:
    """How well each interpreter finds objects, in run folders of their own."""
    settings, _ = recorded(run)
    given = settings.model_dump(include=set(LocalisationSettings.model_fields) - {"n", "interpreters"})
    for name in settings.interpreters:
        wanted = LocalisationSettings(**given, interpreters=(name,), n=settings.located)
        out = _localised(run.path, label_of(name))
        execute(localisation.experiment(wanted, subject), out, subject.classifier, manner)


def located(run: Run) -> dict[str, LocalisationSummary]:
    """How well each interpreter finds objects under the rule that did best on other images, if masks were given."""
    settings, _ = recorded(run)
    if settings.masks is None:
        return {}
    tables = {
        label: rows_where(localisation.localisations(Run(_localised(run.path, label))), interpreter=each.name)
        for label, each in settings.by_label().items()
    }
    return {label: next(row for row in localisation.summarise(table) if row.best) for label, table in tables.items()}


def _localised(out: Path, label: str) -> Path:
    return out / "localisation" / label.replace(":", "-")


# --- tables and figures ------------------------------------------------------------------------


def tables(run: Run) -> Iterator[Table]:
    """Table 10, the suite, then everything that interpreters were shown."""
    table = comparisons(run)
    found, suites = summarise(table), worst_cases(table)
    names = list(suites)
    by_kind = {(each.shown_by, each.images, each.made_for): each for each in found}
    drifts = {name: by_kind[name, BENIGN, None].map_l1 for name in names[1:]}
    yield _table_10(suites, drifts)
    yield _suite_table(suites)
    if objects := located(run):
        errors = tuple((Value("error", each.error, percent=True),) for each in objects.values())
        title = "Error in weakly supervised localisation"
        yield Table("defences-localisation", title, ("",), tuple(objects), (Row(("Measure",), errors),))
    yield Table(
        "defences",
        "How far maps move (AUC: change against the benign map, attack against random signs)",
        ("Images",),
        tuple(names),
        tuple(_row(kind, names, by_kind) for kind in _kinds(found, names[0])),
        "AUC: how well the distance to the benign map, which nobody has who meets only the image at hand, separates "
        "attacked images from benign ones with random signs of the same size. ADV² is the suite's preset. Noise makes "
        "3 and 30 % of images err.",
    )


def _table_10(suites: Mapping[str, WorstCase], drifts: Mapping[str, Estimate]) -> Table:
    """The undefended interpreter comes first; `drifts` are those of the others' benign maps."""
    undefended, *defended = suites
    names = [undefended, *defended]
    printed = _anchors(names)
    benign = ((Value("ΔL1", None),), *((Value("ΔL1", drifts[name], printed[name][0]),) for name in defended))
    preset = tuple((Value("ΔL1", suites[name].map_l1_of(PRESET), printed[name][1]),) for name in names)
    worst = tuple((Value("ΔL1", suites[name].map_l1),) for name in names)
    ratios = ((Value("ratio", None),), *((Value("ratio", suites[n].ratio_to(suites[undefended])),) for n in defended))
    return Table(
        "table-10",
        "Table 10. Distance to benign maps: of benign inputs to the undefended map, of ADV² to the own one",
        ("",),
        tuple(names),
        (
            Row(("Benign",), benign),
            Row(("ADV², preset",), preset),
            Row(("ADV², worst case",), worst),
            Row(("Worst case / undefended",), ratios),
        ),
        "Every interpreter is attacked by ADV² made for itself, anew. The worst case is the closest map among those of "
        f"{len(suites[undefended].members)} attacks, image by image. Images that were not fooled are left out.",
    )


def _suite_table(suites: Mapping[str, WorstCase]) -> Table:
    """What every member of the suite leaves, and how often it is the one that leaves least."""
    members = next(iter(suites.values())).members

    def cell(left: WorstCase, member: str) -> Cell:
        shares = (("success", left.success_of(member)), ("closest", left.closest(member)))
        return Value("ΔL1", left.map_l1_of(member)), *(Value(name, each, percent=True) for name, each in shares)

    rows = [Row((member,), tuple(cell(left, member) for left in suites.values())) for member in members]
    worst = tuple((Value("ΔL1", left.map_l1), Value("success", left.success, percent=True)) for left in suites.values())
    return Table(
        "defences-suite",
        "ADV² for itself, made in several ways: distance to benign maps (success, closest of all)",
        ("ADV²",),
        tuple(suites),
        (*rows, Row(("worst case",), worst)),
        "In brackets the share of images that were fooled, and of those on which this attack's map is the closest. "
        "Distances are means over the images that were fooled.",
    )


def _anchors(names: list[str]) -> dict[str, tuple[float | None, float | None]]:
    """The paper's ΔL1 of benign and attacked images: of RTS, which comes first, and of its maskers after AID."""
    undefended, *defended = names
    anchors: dict[str, tuple[float | None, float | None]] = dict.fromkeys(names, (None, None))
    if undefended.partition(":")[0] == "rts":
        anchors[undefended] = None, paper.AID_UNDEFENDED
        anchors |= {name: (paper.AID_BENIGN, paper.AID_DEFENDED) for name in defended if name.startswith("rts:")}
    return anchors


Kind = tuple[str, str]  # images, and for whom they were made: "all", "itself" or the undefended one


def _kinds(found: list[AidSummary], undefended: str) -> list[Kind]:
    """In the order of the table, without what stands beside attacks."""
    kinds = dict[Kind, None]()
    for each in found:
        if not each.is_control and each.images != BENIGN:
            whose = "all" if each.made_for is None else "itself" if each.made_for == each.shown_by else undefended
            kinds[each.images, whose] = None
    return list(kinds)


def _row(kind: Kind, names: list[str], found: Mapping[tuple[str, str, str | None], AidSummary]) -> Row:
    (images, whose), undefended = kind, names[0]
    cells = list[Cell]()
    for name in names:
        made_for = {"all": None, "itself": name}.get(whose, undefended)
        each = found.get((name, images, made_for)) if whose != undefended or name != undefended else None
        values = [Value("ΔL1", None if each is None else each.map_l1)]
        if each is not None and each.auc is not None:
            values.append(Value("AUC", Estimate(each.auc, each.auc, each.auc, each.map_l1.n)))
        cells.append(tuple(values))
    title = attack_name(images) if whose == "all" else f"{attack_name(images)} for {whose}"
    return Row((title,), tuple(cells))


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 15 and 16: what noise and attacks make of every interpreter's maps."""
    settings, select = recorded(run)
    noises = [tuple(noise_name(kind, level) for level in LEVELS) for kind in NOISES]
    text = "Maps under noise that makes 3 and 30 % of images err"
    yield papers(15, text, lambda: _gallery(settings, select, run, noises))
    text = "Maps of benign and adversarial (ADV²) inputs, each attacked through its own interpreter"
    yield papers(16, text, lambda: _gallery(settings, select, run, [("adv2",)]))


def _gallery(settings: AidSettings, select: Select, run: Run, kinds: Sequence[tuple[str, ...]]) -> Drawing:
    """For some images a row benign, and one for each of what became of them; images that the last of these fools."""
    every, store = list(views(settings, select)), run.store
    ids, rows = run.ids, []
    labels = store.read(key(select), "label", ids)
    for group in kinds:
        by_kind = {
            kind: [view for view in every if view.attack == kind and view.made_for in (None, view.shown_by)]
            for kind in group
        }
        fooled = store.read(key(by_kind[group[-1]][0].spec), "predicted", ids) != labels
        for place in fooled.nonzero()[:SHOWN, 0].tolist():
            chosen = ids[place : place + 1]
            benign = [scored_maps(select, each)[0] for each in settings.by_label().values()]
            rows.append((BENIGN, _panels(store, chosen, select, benign)))
            for kind, shown in by_kind.items():
                rows.append(
                    (attack_name(kind), _panels(store, chosen, shown[0].spec, [view.maps[0] for view in shown]))
                )
    return gallery(["input", *settings.by_label()], rows)


def _panels(store: Store, chosen: tuple[str, ...], images: Spec, maps: Sequence[Explain]) -> list[Tensor]:
    """One image and its maps."""
    return [store.read(key(images), "image", chosen)[0], *(store.read(key(each), "map", chosen)[0] for each in maps)]


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    return experiment(settings_for(request), subject)


def settings_for(request: StudySettings) -> AidSettings:
    """The interpreter that was defended, RTS where it is there, and its defences."""
    undefended = next((name for name in request.interpreters if name.startswith("rts")), request.interpreters[0])
    given = {**request.inputs(), "interpreters": (undefended, *request.defended), "masks": request.masks}
    return AidSettings(**given, located=request.sizes.located, **request.recipe_given())


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    if subject.masks is not None:
        locate(run, subject, manner)


def _lacking(request: StudySettings) -> str | None:
    if request.defended:
        return None if request.attacked > 1 else "needs two images or more: raise --n"
    return "needs defended interpreters: name them with --defended, as in rts:masker-aid.safetensors,smooth:cam"


STUDY = Study(_experiment, (TABLE,), tables, figures, add=_add, lacking=_lacking)
