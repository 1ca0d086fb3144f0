"""Does the attack work? A solver's plain attack against its ADV2 for each interpreter, on correctly classified images
(Tables 3 and 12 with PGD, Fig. 9 and 10 with StAdv).

With another target map than the benign one: can the map be led elsewhere (Tables 6 to 8)?

run = execute(settings, classifier, image_set, Path("runs/x"), command="…")
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor

from underfire.api import Attacker
from underfire.attack import Attack
from underfire.classifiers import Classifier
from underfire.data import ImageSet, Selection
from underfire.interpreters import Interpreter
from underfire.metrics import compare_maps, linf, map_l1
from underfire.presets import SOLVERS
from underfire.rng import image_keys
from underfire.stages import (
    Aim,
    Craft,
    Explain,
    Rescore,
    Select,
    Sketch,
    Spec,
    choose,
    describe,
    in_one_sentence,
    keep,
    key,
    targets_of,
)
from underfire.store import COLUMNS, COLUMNS_SCHEMA, OUTCOMES, Run, Store
from underfire.studies.runs import Chosen, Inputs, Planned, Report, Study, carry_out, listed, surroundings
from underfire.target_classes import target_class_named
from underfire.target_maps import NOBODY, Pool, Wanted, target_map_named
from underfire.types import Samples, UnderfireError


class Settings(Inputs):
    """Everything that decides what a run computes; running again with other settings is another run."""

    solver: Literal["pgd", "stadv"] = "pgd"
    recipe: Literal["annealed", "paper"] = "annealed"
    eps: float | None = Field(default=None, gt=0, le=1)
    steps: int | None = Field(default=None, ge=1)
    target_class: str = "random"
    target_map: str = "benign"

    @model_validator(mode="after")
    def _budget_of_this_solver(self) -> "Settings":
        if self.eps is not None and "eps" not in SOLVERS[self.solver].budget:
            raise UnderfireError(f"Solver '{self.solver}' moves pixels in place of changing them; leave out --eps.")
        return self


def execute(
    settings: Settings,
    classifier: Classifier,
    image_set: ImageSet,
    out: Path,
    *,
    command: str,
    width: int = 16,
    on_progress: Report = lambda planned, progress: None,
) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings.

    What cannot be classified, explained or attacked is found out before anything is written.
    """
    candidates = target_class_named(settings.target_class).candidates(image_set)
    select = Select(classifier.fingerprint(), candidates.digest, settings.n, settings.seed)

    def chosen() -> Chosen:
        selection = choose(select, candidates, classifier)
        _rehearse(settings, select, classifier, selection.samples, width)
        passed_over = len(image_set) - len(candidates)
        description = _describe(settings, select, classifier, image_set, selection, passed_over)
        return Chosen(description, partial(keep, select, selection.samples))

    stages, table = tuple(plan(settings, select)), partial(outcome_table, settings, select)
    study = Study(_spec(settings, select), stages, OUTCOMES, table)
    return carry_out(study, chosen, out, classifier, command=command, width=width, on_progress=on_progress)


def recorded(run: Run) -> tuple[Settings, Select]:
    """What an attack's run folder was made with; UnderfireError if it holds no attack or another version's."""
    info = run.info
    try:
        spec = dict(info["spec"])
        select = Select(spec.pop("model_fingerprint"), spec.pop("images_digest"), spec["n"], spec["seed"])
        settings = Settings(**spec)
    except (KeyError, TypeError, ValueError) as problem:
        raise UnderfireError(f"{run.path} holds no attack; make one with: underfire attack --out …") from problem
    if info.get("stages") != listed(plan(settings, select)):
        raise UnderfireError(
            f"{run.path} was made by underfire {info.get('underfire')}, whose attacks are not those of this version, "
            "or with maskers or targets of other content; run the attack again."
        )
    return settings, select


def plan(settings: Settings, select: Select) -> Iterator[Planned]:
    """The stages in the order in which they are computed; shared ones come once."""
    aim, plain = _aim(settings, select), _plain(settings, select)
    baseline = plain.attack.name
    yield Planned("images", select, "image", "benign", None)
    yield Planned("targets", aim, "step", "benign", None)
    yield Planned("warm start", _warm_start(aim, plain.attack), "step", "warm-start", None)
    yield Planned(baseline, plain, "image", baseline, None)
    yield Planned(f"{baseline} in 8 bits", Rescore(plain), "step", baseline, None)
    for interpreter in settings.explainers():
        name, adv2 = interpreter.name, _map_aware(settings, select, interpreter)
        attack = adv2.attack.name
        yield Planned(f"benign maps, {name}", Explain(select, interpreter), "map", "benign", name)
        yield Planned(f"benign maps again, {name}", Explain(select, interpreter, draw=1), "step", "benign", name)
        if isinstance(adv2.goal, Sketch):
            yield Planned(f"target maps, {name}", adv2.goal, "map", "target", name)
        yield Planned(f"{baseline} maps, {name}", Explain(plain, interpreter), "map", baseline, name)
        yield Planned(f"{attack}, {name}", adv2, "image", attack, name)
        yield Planned(f"{attack} maps, {name}", Explain(adv2, interpreter), "map", attack, name)
        yield Planned(f"{attack} in 8 bits, {name}", Rescore(adv2), "step", attack, name)


