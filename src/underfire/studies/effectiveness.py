"""Does the attack work? A solver's plain attack against its ADV2 for each interpreter, on correctly classified images
(Tables 3 and 12 with PGD, Fig. 9 and 10 with StAdv).

With another target map than the benign one: can the map be led elsewhere (Tables 6 to 8)?

run = execute(settings, classifier, image_set, Path("runs/x"), command="…")
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor

from underfire.attacks.api import Attacker
from underfire.attacks.attack import Attack
from underfire.attacks.names import MAP_AWARE, attack_name, interpreter_name
from underfire.attacks.target_classes import target_class_named
from underfire.attacks.target_maps import NO_DONOR, Pool, Wanted, target_map_named
from underfire.core.io import nullable
from underfire.core.rng import image_keys
from underfire.core.types import Samples, UnderfireError
from underfire.data.image_set import ImageSet
from underfire.interpreters import Ensemble, Interpreter
from underfire.metrics.maps import compare_maps, is_faint, judged, linf, map_l1
from underfire.models.classifier import Classifier
from underfire.runs.compute import choose, in_one_sentence, targets_of
from underfire.runs.execute import Chosen, Experiment, Planned, Report, carry_out, listed
from underfire.runs.folder import Run
from underfire.runs.outcomes import COLUMNS, COLUMNS_SCHEMA, OUTCOMES
from underfire.runs.plan import PlannedAttack, aim_of, attacks, goal_of
from underfire.runs.settings import AttackSettings, StudySettings
from underfire.runs.specs import Craft, Explain, Rescore, Select, Spec, TargetMaps, describe, key
from underfire.runs.store import Store
from underfire.studies import paper
from underfire.studies.averages import Averages, distance_bars, distance_table, iou_bars, iou_table, success_table
from underfire.studies.base import Study, Subject, chosen, identity, select_from, settings_of
from underfire.studies.figures import Drawing, Figure, bars, gallery, papers
from underfire.studies.galleries import by_attack, image, map_of, samples
from underfire.studies.tables import Table


def execute(
    settings: AttackSettings,
    classifier: Classifier,
    image_set: ImageSet,
    out: Path,
    *,
    command: str,
    batch_size: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings."""
    made = experiment(settings, Subject(classifier, image_set), batch_size)
    return carry_out(made, out, classifier, command=command, batch_size=batch_size, on_progress=on_progress)


def experiment(settings: AttackSettings, subject: Subject, batch_size: int = 16) -> Experiment:
    """The attacks; what cannot be classified, explained or attacked is found out when the images are chosen."""
    classifier, candidates = subject.classifier, target_class_named(settings.target_class).candidates(subject.image_set)
    select = select_from(settings, classifier, candidates)

    def choose_images() -> Chosen:
        selection = choose(select, candidates, classifier)
        _preflight(settings, select, classifier, selection.samples, batch_size)
        says = {"recipe": describe([each.craft.attack for each in attacks(settings, select)])}
        passed_over = len(subject.image_set) - len(candidates)
        return chosen(settings, subject, select, selection, says, passed_over=passed_over)

    stages, table = tuple(plan(settings, select)), partial(outcome_table, settings, select)
    return Experiment(identity(settings, select), choose_images, stages, OUTCOMES, table)


def recorded(run: Run) -> tuple[AttackSettings, Select]:
    """What an attack's run folder was made with; UnderfireError if it holds no attack or another version's."""
    otherwise = f"{run.path} holds no attack; make one with: underfire attack --out …"
    settings, select = settings_of(run, AttackSettings, None, otherwise)
    if run.info.get("stages") != listed(plan(settings, select)):
        raise UnderfireError(
            f"{run.path} was made by underfire {run.info.get('underfire')}, whose attacks are not those of this "
            "version, or with maskers or targets of other content; run the attack again."
        )
    return settings, select


def plan(settings: AttackSettings, select: Select) -> Iterator[Planned]:
    """The stages in the order in which they are computed; shared ones come once."""
    planned = set()
    for each in _stages(settings, select):
        if key(each.spec) not in planned:
            planned.add(key(each.spec))
            yield each


