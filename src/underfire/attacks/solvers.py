"""The named attacks: each solver's attack that ignores the map and its ADV2, by a recipe (see `attacks.recipes`).

A solver is a way to move an image: "pgd" changes pixels within a ball, "stadv" bends the image by a flow, "square"
changes pixels within a ball and follows no gradient.

    attack = adv2(CAM())                        # annealed, of standard effort
    attack = adv2(CAM(), effort="thorough")
    attack = adv2(CAM(), recipe="paper")
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from underfire.attacks.attack import Attack
from underfire.attacks.evasion import Evaded
from underfire.attacks.names import NORMS, SOLVERS, AttackSolver
from underfire.attacks.perturbations import GridPixels, Pixels
from underfire.attacks.queries import looks_within
from underfire.attacks.recipes import Recipe, evasion, map_attack, rungs_of
from underfire.core.checks import check_count, check_number
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant, Schedule
from underfire.interpreters.protocol import Blind, Interpreter


def pgd(
    *,
    eps: float | None = None,
    norm: str = "linf",
    recipe: str = "annealed",
    steps: int | None = None,
    on_grid: bool = False,
) -> Attack:
    """Plain PGD (Eq. 1): fools the classifier and ignores the interpreter; the baseline of every table."""
    return plain(of_norm(norm), recipe=recipe, steps=steps, on_grid=on_grid, eps=eps)


def adv2(
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    norm: str = "linf",
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Evaded] = (),
    seed: int = 0,
    on_grid: bool = False,
) -> Attack:
    """ADV2 on PGD (Eq. 3 and 4): fools the classifier and shows the target map, benign by default."""
    return map_aware(
        of_norm(norm),
        interpreter,
        recipe=recipe,
        effort=effort,
        steps=steps,
        map_weight=map_weight,
        evade=evade,
        seed=seed,
        on_grid=on_grid,
        eps=eps,
    )


def of_norm(norm: str) -> AttackSolver:
    """The solver that keeps a change of pixel values small in this norm: linf or l2."""
    if norm not in NORMS:
        raise UnderfireError(f"There is no norm '{norm}'; the norms are {', '.join(NORMS)}.")
    return SOLVERS[NORMS[norm]]


def stadv(*, recipe: str = "annealed", steps: int | None = None) -> Attack:
    """Plain StAdv (Xiao et al. 2018): bends the image until it fools the classifier."""
    return plain(SOLVERS["stadv"], recipe=recipe, steps=steps)


def adv2_stadv(
    interpreter: Interpreter,
    *,
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Evaded] = (),
    seed: int = 0,
) -> Attack:
    """ADV2 on StAdv (Eq. 14): bends the image until it fools the classifier and shows the target map."""
    return map_aware(
        SOLVERS["stadv"],
        interpreter,
        recipe=recipe,
        effort=effort,
        steps=steps,
        map_weight=map_weight,
        evade=evade,
        seed=seed,
    )


def plain(
    solver: AttackSolver,
    *,
    recipe: str = "annealed",
    steps: int | None = None,
    queries: int | None = None,
    on_grid: bool = False,
    **budget: Any,
) -> Attack:
    """A solver's attack that ignores the map; `budget` overrides fields of its perturbation.

    It takes so many steps, or those that so many queries allow.
    """
    own = _within(budget, solver.recipe(recipe), on_grid)
    steps = _length(steps, queries, Blind())
    steps = own.plain_steps if steps is None else check_count("steps", steps, least=0)
    return Attack(
        name=solver.name,
        interpreter=Blind(),
        perturbation=own.perturbation,
        rule=own.rule((steps,)),
        weights=_constant(own.further),
        rungs=(steps,),
        warm_start=_warm_start(own),
    )


def map_aware(
    solver: AttackSolver,
    interpreter: Interpreter,
    *,
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    queries: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Evaded] = (),
    seed: int = 0,
    on_grid: bool = False,
    **budget: Any,
) -> Attack:
    """A solver's ADV2; `budget` overrides fields of its perturbation.

    Its effort is quick, standard (the default) or thorough; `steps`, or those that so many `queries` allow, are one
    rung, which every image takes whole.
    """
    own = _within(budget, solver.recipe(recipe), on_grid)
    parameters = map_attack(own, interpreter)
    if evade and not solver.hides:
        raise UnderfireError(f"Solver '{solver.name}' hides from no detector; leave out what it should evade.")
    hidden = evasion(own, interpreter, evade)
    model = parameters.model(interpreter)
    rungs = rungs_of(parameters, recipe, effort, _length(steps, queries, model))
    weight = parameters.weight if map_weight is None else check_number("map_weight", map_weight, least=0.0)
    return Attack(
        name=solver.map_aware,
        interpreter=model,
        perturbation=own.perturbation,
        rule=(parameters.rule or own.rule)(rungs),
        weights={
            "map": own.weight(weight, sum(rungs)),
            **_constant({**own.further, **parameters.further}),
        },
        prediction=parameters.prediction(sum(rungs), seed),
        extra_terms=hidden.terms,
        rungs=rungs,
        afresh=parameters.afresh,
        judges=parameters.judges(interpreter),
        quantum=parameters.quantum,
        warm_start=_warm_start(own),
        anchor=hidden.anchor,
    )


def _length(steps: int | None, queries: int | None, interpreter: Interpreter) -> int | None:
    """In steps; None where neither is given."""
    return steps if queries is None else looks_within(queries, interpreter)


def _warm_start(recipe: Recipe) -> Attack | None:
    """None of no steps."""
    if not recipe.warm_steps:
        return None
    return Attack(
        name="warm-start",
        interpreter=Blind(),
        perturbation=recipe.perturbation,
        rule=recipe.warm_rule,
        weights=_constant(recipe.further),
        rungs=(recipe.warm_steps,),
    )


def _within(budget: Mapping[str, Any], recipe: Recipe, on_grid: bool) -> Recipe:
    """The recipe with what is given of its perturbation's fields, on the grid of 8 bits if that is asked for."""
    given = {name: value for name, value in budget.items() if value is not None}
    perturbation: Any = recipe.perturbation
    if on_grid and not isinstance(perturbation, Pixels):
        raise UnderfireError(
            "Only pixels that are changed can stay on the grid of 8 bits; leave out on_grid (--on-grid)."
        )
    changed = replace(perturbation, **given) if given else perturbation
    return replace(recipe, perturbation=GridPixels(changed.eps) if on_grid else changed)


def _constant(weights: Mapping[str, float]) -> Mapping[str, Schedule]:
    return {name: Constant(weight) for name, weight in weights.items()}