def crafted(settings: Settings, select: Select) -> Iterator[tuple[str | None, Craft]]:
    """The run's attacks and the interpreter whose map each was after: none, then one after another."""
    yield None, _plain(settings, select)
    for interpreter in settings.explainers():
        yield interpreter.name, _map_aware(settings, select, interpreter)


def outcome_table(settings: Settings, select: Select, ids: tuple[str, ...], store: Store) -> pa.Table:
    """One row per image x attack x interpreter, each attack's map against the target map and the benign one."""
    plain = _plain(settings, select)
    tables = []
    for interpreter in settings.explainers():
        adv2 = _map_aware(settings, select, interpreter)
        assert adv2.goal is not None
        for craft in (plain, adv2):
            tables.append(_outcomes(craft, interpreter, adv2.goal, ids, store))
    return pa.concat_tables(tables)


def _outcomes(
    craft: Craft, interpreter: Interpreter, goal: Explain | Sketch, ids: tuple[str, ...], store: Store
) -> pa.Table:
    def rows(spec: Spec, name: str) -> Tensor:
        return store.read(key(spec), name, ids)

    select, target, shown = craft.of.of, rows(craft.of, "target"), Explain(craft, interpreter)
    benign = Explain(select, interpreter)
    distances = compare_maps(rows(shown, "map"), rows(goal, "map"))
    donors = rows(goal, "donor").tolist() if isinstance(goal, Sketch) else [NOBODY] * len(ids)
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
        **{name: values.tolist() for name, values in distances.items()},
        "benign_l1": map_l1(rows(shown, "map"), rows(benign, "map")).tolist(),
        "target_map_of": [None if donor == NOBODY else ids[donor] for donor in donors],
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


def _aim(settings: Settings, select: Select) -> Aim:
    return Aim(select, settings.seed, target_class_named(settings.target_class))


def _goal(settings: Settings, aim: Aim, interpreter: Interpreter) -> Explain | Sketch:
    """The stage that holds the target maps."""
    benign, rule = Explain(aim.of, interpreter), target_map_named(settings.target_map)
    return benign if rule is None else Sketch(aim, benign, rule, settings.seed)


def _plain(settings: Settings, select: Select) -> Craft:
    aim, attack = _aim(settings, select), SOLVERS[settings.solver].plain(**_recipe(settings))
    return Craft(aim, attack, None, _warm_start(aim, attack))


def _map_aware(settings: Settings, select: Select, interpreter: Interpreter) -> Craft:
    aim, preset = _aim(settings, select), SOLVERS[settings.solver].map_aware
    attack = preset(interpreter, **_recipe(settings), steps=settings.steps, seed=settings.seed)
    return Craft(aim, attack, _goal(settings, aim, interpreter), _warm_start(aim, attack))


def _recipe(settings: Settings) -> dict[str, Any]:
    """What the solver's two presets have in common."""
    budget = {name: getattr(settings, name) for name in SOLVERS[settings.solver].budget}
    return {"recipe": settings.recipe, **budget}


def _warm_start(aim: Aim, attack: Attack) -> Craft:
    assert attack.warm_start is not None
    return Craft(aim, attack.warm_start, None, None)


def _rehearse(settings: Settings, select: Select, classifier: Classifier, samples: Samples, width: int) -> None:
    """The choice of targets, and one step of each attack on one image: whatever cannot be attacked fails at once."""
    aim, target_map, image = _aim(settings, select), target_map_named(settings.target_map), samples.images[:1]
    target = targets_of(aim, samples, classifier, width)
    if target_map is not None:
        keys = image_keys(samples.ids)
        pool = Pool(keys, samples.labels, torch.zeros(len(keys), 1, 1))
        target_map.maps(Wanted(keys, target, pool), settings.seed)
    for interpreter in settings.explainers():
        attack = replace(_map_aware(settings, select, interpreter).attack, steps=1, warm_start=None)
        with in_one_sentence(f"The model cannot be attacked through {interpreter.name}"):
            Attacker(classifier, attack, interpreter)(image)


def _spec(settings: Settings, select: Select) -> dict[str, Any]:
    """What two runs must share to be the same run."""
    return {**settings.model_dump(mode="json"), "model_fingerprint": select.model, "images_digest": select.images}


def _describe(
    settings: Settings,
    select: Select,
    classifier: Classifier,
    image_set: ImageSet,
    selection: Selection,
    passed_over: int,
) -> dict[str, Any]:
    """What run.json says of the model, the images and the attacks."""
    attacks = [_plain(settings, select), *(_map_aware(settings, select, each) for each in settings.explainers())]
    return {
        "recipe": describe([craft.attack for craft in attacks]),
        **surroundings(settings, classifier, image_set),
        "selection": {
            "requested": settings.n,
            "examined": selection.examined,
            "misclassified": selection.misclassified,
            "passed_over": passed_over,
        },
        "skipped": [{"id": name, "reason": reason} for name, reason in selection.skipped],
    }
