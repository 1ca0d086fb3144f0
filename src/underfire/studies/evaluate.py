"""What somebody else's attack did: class, confidence and map of given images beside those of the benign ones.

    settings, pairs = opened(settings, classifier)
    run = execute(settings, classifier, pairs, Path("runs/x"), Manner("…"))

The images are measured like those of our own attacks, into the same table; nothing is attacked.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from underfire.attacks.target_classes import RandomClass, TargetClass, target_class_named
from underfire.core.losses import confidence
from underfire.data.class_names import first_picture, for_classifier
from underfire.data.corruptions import FILES
from underfire.data.image_set import ImageSet
from underfire.data.pairs import made_of, open_attacked, paired
from underfire.interpreters import Interpreter
from underfire.models.classifier import Classifier
from underfire.runs.choosing import choose, in_batches, keep
from underfire.runs.compute import logits_of, targets_of
from underfire.runs.execute import Chosen, Experiment, Manner, preflight
from underfire.runs.execute import execute as execute_experiment
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES, outcomes_schema
from underfire.runs.plan import (
    MeasuredImages,
    Planned,
    PlannedInterpreter,
    measured_stages,
    planned_maps,
    saved,
    scored_maps,
    variation,
)
from underfire.runs.reused import attacked_of_run, is_run
from underfire.runs.settings import sized
from underfire.runs.specs import Given, Select, TargetClasses
from underfire.runs.store import Store
from underfire.runs.study_settings import EvaluateSettings
from underfire.studies.base import Subject, chosen, identity, select_from
from underfire.studies.outcome_rows import fooled, outcome_table

NAME = "evaluate"  # in run.json


@dataclass(frozen=True)
class GivenPairs:
    """All benign images, and under their names the attacked ones of some of them."""

    benign: ImageSet
    attacked: ImageSet

    @property
    def first(self) -> ImageSet:
        """The benign images that were attacked."""
        made = set(self.attacked.ids)
        return self.benign.take([i for i, name in enumerate(self.benign.ids) if name in made])


@dataclass(frozen=True)
class GivenAttack:
    """Somebody's attack, of which nothing is known but its images: what is measured of them."""

    name: str
    scored: MeasuredImages
    files: Mapping[str, MeasuredImages]
    solver: None = None
    map_aware: None = None
    evades: None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """The pairs, the interpreters, the attack, and the stages that hold it all."""

    given: Given
    interpreters: tuple[PlannedInterpreter, ...]
    attack: GivenAttack
    stages: tuple[Planned, ...]

    @classmethod
    def of(
        cls,
        settings: EvaluateSettings,
        select: Select,
        pictures: str,
        explainers: Sequence[Interpreter],
        rule: TargetClass | None,
    ) -> "EvaluationPlan":
        targets = None if rule is None else TargetClasses(select, settings.seed, rule)
        given, interpreters = Given(select, pictures, targets), list[PlannedInterpreter]()
        for each in explainers:
            benign = scored_maps(select, each)
            interpreters.append(PlannedInterpreter(each, benign, variation(settings, benign[0]), benign[0], None))
        scored = MeasuredImages(given, {each.name: scored_maps(given, each) for each in explainers})
        files = {name: saved(given, form, explainers) for name, form in FILES.items()}
        attack = GivenAttack(settings.name, scored, files)
        return cls(given, tuple(interpreters), attack, tuple(_stages(given, interpreters, attack)))


def _stages(given: Given, interpreters: list[PlannedInterpreter], attack: GivenAttack) -> Iterator[Planned]:
    yield Planned("images", given.of, "image", "benign", None)
    if given.targets is not None:
        yield Planned("targets", given.targets, "step", "benign", None)
    for each in interpreters:
        yield from planned_maps(f"benign maps, {each.name}", each.benign, "benign", each.name)
        if each.variation is not None:
            yield Planned(f"natural variation, {each.name}", each.variation, "step", "benign", each.name)
    yield from measured_stages(attack)


def opened(settings: EvaluateSettings, classifier: Classifier) -> tuple[EvaluateSettings, GivenPairs]:
    """The pairs, and the settings with what makes benign images of the size of the attacked ones.

    Attacked images are taken as they are; so are benign ones, unless they have another size and none is asked for: then
    they are resized and cropped as the classifier's weights want. UnderfireError for pairs that do not match.
    """
    benign = for_classifier(settings.open_images(), classifier)
    attacked = paired(benign, open_given(settings.attacked, benign))
    pairs = GivenPairs(benign, attacked)
    before, after = first_picture(pairs.first), first_picture(attacked)
    differ = before is not None and after is not None and before.shape != after.shape
    if differ and settings.crop is None and settings.resize is None:
        settings = sized(settings, classifier.origin)
        pairs = replace(pairs, benign=for_classifier(settings.open_images(), classifier))
    return settings, pairs


