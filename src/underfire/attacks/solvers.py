"""The named attacks with their parameters: recipes "paper…" (Zhang et al. 2020) and recipe "annealed" (ours).

A solver is a way to move an image: "pgd" changes pixels within a ball, "stadv" bends the image by a flow. Each has
an attack that ignores the map and an ADV2, and each recipe has its parameters for both.

    paper            400 plain steps (PGD: 1/255; StAdv: Adam, 0.01 pixels), then hundreds of the same size with the
                     map weight rising linearly from c/2 to c; the attack that ignores the map takes 1,000 in all
    paper-densenet   the same with what Tables 10 and 11 have of their own for DenseNet
    paper-isic       the same with what Table 10 has of its own for skin lesions (Q4)
    annealed         60 plain steps, then a few hundred whose size falls by a cosine to 0 with a constant map weight;
                     where the map follows the image smoothly (all but GRAD and MASK) PGD steps with momentum and on a
                     margin in place of the cross-entropy

`evade` makes ADV2 adaptive (A*): it hides from feature squeezing with these squeezers as well. The recipe "paper" meets
bit depth by Algorithm 2; ours treats all squeezers alike, with the gradient that each of them passes on.

The paper's lambda multiplies the *sum* over the map's cells; c multiplies the mean, so c = lambda * h * w on maps of
a 224 x 224 image, whatever the size of the map at hand: 7 x 7 for CAM, and 56 x 56 for GRAD and RTS, which is ours, as
the paper names no grid. Its MASK on StAdv is the exception: as the weight of a sum lambda = 500 would be
thousands of times the others', so it is taken for c. tau multiplies a sum over pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from underfire.attacks.attack import (
    Attack,
    CrossEntropy,
    ExtraTerm,
    Margin,
    PredictionLoss,
    SmoothedCrossEntropy,
)
from underfire.attacks.evasion import Likeness, SqueezeConsistency
from underfire.attacks.names import SOLVERS, AttackSolver
from underfire.attacks.perturbations import Flow, Levels, Perturbation, Pixels
from underfire.attacks.steps import AdamStep, MomentumSignStep, SignStep, StepRule, TwoPhaseStep
from underfire.core.checks import check_count, check_number
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant, Cosine, Linear, Schedule
from underfire.detection.squeezers import BitDepth, Squeezer
from underfire.interpreters.ensemble import Ensemble
from underfire.interpreters.grad import GRAD
from underfire.interpreters.input_gradients import SmoothedReLU
from underfire.interpreters.mask.attacker import Unrolled
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.protocol import Blind, Interpreter
from underfire.interpreters.relu_gates import PaperGate


@dataclass(frozen=True)
class MapAttack:
    """How a recipe attacks one interpreter: steps after the warm start and the final map weight c."""

    steps: int
    weight: float
    further: Mapping[str, float] = field(default_factory=dict)  # weights of other terms, by name
    rule: Callable[[int], StepRule] | None = None  # of the number of steps; None for the recipe's own
    quantum: int = 50
    model: Callable[[Interpreter], Interpreter] = lambda interpreter: interpreter  # the attacker's model of it
    prediction: Callable[[int, int], PredictionLoss] = lambda steps, seed: CrossEntropy()


@dataclass(frozen=True)
class Evasion:
    """What hides an attack: further terms, all of one weight, and the attack that must be run first, if any."""

    terms: tuple[ExtraTerm, ...]
    weight: float
    anchor: Attack | None = None


@dataclass(frozen=True)
class Recipe:
    """A solver's family of attacks; `map_attacks` goes by interpreter name, any without a row is attacked like CAM."""

    perturbation: Perturbation
    warm_steps: int
    warm_rule: StepRule
    plain_steps: int  # of the attack that ignores the map, after its warm start
    rule: Callable[[int], StepRule]  # of the number of steps
    weight: Callable[[float, int], Schedule]  # of the final weight and the number of steps
    map_attacks: Mapping[str, MapAttack]
    evasion: Callable[[Sequence[Squeezer], Perturbation], Evasion]
    further: Mapping[str, float] = field(default_factory=dict)  # weights of other terms in all its attacks, by name


