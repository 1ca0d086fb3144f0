"""What the studies of interpreters themselves print: localisation, sanity, and defences."""

from collections.abc import Iterator

from underfire.attacks.names import attack_name, interpreter_name
from underfire.runs.folder import Run
from underfire.studies import aid, localisation, paper, sanity
from underfire.studies.tables import Cell, Row, Table, Value


def localisations(run: Run) -> Iterator[Table]:
    """Table 2, the floors beside the interpreters; then every rule."""
    found = localisation.summarise(localisation.localisations(run))
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


def sanities(run: Run) -> Iterator[Table]:
    """Maps of randomised classifiers; not in the paper."""
    rows = [
        Row(
            (interpreter_name(each.interpreter), each.compared_with),
            ((Value("rank correlation", each.rank_correlation),), (Value("ΔL1", each.map_l1),)),
        )
        for each in sanity.summarise(sanity.comparisons(run))
    ]
    title = "Maps of the trained classifier against those of a randomised one"
    note = "A map that stays the same shows nothing of what was learned; another image's map is the floor."
    yield Table("sanity", title, ("Interpreter", "Compared with"), ("rank correlation", "ΔL1"), tuple(rows), note)


def defences(run: Run) -> Iterator[Table]:
    """Table 10, then everything that interpreters were shown."""
    found = aid.summarise(aid.comparisons(run))
    names = list(dict.fromkeys(each.shown_by for each in found))
    by_kind = {(each.shown_by, each.images, each.made_for): each for each in found}
    undefended, *defended = names
    drifts = {name: by_kind[name, aid.BENIGN, None].map_l1 for name in defended}
    printed = _anchors(names)
    benign = ((Value("ΔL1", None),), *((Value("ΔL1", drift, printed[name][0]),) for name, drift in drifts.items()))
    attacked = tuple((Value("ΔL1", by_kind[name, "adv2", name].map_l1, printed[name][1]),) for name in names)
    title = "Table 10. Distance to benign maps: of benign inputs to the undefended map, of ADV² to the own one"
    note = "Every interpreter is attacked by ADV² made for itself, anew."
    rows = (Row(("Benign",), benign), Row(("ADV²",), attacked))
    yield Table("table-10", title, ("",), tuple(names), rows, note)
    if located := aid.located(run):
        errors = tuple((Value("error", found.error, percent=True),) for found in located.values())
        title = "Error in weakly supervised localisation"
        yield Table("defences-localisation", title, ("",), tuple(located), (Row(("Measure",), errors),))
    yield Table(
        "defences",
        "How far maps move (AUC of map change as a detector of the attack)",
        ("Images",),
        tuple(names),
        tuple(_row(kind, undefended, names, by_kind) for kind in _kinds(found, undefended)),
        "Attacks are told from benign images with random signs of the same size. Noise makes 3 and 30 % of images err.",
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


def _kinds(found: list[aid.AidSummary], undefended: str) -> list[Kind]:
    """In the order of the table, without what stands beside attacks."""
    kinds = dict[Kind, None]()
    for each in found:
        if not each.is_harmless and each.images != aid.BENIGN:
            whose = "all" if each.made_for is None else "itself" if each.made_for == each.shown_by else undefended
            kinds[each.images, whose] = None
    return list(kinds)


def _row(
    kind: Kind, undefended: str, names: list[str], found: dict[tuple[str, str, str | None], aid.AidSummary]
) -> Row:
    images, whose = kind
    cells = list[Cell]()
    for name in names:
        made_for = {"all": None, "itself": name}.get(whose, undefended)
        each = found.get((name, images, made_for)) if whose != undefended or name != undefended else None
        values = [Value("ΔL1", None if each is None else each.map_l1)]
        if each is not None and each.auc is not None:
            values.append(Value("AUC", aid.exactly(each.auc, each.map_l1.n)))
        cells.append(tuple(values))
    title = attack_name(images) if whose == "all" else f"{attack_name(images)} for {whose}"
    return Row((title,), tuple(cells))
