"""Does the attack work? A solver's plain attack against its ADV2 for each interpreter, on correctly classified images
(Tables 3 and 12 with PGD, Fig. 9 and 10 with StAdv).

With another target map than the benign one: can the map be led elsewhere (Tables 6 to 8)?

run = execute(settings, classifier, image_set, Path("runs/x"), command="…")
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from underfire.attacks.api import Attacker
from underfire.attacks.attack import Attack
from underfire.attacks.names import SOLVERS, attack_name, interpreter_name
from underfire.attacks.target_classes import target_class_named
from underfire.attacks.target_maps import NO_DONOR, Pool, Wanted
from underfire.core.errors import UnderfireError
from underfire.core.io import nullable
from underfire.core.rng import image_keys
from underfire.core.rows import in_parts
from underfire.core.types import Samples
from underfire.data.image_set import ImageSet
from underfire.metrics.floors import between_images, natural, partners
from underfire.metrics.maps import compare_draws, is_faint, judged, linf
from underfire.models.classifier import Classifier
from underfire.runs.choosing import choose
from underfire.runs.compute import in_one_sentence, targets_of
from underfire.runs.dispatch import Crew
from underfire.runs.execute import Chosen, Experiment, Report, listed
from underfire.runs.execute import execute as execute_experiment
from underfire.runs.folder import Run
from underfire.runs.needs import SHARD
from underfire.runs.outcomes import ON_FILE, OUTCOMES, outcomes_schema
from underfire.runs.plan import AttackPlan, Planned, PlannedAttack, PlannedInterpreter
from underfire.runs.settings import AttackSettings, StudySettings
from underfire.runs.specs import Select, Spec, TargetMaps, describe, key
from underfire.runs.store import Store
from underfire.studies import paper
from underfire.studies.averages import Averages, distance_bars, distance_table, iou_bars, iou_table, success_table
from underfire.studies.base import Study, Subject, chosen, identity, select_from, settings_of
from underfire.studies.figures import Drawing, Figure, bars, gallery, papers
from underfire.studies.galleries import by_attack, image, map_of, samples
from underfire.studies.tables import Table

GROWING = ("n", "interpreters", "solvers", "evade")  # a run in whose folder one with more of these is made goes on


def execute(
    settings: AttackSettings,
    classifier: Classifier,
    image_set: ImageSet,
    out: Path,
    *,
    command: str,
    batch_size: int = 16,
    on_chosen: Callable[[str], None] = lambda sentence: None,
    on_progress: Report = lambda planned, progress: None,
    crew: Crew | None = None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings."""
    made = experiment(settings, Subject(classifier, image_set), batch_size)
    return execute_experiment(
        made,
        out,
        classifier,
        command=command,
        batch_size=batch_size,
        on_chosen=on_chosen,
        on_progress=on_progress,
        crew=crew,
    )


def experiment(settings: AttackSettings, subject: Subject, batch_size: int = 16) -> Experiment:
    """The attacks; what cannot be classified, explained or attacked is found out when the images are chosen."""
    classifier, candidates = subject.classifier, target_class_named(settings.target_class).candidates(subject.image_set)
    select = select_from(settings, classifier, candidates)
    plan = AttackPlan.of(settings, select)

    def choose_images() -> Chosen:
        selection = choose(select, candidates, classifier)
        _preflight(plan, classifier, selection.samples, batch_size)
        says = {"recipe": describe([each.craft.attack for each in plan.attacks])}
        passed_over = len(subject.image_set) - len(candidates)
        return chosen(settings, subject, select, selection, says, passed_over=passed_over)

    spec, table = identity(settings, select), partial(outcome_table, plan)
    smaller = partial(_continued, spec)
    return Experiment(spec, choose_images, plan.stages, OUTCOMES, table, subject.image_set, smaller, asked=settings)


def recorded(run: Run) -> AttackPlan:
    """What an attack's run folder was made with; UnderfireError if it contains no attack or another version's."""
    otherwise = f"{run.path} contains no attack; make one with: underfire attack --out …"
    plan = AttackPlan.of(*settings_of(run, AttackSettings, None, otherwise))
    if run.info.get("stages") != listed(plan.stages):
        raise UnderfireError(
            f"{run.path} was made by underfire {run.info.get('underfire')}, whose attacks are not those of this "
            "version, or with maskers or targets of other content; run the attack again."
        )
    return plan


def _plan_of(spec: Mapping[str, Any]) -> AttackPlan:
    """The plan of a run with that spec."""
    given = dict(spec)
    select = Select(given.pop("model_fingerprint"), given.pop("images_digest"), given["n"], given["seed"])
    return AttackPlan.of(AttackSettings(**given), select)