def _with_paper_gate(interpreter: Interpreter) -> Interpreter:
    if not isinstance(interpreter, GRAD):
        raise UnderfireError(_taken("grad"))
    return replace(interpreter, input_gradient=SmoothedReLU(PaperGate(tau=1e-4)))


def _unrolled(interpreter: Interpreter) -> Interpreter:
    if not isinstance(interpreter, MASK):
        raise UnderfireError(_taken("mask"))
    return replace(interpreter, attacker=Unrolled(follow=4, lookahead=4))


def _taken(name: str) -> str:
    return f"An interpreter of your own is named '{name}', as one of underfire's is; give it a name of its own."


def _search(steps: int) -> StepRule:
    return TwoPhaseStep(max_step=Constant(0.08), prediction_step=0.05, floor=0.95, bisections=12)


def _annealed_momentum(steps: int) -> StepRule:
    return MomentumSignStep(Cosine(2 / 255, 0.0, steps))


def _flowing(steps: int) -> StepRule:
    return AdamStep(Cosine(0.1, 0.0, steps))


def _margin(steps: int, seed: int) -> PredictionLoss:
    return Margin()


def _paper_smoothing(steps: int, seed: int) -> PredictionLoss:
    return SmoothedCrossEntropy(Linear(0.05, 0.01, steps), seed)


def _agreement(squeezers: Sequence[Squeezer], perturbation: Perturbation) -> Evasion:
    return Evasion(tuple(SqueezeConsistency(each) for each in squeezers), weight=0.1)


def _algorithm_2(squeezers: Sequence[Squeezer], perturbation: Perturbation) -> Evasion:
    """SqueezeConsistency with smoothing squeezers, and likeness to an image of the coarsest bit depth."""
    smoothing = tuple(SqueezeConsistency(each) for each in squeezers if not isinstance(each, BitDepth))
    depths = [each.bits for each in squeezers if isinstance(each, BitDepth)]
    if not depths:
        return Evasion(smoothing, weight=1.0)
    bits, within = min(depths), perturbation if isinstance(perturbation, Pixels) else Pixels()
    rule = SignStep(Constant(1 / 2**bits))
    anchor = Attack(f"pgd-on-bits:{bits}", Blind(), Levels(bits, within.eps), rule, steps=400)
    return Evasion((*smoothing, Likeness()), weight=1.0, anchor=anchor)


def _but(recipe: Recipe, **rows: Mapping[str, Any]) -> Recipe:
    """The recipe with these fields of these interpreters' rows."""
    changed = {name: replace(recipe.map_attacks[name], **fields) for name, fields in rows.items()}
    return replace(recipe, map_attacks={**recipe.map_attacks, **changed})


CELLS = 56 * 56  # of the maps of GRAD and RTS at 224 pixels; the grid is ours, the paper names none

_PAPER = Recipe(
    perturbation=Pixels(0.031),
    warm_steps=400,
    warm_rule=SignStep(Constant(1 / 255)),
    plain_steps=600,
    rule=lambda steps: SignStep(Constant(1 / 255)),
    weight=lambda c, steps: Linear(c / 2, c, steps),
    map_attacks={
        "cam": MapAttack(1200, 0.204 * 7 * 7),
        "grad": MapAttack(800, 0.007 * CELLS, model=_with_paper_gate, prediction=_paper_smoothing),
        "mask": MapAttack(1000, 1.0, {"prediction": 0.0}, rule=_search, model=_unrolled),
        "rts": MapAttack(1200, 0.002 * CELLS, {"encoder": 0.1}),
    },
    evasion=_algorithm_2,
)