def open_given(named: str, benign: ImageSet) -> ImageSet:
    """The pictures of a folder or an .npz, or those of a run's attack."""
    path = Path(named)
    return open_attacked(path, benign) if path.exists() and not is_run(named) else attacked_of_run(named)


def execute(
    settings: EvaluateSettings,
    classifier: Classifier,
    pairs: GivenPairs,
    out: Path,
    manner: Manner,
    explainers: Sequence[Interpreter] | None = None,
    rule: TargetClass | None = None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings."""
    made = experiment(settings, classifier, pairs, manner.batch_size, explainers, rule)
    return execute_experiment(made, out, classifier, manner)


def experiment(
    settings: EvaluateSettings,
    classifier: Classifier,
    pairs: GivenPairs,
    batch_size: int = 16,
    explainers: Sequence[Interpreter] | None = None,
    rule: TargetClass | None = None,
) -> Experiment:
    """The measurements; what cannot be classified or explained is found out when the images are chosen.

    Explainers and a rule for target classes that are given stand in for those that the settings name.
    """
    if rule is None and settings.target_class is not None:
        rule = target_class_named(settings.target_class)
    possible = rule or RandomClass()
    candidates, subject = possible.candidates(pairs.first), Subject(classifier, pairs.benign)
    asked, settings = settings, settings.model_copy(update={"n": min(settings.n or len(candidates), len(candidates))})
    select = select_from(settings, classifier, possible.candidates(pairs.benign))
    pictures = _digest(pairs.attacked)
    shown = tuple(explainers or settings.explainers())
    plan = EvaluationPlan.of(settings, select, pictures, shown, rule)

    def choose_pairs() -> Chosen:
        selection = choose(select, candidates, classifier)
        benign = selection.chosen
        attacked = made_of(benign, pairs.attacked)
        judged = _judged(plan.given, benign, attacked, classifier, batch_size)
        preflight(shown, classifier, benign.samples([0]))
        requested = asked.n or len(benign)
        found = chosen(settings, subject, select, selection, {}, requested=requested, pairs=len(pairs.attacked))
        return replace(found, keep=partial(_keep, found.keep, plan.given, attacked, judged))

    spec = identity(settings, select, NAME, attacked_digest=pictures)
    table = partial(outcome_table, plan.interpreters, (plan.attack,), select)
    continues = partial(_continued, settings, plan, spec)
    repeating = asked if explainers is None else None
    stages, columns = plan.stages, outcomes_schema()
    return Experiment(spec, choose_pairs, stages, OUTCOMES, columns, table, pairs.benign, continues, asked=repeating)


def _keep(
    keep_benign: Callable[[Store], None], given: Given, attacked: ImageSet, judged: Mapping[str, Tensor], store: Store
) -> None:
    """The attacked images before the benign ones, of which a run is asked whether its images are there."""
    keep(given, attacked, store, **judged)
    keep_benign(store)


def _judged(
    given: Given, benign: ImageSet, attacked: ImageSet, classifier: Classifier, batch_size: int
) -> dict[str, Tensor]:
    """The class that is reported of each attacked image, and whether that is what the attack wanted."""
    logits = torch.cat([logits_of(classifier, each.images) for each in in_batches(attacked, batch_size)])
    predicted = logits.argmax(1)
    target = None if given.targets is None else targets_of(given.targets, in_batches(benign, batch_size), classifier)
    return {
        "predicted": predicted,
        "confidence": confidence(logits, predicted if target is None else target),
        "success": fooled(predicted, benign.labels, target),
    }


def _digest(attacked: ImageSet) -> str:
    """A hash of which pictures there are and of what they contain."""
    return hashlib.blake2b(json.dumps(attacked.content_hashes(attacked.ids)).encode(), digest_size=16).hexdigest()


def _continued(
    settings: EvaluateSettings, plan: EvaluationPlan, spec: Mapping[str, Any], held: Mapping[str, Any]
) -> tuple[Planned, ...] | None:
    """The stages of a run of fewer pairs or interpreters that one of this spec goes on with."""
    more = {name: spec[name] for name in ("n", "interpreters")}
    if {**held, **more} != spec or held["n"] > spec["n"] or set(held["interpreters"]) - set(spec["interpreters"]):
        return None
    smaller = settings.model_copy(update={"n": held["n"], "interpreters": tuple(held["interpreters"])})
    explainers = {name: each.interpreter for name, each in zip(settings.interpreters, plan.interpreters, strict=True)}
    select, targets = replace(plan.given.of, n=smaller.n), plan.given.targets
    rule = None if targets is None else targets.rule
    shown = [explainers[name] for name in smaller.interpreters]
    return EvaluationPlan.of(smaller, select, plan.given.pictures, shown, rule).stages