def _continued(spec: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[Planned, ...] | None:
    """The stages of a smaller run that one of this spec goes on with: fewer images, interpreters, solvers or evasions.

    The first solver stays, for it is the one that evades.
    """
    more = {name: spec[name] for name in GROWING}
    if {**held, **more} != spec or held["n"] > spec["n"] or held["solvers"][0] != spec["solvers"][0]:
        return None
    if any(set(held[name]) - set(spec[name]) for name in GROWING if name != "n"):
        return None
    return _plan_of(held).stages


def outcome_table(plan: AttackPlan, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter, each attack's map against the target map and the benign one."""
    tables = []
    for shown in plan.interpreters:
        beside = floors(shown, plan.select, ids, store)
        tables += [
            outcomes_of(attack, shown, plan.select, ids, beside, store)
            for attack in plan.attacks
            if shown.name in attack.scored.maps
        ]
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class _Rows:
    """What stages hold of some images."""

    ids: tuple[str, ...]
    store: Store

    def of(self, spec: Spec, name: str) -> Tensor:
        return self.store.read(key(spec), name, self.ids)

    def maps(self, drawn: Iterable[Spec]) -> list[Tensor]:
        """By each draw."""
        return [self.of(each, "map") for each in drawn]


@dataclass(frozen=True)
class _Measured:
    """Some rows of the table but for their judgement, and what all rows of an attack are judged by."""

    table: pa.Table
    distance: Tensor
    overlap: Tensor
    noise: Tensor
    faint: Tensor


@dataclass(frozen=True)
class Floors:
    """What the distances of these images' maps are to be held against (see `metrics.floors`), by column."""

    ids: tuple[str, ...]
    columns: Mapping[str, pa.Array]


def outcomes_of(
    attack: PlannedAttack,
    shown: PlannedInterpreter,
    select: Select,
    ids: tuple[str, ...],
    beside: Floors,
    store: Store,
) -> pa.Table:
    """The rows of one attack on some or all of the images of `beside`, which are read some at a time."""
    measured = [_measured(attack, shown, select, _Rows(part, store), beside.ids) for part in in_parts(ids, SHARD)]
    table = pa.concat_tables(each.table for each in measured)
    names = ("distance", "overlap", "noise", "faint")
    judgement = judged(*(torch.cat([getattr(each, name) for each in measured]) for name in names))
    place = table.column_names.index("judgement")
    table = table.set_column(place, table.schema.field(place), pa.array(judgement, pa.string()))
    return _with_floors(table, beside)


def _measured(
    attack: PlannedAttack, shown: PlannedInterpreter, select: Select, rows: _Rows, everyone: tuple[str, ...]
) -> _Measured:
    craft, goal, drawn, ids = attack.craft, shown.goal, attack.scored.maps[shown.name], rows.ids
    target, wanted, benign = rows.of(craft.of, "target"), rows.maps(shown.wanted), rows.maps(shown.benign)
    distances, noise = _distances(rows.maps(drawn), wanted, benign), compare_draws(benign, benign)["map_l1"]
    donors = rows.of(goal, "donor").tolist() if isinstance(goal, TargetMaps) else [NO_DONOR] * len(ids)
    columns: dict[str, Any] = {
        "id": ids,
        "attack": [attack.name] * len(ids),
        "solver": [attack.solver] * len(ids),
        "map_aware": [attack.map_aware] * len(ids),
        "evades": [attack.evades] * len(ids),
        "interpreter": [shown.name] * len(ids),
        "class_true": rows.of(select, "label").tolist(),
        "class_target": target.tolist(),
        "class_predicted": rows.of(craft, "predicted").tolist(),
        "confidence": rows.of(craft, "confidence").tolist(),
        "success": rows.of(craft, "success").tolist(),
        **nullable(distances),
        "target_map_of": [None if donor == NO_DONOR else everyone[donor] for donor in donors],
        "map_constant": rows.of(drawn[0], "constant").tolist(),
        "target_constant": rows.of(shown.wanted[0], "constant").tolist(),
        "repeat_l1": noise.tolist(),
        "linf": linf(rows.of(craft, "image"), rows.of(select, "image")).tolist(),
        "success_last": rows.of(craft, "success_last").tolist(),
        "steps": rows.of(craft, "steps").tolist(),
        "reason": ["settled" if each else "budget" for each in rows.of(craft, "settled").tolist()],
    }
    for form, scored in attack.files.items():
        measured = _distances(rows.maps(scored.maps[shown.name]), wanted, benign)
        measured["confidence"] = rows.of(scored.images, "confidence")
        on_file = {"success": (rows.of(scored.images, "predicted") == target).tolist(), **nullable(measured)}
        columns |= {f"{name}_{form}": on_file[name] for name in ON_FILE}
    columns |= {
        name: each.tolist() for name, each in craft.attack.perturbation.measures(rows.of(craft, "theta")).items()
    }
    schema = outcomes_schema()
    table = pa.table({**{name: pa.nulls(len(ids)) for name in schema.names}, **columns}, schema)
    return _Measured(table, distances["map_l1"], distances["iou_mean"], noise, is_faint(wanted[0]))


def _distances(maps: list[Tensor], wanted: list[Tensor], benign: list[Tensor]) -> dict[str, Tensor]:
    """From the map that they should look like, and from the benign one."""
    to_benign = compare_draws(maps, benign)
    return {**compare_draws(maps, wanted), "benign_l1": to_benign["map_l1"], "benign_iou": to_benign["iou_mean"]}


def floors(shown: PlannedInterpreter, select: Select, ids: tuple[str, ...], store: Store) -> Floors:
    """Of all images of a run."""
    variation = shown.variation
    maps, labels = store.read(key(shown.benign[0]), "map", ids), store.read(key(select), "label", ids)
    found = between_images(maps, partners(image_keys(ids), labels, select.seed))
    if variation is not None:
        found |= natural(*(store.read(key(variation), name, ids) for name in ("map_l1", "iou_mean")))
    return Floors(ids, nullable(found))


def _with_floors(table: pa.Table, beside: Floors) -> pa.Table:
    """The outcomes with the floors of their images."""
    place_of = {name: place for place, name in enumerate(beside.ids)}
    places = pa.array([place_of[name] for name in table["id"].to_pylist()], pa.int64())
    columns = {name: values.take(places) for name, values in beside.columns.items()}
    if "natural_l1" in columns:
        columns["within_natural"] = pc.less_equal(table["benign_l1"], columns["natural_l1"])
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), values)
    return table