def _stages(settings: AttackSettings, select: Select) -> Iterator[Planned]:
    explainers = settings.explainers()
    yield Planned("images", select, "image", "benign", None)
    yield Planned("targets", aim_of(settings, select), "step", "benign", None)
    for each in explainers:
        goal = goal_of(settings, aim_of(settings, select), each)
        yield Planned(f"benign maps, {each.name}", Explain(select, each), "map", "benign", each.name)
        yield Planned(f"benign maps again, {each.name}", Explain(select, each, draw=1), "step", "benign", each.name)
        if isinstance(goal, TargetMaps):
            yield Planned(f"target maps, {each.name}", goal, "map", "target", each.name)
    for attacked in attacks(settings, select):
        yield from _stages_of(attacked, explainers)


def _stages_of(attacked: PlannedAttack, explainers: list[Interpreter]) -> Iterator[Planned]:
    """What must be there before an attack, the attack, and what is measured on its images."""
    craft, attack = attacked.craft, attacked.name
    after = None if attacked.interpreter is None else attacked.interpreter.name
    against = "" if after is None else f", {after}"
    if craft.start is not None:
        yield Planned(f"warm start of {attack}", craft.start, "step", craft.start.attack.name, None)
    if craft.anchor is not None:
        yield Planned(f"first stage of {attack}", craft.anchor, "step", craft.anchor.attack.name, None)
    if isinstance(craft.attack.interpreter, Ensemble):
        yield Planned(f"benign maps for {attack}", cast(Explain, craft.goal), "step", "benign", None)
    yield Planned(f"{attack}{against}", craft, "image", attack, after)
    yield Planned(f"{attack} in 8 bits{against}", Rescore(craft), "step", attack, after)
    for each in attacked.judged_by(explainers):
        yield Planned(f"{attack} maps, {each.name}", Explain(craft, each), "map", attack, each.name)


