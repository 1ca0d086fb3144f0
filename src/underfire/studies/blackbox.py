"""How much must an attacker know? White box, surrogates, queries, and queries that begin where surrogates led.

    made = experiment(settings, Subject(classifier, image_set))
    run = execute(made, Path("runs/x"), classifier, Manner("…"))
    rows = summarise(attempts(run))

Per interpreter, on the same images and targets:

    PGD            knows the classifier and ignores the map
    white box      ADV2: knows both
    surrogate      ADV2 against one or several other classifiers, and the same interpreter on these; asks nothing
    queries        sees the logits and the deployed map of what it asks for (`attacks.queries`), by budgets
    seeded queries the same, from where the surrogate's attack ended

All is measured on the model that is meant, on images as PNG files. An image is betrayed where its target class is
reported and the map is plausible (`metrics.betrayal`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import pyarrow as pa
import torch
from pydantic import Field

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import BUDGETS, SOLVERS, STANDARD
from underfire.core.errors import UnderfireError
from underfire.core.types import Images
from underfire.data.corruptions import PNG
from underfire.interpreters import Interpreter
from underfire.interpreters.jointly import Jointly
from underfire.interpreters.protocol import ClosedForm
from underfire.models.classifier import Classifier
from underfire.models.committee import together
from underfire.runs.attack_settings import AttackSettings, Prescribed, Varied
from underfire.runs.choosing import choose
from underfire.runs.compute import Context, in_one_sentence
from underfire.runs.execute import Chosen, Experiment, Manner, perform, preflight
from underfire.runs.folder import Run
from underfire.runs.plan import (
    AttackPlan,
    Planned,
    PlannedInterpreter,
    before_attacks,
    once,
    planned_maps,
    scored_maps,
)
from underfire.runs.settings import Inputs, Names
from underfire.runs.specs import Craft, CraftElsewhere, Explain, ExplainElsewhere, Saved, Select, describe
from underfire.runs.store import Store
from underfire.runs.study_settings import StudySettings
from underfire.studies.base import Study, Subject, chosen, identity, per_image, select_from
from underfire.studies.blackbox_views import SCHEMA, TABLE, figures, tables
from underfire.studies.judged import judged
from underfire.studies.stage_rows import StageRows, by_parts

PLAIN, WHITE, SURROGATE, QUERIES, SEEDED = "PGD", "white box", "surrogate", "queries", "seeded queries"


class BlackboxSettings(Inputs, Prescribed, Varied):
    """Everything that decides what a run computes."""

    surrogates: Names = ()
    queries: int = Field(default=BUDGETS[STANDARD], ge=4)
    dear_queries: int = Field(default=0, ge=0)  # where explanations take an optimisation or draws; 0: nothing is asked

    def budgets(self, interpreter: Interpreter) -> tuple[int, ...]:
        """Those of all efforts that are smaller, and the one that is asked for."""
        most = self.queries if isinstance(interpreter, ClosedForm) else self.dear_queries
        return (*(each for each in BUDGETS.values() if each < most), most) if most else ()

    def attacks(self) -> AttackSettings:
        """The white box and PGD."""
        shared = set(AttackSettings.model_fields) & set(type(self).model_fields) - {"queries"}
        return AttackSettings(**{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class Attempt:
    """Images that one attacker made for one interpreter, with so many queries if any."""

    attacker: str
    shown: PlannedInterpreter
    craft: Craft
    queries: int | None = None

    @property
    def saved(self) -> Saved:
        return Saved(self.craft, PNG())

    @property
    def maps(self) -> tuple[Explain, ...]:
        return scored_maps(self.saved, self.shown.interpreter)

    @property
    def name(self) -> str:
        """As readers of the run find the images."""
        return self.attacker if self.queries is None else f"{self.attacker} {self.queries}"


@dataclass(frozen=True)
class Attackers:
    """Makes all attempts; `model` is the surrogates' fingerprint, None where there are none."""

    settings: BlackboxSettings
    made: AttackPlan
    model: str | None

    def attempts(self) -> Iterator[Attempt]:
        """Interpreter by interpreter, the attackers from the one who knows most on."""
        plain, *white = self.made.attacks
        for shown, aware in zip(self.made.interpreters, white, strict=True):
            yield Attempt(PLAIN, shown, plain.craft)
            yield Attempt(WHITE, shown, aware.craft)
            seed = None if self.model is None else self._on_surrogates(aware.craft.attack, shown, self.model)
            if seed is not None:
                yield Attempt(SURROGATE, shown, seed)
            budgets = self.settings.budgets(shown.interpreter)
            for queries in budgets:
                yield Attempt(QUERIES, shown, self._asking(shown, queries, None), queries)
            for queries in budgets if seed is not None else ():
                yield Attempt(SEEDED, shown, self._asking(shown, queries, seed), queries)

    def stages(self) -> Iterator[Planned]:
        """Each once, in the order in which they are computed."""
        return once(self._stages())

    def _stages(self) -> Iterator[Planned]:
        yield from before_attacks(self.made.targets, self.made.interpreters)
        for each in self.attempts():
            name, label = each.shown.name, f"{each.name}, {each.shown.name}"
            if isinstance(each.craft.goal, ExplainElsewhere):
                yield Planned(f"benign maps on surrogates, {name}", each.craft.goal, "step", "benign", name)
            if isinstance(each.craft.start, Craft):
                yield Planned(f"start of {label}", each.craft.start, "step", each.craft.start.attack.name, None)
            yield Planned(label, each.craft, "image", each.name, None if each.attacker == PLAIN else name)
            yield Planned(f"{label} as png", each.saved, "step", each.name, name)
            yield from planned_maps(f"{label}, maps", each.maps, each.name, name)

    def _on_surrogates(self, attack: Attack, shown: PlannedInterpreter, model: str) -> CraftElsewhere:
        """The white-box attack against them; no map but theirs is looked at."""
        targets, warm = self.made.targets, attack.warm_start
        if len(self.settings.surrogates) > 1:
            attack = replace(attack, interpreter=self.on_surrogates(attack.interpreter), judges=())
        goal = ExplainElsewhere(targets.of, self.on_surrogates(shown.interpreter), model)
        start = None if warm is None else CraftElsewhere(targets, warm, None, None, model=model)
        return CraftElsewhere(targets, attack, goal, start, model=model)

    def on_surrogates(self, interpreter: Interpreter) -> Interpreter:
        """The interpreter on all surrogates."""
        return Jointly(interpreter) if len(self.settings.surrogates) > 1 else interpreter

    def _asking(self, shown: PlannedInterpreter, queries: int, seed: Craft | None) -> Craft:
        eps = self.settings.eps
        attack = solvers.map_aware(SOLVERS["square"], shown.interpreter, queries=queries, eps=eps)
        return Craft(self.made.targets, attack, shown.goal, seed, noise=shown.noise)


