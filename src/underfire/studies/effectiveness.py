"""Does the attack work? A solver's plain attack against its ADV2 for each interpreter, on correctly classified images
(Tables 3 and 12 with PGD, Fig. 9 and 10 with StAdv).

With another target map than the benign one: can the map be led elsewhere (Tables 6 to 8)?

run = execute(settings, Subject(classifier, image_set), Path("runs/x"), Manner("…"))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from underfire.attacks.api import Attacker
from underfire.attacks.attack import Attack
from underfire.attacks.names import SOLVERS, attack_name, interpreter_name
from underfire.attacks.target_classes import target_class_named
from underfire.attacks.target_maps import Pool, Wanted
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.data.image_set import ImageSet
from underfire.interpreters import Interpreter
from underfire.interpreters.protocol import remarks_on
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.choosing import choose, in_batches
from underfire.runs.compute import in_one_sentence, targets_of
from underfire.runs.execute import Chosen, Experiment, Manner, listed
from underfire.runs.execute import execute as execute_experiment
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES, outcomes_schema
from underfire.runs.plan import AttackPlan, Planned
from underfire.runs.specs import TargetMaps, describe
from underfire.runs.study_settings import StudySettings
from underfire.studies import paper
from underfire.studies.averages import Averages, distance_bars, distance_table, iou_bars, iou_table, success_table
from underfire.studies.base import Study, Subject, chosen, identity, select_from, settings_of
from underfire.studies.figures import Drawing, Figure, bars, gallery, papers
from underfire.studies.galleries import by_attack, image, map_of, samples
from underfire.studies.outcome_rows import outcome_table
from underfire.studies.tables import Table

GROWING = ("n", "interpreters", "solvers", "evade")  # a run in whose folder one with more of these is made goes on


def execute(
    settings: AttackSettings,
    subject: Subject,
    out: Path,
    manner: Manner,
    explainers: Sequence[Interpreter] | None = None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings."""
    made = experiment(settings, subject, manner.batch_size, explainers)
    return execute_experiment(made, out, subject.classifier, manner)


def experiment(
    settings: AttackSettings,
    subject: Subject,
    batch_size: int = 16,
    explainers: Sequence[Interpreter] | None = None,
) -> Experiment:
    """The attacks; what cannot be classified, explained or attacked is found out when the images are chosen.

    Explainers that are given stand in for those that the settings name.
    """
    classifier, candidates = subject.classifier, target_class_named(settings.target_class).candidates(subject.image_set)
    select = select_from(settings, classifier, candidates)
    plan = AttackPlan.of(settings, select, explainers)

    def choose_images() -> Chosen:
        selection = choose(select, candidates, classifier)
        _preflight(plan, classifier, selection.chosen, batch_size)
        says = {
            "recipe": describe([each.craft.attack for each in plan.attacks]),
            "remarks": _remarks(plan, classifier, selection.chosen),
        }
        passed_over = len(subject.image_set) - len(candidates)
        return chosen(settings, subject, select, selection, says, passed_over=passed_over)

    spec, table = identity(settings, select), partial(outcome_table, plan.interpreters, plan.attacks, select)
    smaller = partial(_continued, plan, spec)
    asked = settings if explainers is None else None
    stages, columns = plan.stages, outcomes_schema()
    return Experiment(spec, choose_images, stages, OUTCOMES, columns, table, subject.image_set, smaller, asked=asked)


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


def _continued(plan: AttackPlan, spec: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[Planned, ...] | None:
    """The stages of a smaller run, by images, interpreters, solvers or evasions, that one of this spec goes on with."""
    more = {name: spec[name] for name in GROWING}
    if {**held, **more} != spec or held["n"] > spec["n"]:
        return None
    if any(set(held[name]) - set(spec[name]) for name in GROWING if name != "n"):
        return None
    settings = plan.settings.model_copy(update={name: _frozen(held[name]) for name in GROWING})
    explainers = dict(zip(plan.settings.interpreters, plan.explainers, strict=True))
    shown = [explainers[name] for name in settings.interpreters]
    return AttackPlan.of(settings, replace(plan.select, n=settings.n), shown).stages


def _frozen(value: Any) -> Any:
    """As settings hold what JSON holds in a list."""
    return tuple(value) if isinstance(value, list) else value


def _preflight(plan: AttackPlan, classifier: Classifier, chosen: ImageSet, batch_size: int) -> None:
    """The choice of targets, and one step of each attack on one image: whatever cannot be attacked fails at once."""
    target = targets_of(plan.targets, in_batches(chosen, batch_size), classifier)
    if (region := plan.attacks[0].craft.region) is not None:
        region.inside(chosen.ids, *chosen.read(0).shape[1:])
    rules = [each.goal.rule for each in plan.interpreters if isinstance(each.goal, TargetMaps)]
    for rule in rules[:1]:
        keys = image_keys(chosen.ids)
        pool = Pool(keys, chosen.labels, torch.zeros(len(keys), 1, 1))
        rule.maps(Wanted(keys, target, pool), plan.settings.seed)
    for each in plan.attacks:
        if each.map_aware:
            attack, interpreter = _briefly(each.craft.attack), each.craft.attack.interpreter
            with in_one_sentence(f"The model cannot be attacked through {interpreter.name}"):
                Attacker(classifier, attack, interpreter)(chosen.samples([0]).images)


def _remarks(plan: AttackPlan, classifier: Classifier, chosen: ImageSet) -> dict[str, tuple[str, ...]]:
    """What a reader should know of interpreters, above all how others' explanations are followed; by their names."""
    x = chosen.samples([0]).images.to(classifier.device)
    found = {each.name: remarks_on(each, classifier, x) for each in plan.explainers}
    return {name: remarks for name, remarks in found.items() if remarks}


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