def _preflight(plan: AttackPlan, classifier: Classifier, samples: Samples, batch_size: int) -> None:
    """The choice of targets, and one step of each attack on one image: whatever cannot be attacked fails at once."""
    target = targets_of(plan.targets, samples, classifier, batch_size)
    rules = [each.goal.rule for each in plan.interpreters if isinstance(each.goal, TargetMaps)]
    for rule in rules[:1]:
        keys = image_keys(samples.ids)
        pool = Pool(keys, samples.labels, torch.zeros(len(keys), 1, 1))
        rule.maps(Wanted(keys, target, pool), plan.settings.seed)
    for each in plan.attacks:
        if each.map_aware:
            attack, interpreter = _briefly(each.craft.attack), each.craft.attack.interpreter
            with in_one_sentence(f"The model cannot be attacked through {interpreter.name}"):
                Attacker(classifier, attack, interpreter)(samples.images[:1])


def _briefly(attack: Attack) -> Attack:
    """One step of it, and of the anchor that it may need."""
    anchor = attack.anchor and replace(attack.anchor, rungs=(1,))
    return replace(attack, rungs=(1,), warm_start=None, anchor=anchor)


# --- the study --------------------------------------------------------------------------------


def attacking(**choices: Any) -> Callable[[StudySettings, Subject], Experiment]:
    """The experiment of a study that attacks all interpreters, with these choices."""
    return lambda request, subject: experiment(attack_settings(request, **choices), subject)


def attack_settings(request: StudySettings, **choices: Any) -> AttackSettings:
    """What a study's request means for its attack; a budget is for solvers that have one."""
    given = {name: each for name, each in request.recipe_given().items() if name != "eps"}
    plain = AttackSettings(**request.inputs(), **given, **choices)
    bound = any("eps" in SOLVERS[each].budget for each in plain.solvers)
    return plain.model_copy(update={"eps": request.eps}) if bound else plain


def tables(run: Run) -> Iterator[Table]:
    """Tables 3 and 12, and the numbers of Fig. 6."""
    means, network = Averages.of(run), paper.network_of(run.info)
    title = f"Table 3. ASR (MC) of PGD and ADV² by interpreter; the paper's {network}"
    yield success_table(means, "table-3", title, paper.EFFECTIVENESS[network])
    title = f"Table 12. Distance between attribution maps of benign and adversarial inputs; the paper's {network}"
    yield distance_table(means, "table-12", title, paper.DISTANCES[network])
    yield iou_table(means, "figure-6", "Fig. 6 in numbers. IoU with the benign map")


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 1, 4 (17 on a DenseNet), 5 and 6."""
    means, network = Averages.of(run), paper.network_of(run.info)
    yield papers(1, "Benign, regular and dual adversarial inputs", lambda: _trios(run, means))
    yield papers(
        4 if network == "ResNet" else 17,
        "Attribution maps of benign and adversarial (PGD, ADV²) inputs",
        lambda: by_attack(run, means),
    )
    yield papers(
        5,
        "L1 distance between benign and adversarial maps",
        lambda: bars(means.headings, [distance_bars(means, paper.DISTANCES[network])]),
    )
    yield papers(
        6,
        "IoU scores of adversarial maps with respect to benign maps",
        lambda: bars(means.headings, [iou_bars(means)]),
    )


def _trios(run: Run, means: Averages) -> Drawing:
    """Each image benign, under the plain attack and under ADV2, with its map by the first interpreter."""
    first, rows = means.interpreters[0], []
    for id in samples(run):
        panels = [image(run, id), map_of(run, id, "benign", first)]
        for attack in means.basic:
            made_for = None if attack in means.plain else first
            panels += [image(run, id, attack, made_for), map_of(run, id, attack, first)]
        rows.append(("", panels))
    shown = ("benign", *means.basic)
    return gallery([title for attack in shown for title in (attack_name(attack), interpreter_name(first))], rows)


STUDY = Study(attacking(), (OUTCOMES,), tables, figures)