RECIPES: Mapping[str, Recipe] = {
    "paper": _PAPER,
    "paper-densenet": _but(_PAPER, rts={"weight": 0.008 * CELLS}),
    "paper-isic": _but(
        _PAPER, cam={"weight": 0.02 * 7 * 7}, rts={"weight": 0.006 * CELLS, "further": {"encoder": 0.0}}
    ),
    "annealed": Recipe(
        perturbation=Pixels(8 / 255),
        warm_steps=60,
        warm_rule=SignStep(Constant(1 / 255)),
        plain_steps=100,
        rule=lambda steps: SignStep(Cosine(2 / 255, 0.0, steps)),
        weight=lambda c, steps: Constant(c),
        map_attacks={
            "cam": MapAttack(100, 20.0, rule=_annealed_momentum, prediction=_margin),
            "grad": MapAttack(150, 20.0),
            "mask": MapAttack(240, 2.5, quantum=120),
            "rts": MapAttack(200, 20.0, {"encoder": 0.1}, rule=_annealed_momentum, prediction=_margin),
        },
        evasion=_agreement,
    ),
}


_FLOW_PAPER = Recipe(
    perturbation=Flow(),
    warm_steps=400,
    warm_rule=AdamStep(Constant(0.01)),
    plain_steps=600,
    rule=lambda steps: AdamStep(Constant(0.01)),
    weight=lambda c, steps: Linear(c / 2, c, steps),
    map_attacks={
        "cam": MapAttack(600, 0.653 * 7 * 7),
        "grad": MapAttack(800, 0.023 * CELLS, model=_with_paper_gate, prediction=_paper_smoothing),
        "mask": MapAttack(1000, 500.0, {"cost": 0.004}, model=_unrolled),
        "rts": MapAttack(600, 0.0408 * CELLS, {"encoder": 0.1}),
    },
    evasion=_algorithm_2,
    further={"cost": 0.0005},
)

FLOW_RECIPES: Mapping[str, Recipe] = {
    "paper": _FLOW_PAPER,
    "paper-densenet": _but(_FLOW_PAPER, mask={"further": {"cost": 0.005}}, rts={"weight": 0.0612 * CELLS}),
    "paper-isic": _FLOW_PAPER,  # Table 11 has no others for skin lesions
    "annealed": Recipe(
        perturbation=Flow(),
        warm_steps=60,
        warm_rule=AdamStep(Constant(0.05)),
        plain_steps=100,
        rule=_flowing,
        weight=lambda c, steps: Constant(c),
        map_attacks={
            "cam": MapAttack(200, 100.0, prediction=_margin),
            "grad": MapAttack(150, 50.0),
            "mask": MapAttack(240, 10.0, quantum=120),
            "rts": MapAttack(200, 100.0, {"encoder": 0.1}, prediction=_margin),
        },
        evasion=_agreement,
        further={"cost": 0.0005},
    ),
}


def pgd(*, eps: float | None = None, recipe: str = "annealed", steps: int | None = None) -> Attack:
    """Plain PGD (Eq. 1): fools the classifier and ignores the interpreter; the baseline of every table."""
    return plain(SOLVERS["pgd"], recipe=recipe, steps=steps, eps=eps)


def adv2(
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    recipe: str = "annealed",
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Squeezer] = (),
    seed: int = 0,
) -> Attack:
    """ADV2 on PGD (Eq. 3 and 4): fools the classifier and shows the target map, benign by default."""
    given: dict[str, Any] = {"recipe": recipe, "steps": steps, "map_weight": map_weight, "evade": evade, "seed": seed}
    return map_aware(SOLVERS["pgd"], interpreter, **given, eps=eps)


def stadv(*, recipe: str = "annealed", steps: int | None = None) -> Attack:
    """Plain StAdv (Xiao et al. 2018): bends the image until it fools the classifier."""
    return plain(SOLVERS["stadv"], recipe=recipe, steps=steps)