def outcome_table(settings: AttackSettings, select: Select, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter, each attack's map against the target map and the benign one."""
    tables, made = [], list(attacks(settings, select))
    for interpreter in settings.explainers():
        goal = goal_of(settings, aim_of(settings, select), interpreter)
        for each in made:
            if each.interpreter in (None, interpreter):
                tables.append(_outcomes(each.craft, interpreter, goal, ids, store))
    return pa.concat_tables(tables)


def _outcomes(
    craft: Craft, interpreter: Interpreter, goal: Explain | TargetMaps, ids: tuple[str, ...], store: Store
) -> pa.Table:
    def rows(spec: Spec, name: str) -> Tensor:
        return store.read(key(spec), name, ids)

    select, target, shown = craft.of.of, rows(craft.of, "target"), Explain(craft, interpreter)
    benign = Explain(select, interpreter)
    wanted = rows(goal, "map")
    distances = compare_maps(rows(shown, "map"), wanted)
    donors = rows(goal, "donor").tolist() if isinstance(goal, TargetMaps) else [NO_DONOR] * len(ids)
    repeated = map_l1(rows(replace(benign, draw=1), "map"), rows(benign, "map"))
    columns: dict[str, Any] = {
        "id": ids,
        "attack": [craft.attack.name] * len(ids),
        "interpreter": [interpreter.name] * len(ids),
        "class_true": rows(select, "label").tolist(),
        "class_target": target.tolist(),
        "class_predicted": rows(craft, "predicted").tolist(),
        "confidence": rows(craft, "confidence").tolist(),
        "success": rows(craft, "success").tolist(),
        **{name: nullable(values.tolist()) for name, values in distances.items()},
        "judgement": judged(distances["map_l1"], distances["iou_mean"], repeated, is_faint(wanted)),
        "benign_l1": map_l1(rows(shown, "map"), rows(benign, "map")).tolist(),
        "target_map_of": [None if donor == NO_DONOR else ids[donor] for donor in donors],
        "map_constant": rows(shown, "constant").tolist(),
        "target_constant": rows(goal, "constant").tolist(),
        "repeat_l1": repeated.tolist(),
        "linf": linf(rows(craft, "image"), rows(select, "image")).tolist(),
        "success_8bit": (rows(Rescore(craft), "predicted") == target).tolist(),
        "steps": rows(craft, "steps").tolist(),
        "reason": ["converged" if c else "budget" for c in rows(craft, "converged").tolist()],
    }
    measures = craft.attack.perturbation.measures(rows(craft, "theta"))
    lacking = {name: pa.nulls(len(ids)) for name in COLUMNS if name not in {**columns, **measures}}
    columns |= {**{name: values.tolist() for name, values in measures.items()}, **lacking}
    return pa.table(columns, COLUMNS_SCHEMA)


def _preflight(
    settings: AttackSettings, select: Select, classifier: Classifier, samples: Samples, batch_size: int
) -> None:
    """The choice of targets, and one step of each attack on one image: whatever cannot be attacked fails at once."""
    aim, target_map, image = aim_of(settings, select), target_map_named(settings.target_map), samples.images[:1]
    target = targets_of(aim, samples, classifier, batch_size)
    if target_map is not None:
        keys = image_keys(samples.ids)
        pool = Pool(keys, samples.labels, torch.zeros(len(keys), 1, 1))
        target_map.maps(Wanted(keys, target, pool), settings.seed)
    for each in attacks(settings, select):
        if each.craft.goal is not None:
            attack, interpreter = _briefly(each.craft.attack), each.craft.attack.interpreter
            with in_one_sentence(f"The model cannot be attacked through {interpreter.name}"):
                Attacker(classifier, attack, interpreter)(image)


def _briefly(attack: Attack) -> Attack:
    """One step of it, and of the anchor that it may need."""
    anchor = attack.anchor and replace(attack.anchor, steps=1)
    return replace(attack, steps=1, warm_start=None, anchor=anchor)


# --- the study --------------------------------------------------------------------------------


def attacking(**choices: Any) -> Callable[[StudySettings, Subject], Experiment]:
    """The experiment of a study that attacks all interpreters, with these choices."""
    return lambda request, subject: experiment(attack_settings(request, **choices), subject)


def attack_settings(request: StudySettings, **choices: Any) -> AttackSettings:
    """What a study's request means for its attack; a budget is for solvers that have one."""
    budget: dict[str, Any] = {"eps": request.eps} if "pgd" in choices.get("solvers", ("pgd",)) else {}
    return AttackSettings(**request.inputs(), recipe=request.recipe, steps=request.steps, **budget, **choices)


def tables(run: Run) -> Iterator[Table]:
    """Tables 3 and 12, and the numbers of Fig. 6."""
    means, network = Averages.of(run), paper.network_of(run.info["model"]["name"])
    title = f"Table 3. ASR (MC) of PGD and ADV² by interpreter; the paper's {network}"
    yield success_table(means, "table-3", title, paper.EFFECTIVENESS[network])
    title = f"Table 12. Distance between attribution maps of benign and adversarial inputs; the paper's {network}"
    yield distance_table(means, "table-12", title, paper.DISTANCES[network])
    yield iou_table(means, "figure-6", "Fig. 6 in numbers. IoU with the benign map")


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 1, 4 (17 on a DenseNet), 5 and 6."""
    means, network = Averages.of(run), paper.network_of(run.info["model"]["name"])
    yield papers(1, "Benign, regular and dual adversarial inputs", lambda: _trios(run, means))
    yield papers(
        4 if network == "ResNet" else 17,
        "Attribution maps of benign and adversarial (PGD, ADV²) inputs",
        lambda: by_attack(run, means.interpreters, means.basic),
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
            made_for = first if attack in MAP_AWARE else None
            panels += [image(run, id, attack, made_for), map_of(run, id, attack, first)]
        rows.append(("", panels))
    shown = ("benign", *means.basic)
    return gallery([title for attack in shown for title in (attack_name(attack), interpreter_name(first))], rows)


STUDY = Study(attacking(), (OUTCOMES,), tables, figures)