def experiment(settings: BlackboxSettings, subject: Subject) -> Experiment:
    """The attacks; what cannot be classified or explained, by the surrogates as well, is found out at the start."""
    classifier, select = subject.classifier, select_from(settings, subject.classifier, subject.image_set)
    surrogate = _surrogate(settings, subject)
    model = None if surrogate is None else surrogate.fingerprint()
    attackers = Attackers(settings, AttackPlan.of(settings.attacks(), select), model)

    def choose_images() -> Chosen:
        selection = choose(select, subject.image_set, classifier)
        first, explainers = selection.chosen.samples([0]), settings.explainers()
        preflight(explainers, classifier, first)
        if surrogate is not None:
            _check_classes(surrogate, classifier, first.images)
            preflight(map(attackers.on_surrogates, explainers), surrogate, first)
        says = {"recipe": describe([each.craft.attack for each in attackers.attempts()])}
        return chosen(settings, subject, select, selection, says)

    digests = {} if model is None else {"surrogate_fingerprint": model}
    return Experiment(
        identity(settings, select, "blackbox", **digests),
        choose_images,
        tuple(attackers.stages()),
        TABLE,
        SCHEMA,
        partial(blackbox_table, attackers, select),
        subject.image_set,
        perform=partial(_perform, surrogate),
    )


def _surrogate(settings: BlackboxSettings, subject: Subject) -> Classifier | None:
    """All that are named as one; None where none is."""
    loaded = []
    for reference in settings.surrogates:
        name, _, weights = reference.partition("@")
        loaded.append(Classifier.load(name, weights or None, settings.normalize, device=subject.classifier.device))
    return together(loaded) if loaded else None


def _check_classes(surrogate: Classifier, classifier: Classifier, image: Images) -> None:
    with torch.no_grad(), in_one_sentence("The surrogates cannot classify these images"):
        known, own = (each(image.to(each.device)).shape[1] for each in (surrogate, classifier))
    if known != own:
        raise UnderfireError(
            f"The surrogates have {known} classes and the model has {own}; name others of its classes."
        )


def _perform(
    surrogate: Classifier | None,
    stages: Iterable[Planned],
    ids: tuple[str, ...],
    context: Context,
    run: Run,
    manner: Manner,
) -> bool:
    """Stages that name another classifier are computed with the surrogates, by this process."""
    computed = False
    for elsewhere, some in groupby(stages, key=lambda each: isinstance(each.spec, CraftElsewhere | ExplainElsewhere)):
        if elsewhere and surrogate is not None:
            computed |= perform(some, ids, replace(context, classifier=surrogate), run, replace(manner, crew=None))
        else:
            computed |= perform(some, ids, context, run, manner)
    return computed


def blackbox_table(attackers: Attackers, select: Select, ids: tuple[str, ...], store: Store) -> Iterator[pa.Table]:
    """One row per image and attempt."""
    for attempt in attackers.attempts():
        yield by_parts(ids, store, partial(_rows, attempt, select))


def _rows(attempt: Attempt, select: Select, held: StageRows) -> pa.Table:
    found, varied = judged(held, attempt.saved, attempt.shown), attempt.shown.variation is not None
    return per_image(
        SCHEMA,
        held.ids,
        interpreter=attempt.shown.name,
        attacker=attempt.attacker,
        queries=attempt.queries,
        class_true=held.of(select, "label"),
        class_target=held.of(attempt.craft.of, "target"),
        class_predicted=found.predicted,
        map_l1=found.moved["map_l1"].tolist(),
        iou_mean=pa.array(found.moved["iou_mean"], from_pandas=True),
        natural_l1=pa.array(found.natural_l1, from_pandas=True),
        betrayed_overlap=found.betrayed["overlap"].tolist(),
        betrayed_natural=found.betrayed["natural"].tolist() if varied else None,
    )


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    return experiment(settings_for(request), subject)


def settings_for(request: StudySettings) -> BlackboxSettings:
    """The request's own; unless it says how many queries, those of its scale, where explanations cost a pass or so."""
    asked = {"queries": request.queries or request.sizes.queries, "dear_queries": request.queries or 0}
    return BlackboxSettings(**{**request.inputs(), **request.recipe_given(), "surrogates": request.surrogates, **asked})


STUDY = Study(_experiment, (TABLE,), tables, figures)