def adv2_stadv(
    interpreter: Interpreter,
    *,
    recipe: str = "annealed",
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Squeezer] = (),
    seed: int = 0,
) -> Attack:
    """ADV2 on StAdv (Eq. 14): bends the image until it fools the classifier and shows the target map."""
    given: dict[str, Any] = {"recipe": recipe, "steps": steps, "map_weight": map_weight, "evade": evade, "seed": seed}
    return map_aware(SOLVERS["stadv"], interpreter, **given)


def plain(solver: AttackSolver, *, recipe: str = "annealed", steps: int | None = None, **budget: Any) -> Attack:
    """A solver's attack that ignores the map; `budget` overrides fields of its perturbation."""
    own = _within(budget, solver.recipe(recipe))
    steps = own.plain_steps if steps is None else check_count("steps", steps, least=0)
    return Attack(
        name=solver.name,
        interpreter=Blind(),
        perturbation=own.perturbation,
        rule=own.rule(steps),
        weights=_constant(own.further),
        steps=steps,
        warm_start=_warm_start(own),
    )


def map_aware(
    solver: AttackSolver,
    interpreter: Interpreter,
    *,
    recipe: str = "annealed",
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Squeezer] = (),
    seed: int = 0,
    **budget: Any,
) -> Attack:
    """A solver's ADV2; `budget` overrides fields of its perturbation."""
    own = _within(budget, solver.recipe(recipe))
    parameters = map_attack(own, interpreter)
    evasion = own.evasion(evade, own.perturbation)
    steps = parameters.steps if steps is None else check_count("steps", steps, least=0)
    weight = parameters.weight if map_weight is None else check_number("map_weight", map_weight, least=0.0)
    return Attack(
        name=solver.map_aware,
        interpreter=parameters.model(interpreter),
        perturbation=own.perturbation,
        rule=(parameters.rule or own.rule)(steps),
        weights={
            "map": own.weight(weight, steps),
            **_constant({**own.further, **parameters.further}),
            **_constant({term.name: evasion.weight for term in evasion.terms}),
        },
        prediction=parameters.prediction(steps, seed),
        extra_terms=evasion.terms,
        steps=steps,
        quantum=parameters.quantum,
        warm_start=_warm_start(own),
        anchor=evasion.anchor,
    )


def map_attack(recipe: Recipe, interpreter: Interpreter) -> MapAttack:
    """An interpreter's row; for an ensemble as many steps as its slowest member takes, the weights those of all."""
    if not isinstance(interpreter, Ensemble):
        return recipe.map_attacks.get(interpreter.name, recipe.map_attacks["cam"])
    rows = [map_attack(recipe, each) for each in interpreter.members]
    members = tuple(row.model(each) for row, each in zip(rows, interpreter.members, strict=True))
    weights = tuple(row.weight for row in rows)
    return MapAttack(
        steps=max(row.steps for row in rows),
        weight=len(weights) * max(weights),  # so that each member's loss has its own weight
        further={name: weight for row in rows for name, weight in row.further.items() if name != "prediction"},
        quantum=max(row.quantum for row in rows),
        model=lambda _: Ensemble(members, weights),
    )


def _warm_start(recipe: Recipe) -> Attack:
    return Attack(
        name="warm-start",
        interpreter=Blind(),
        perturbation=recipe.perturbation,
        rule=recipe.warm_rule,
        weights=_constant(recipe.further),
        steps=recipe.warm_steps,
    )


def _within(budget: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """The recipe with what is given of its perturbation's fields."""
    given = {name: value for name, value in budget.items() if value is not None}
    perturbation: Any = recipe.perturbation
    return replace(recipe, perturbation=replace(perturbation, **given)) if given else recipe


def _constant(weights: Mapping[str, float]) -> Mapping[str, Schedule]:
    return {name: Constant(weight) for name, weight in weights.items()}
