"""The recipes of attacks: "paper…" (Zhang et al. 2020) and "annealed" (ours), with their parameters.

    paper            400 plain steps (PGD: 1/255; StAdv: Adam, 0.01 pixels), then hundreds of the same size with the
                     map weight rising linearly from c/2 to c; the attack that ignores the map takes 1,000 in all
    paper-densenet   the same with what Tables 10 and 11 have of their own for DenseNet
    paper-isic       the same with what Table 10 has of its own for skin lesions (Q4)
    annealed         60 plain steps, then a ladder of rungs, on each of which the size of a step falls by a cosine to 0
                     with a constant map weight; where the map follows the image smoothly (all but GRAD and MASK) PGD
                     steps with momentum and on a margin in place of the cross-entropy
    patch            annealed, with steps sixteen times as long and any value in reach: for a small region

How many rungs the annealed ladder has is its effort: "quick", "standard" or "thorough". The paper's attacks have one
rung, which every image takes whole, as has an attack whose number of steps is given.

`evade` makes ADV2 adaptive (A*): it hides from feature squeezing with these squeezers as well. The recipe "paper" meets
bit depth by Algorithm 2; ours treats all squeezers alike, with the gradient that each of them passes on.

The paper's lambda multiplies the *sum* over the map's cells; c multiplies the mean, so c = lambda * h * w on maps of
a 224 x 224 image, whatever the size of the map at hand: 7 x 7 for CAM, and 56 x 56 for GRAD and RTS, which is ours, as
the paper names no grid. Its MASK on StAdv is the exception: as the weight of a sum lambda = 500 would be
thousands of times the others', so it is taken for c. tau multiplies a sum over pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from underfire.attacks.attack import QUANTUM, CrossEntropy, Margin, PredictionLoss, SmoothedCrossEntropy
from underfire.attacks.evasion import Evaded, Evasion, agreement, algorithm_2, steadiness
from underfire.attacks.names import EFFORTS, QUICK, STANDARD, THOROUGH
from underfire.attacks.perturbations import Flow, L2Ball, Perturbation, Pixels
from underfire.attacks.steps import AdamStep, MomentumSignStep, SignStep, StepRule, TwoPhaseStep, UnitStep
from underfire.core.checks import check_count
from underfire.core.errors import UnderfireError
from underfire.core.schedules import Constant, Cosine, InTurn, Linear, Schedule
from underfire.detection.scores import Consistency
from underfire.detection.squeezers import Squeezer
from underfire.interpreters.ensemble import Ensemble
from underfire.interpreters.grad import GRAD
from underfire.interpreters.input_gradients import SmoothedReLU
from underfire.interpreters.mask.attacker import Unrolled
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.protocol import Explainer, Interpreter, attacked_like
from underfire.interpreters.relu_gates import PaperGate

Rungs = tuple[int, ...]
Own = TypeVar("Own")


@dataclass(frozen=True)
class MapAttack:
    """How a recipe attacks one interpreter: by effort these rungs after the warm start, and the final map weight c."""

    efforts: Mapping[str, Rungs]
    weight: float
    further: Mapping[str, float] = field(default_factory=dict)  # weights of other terms, by name
    rule: Callable[[Rungs], StepRule] | None = None  # None for the recipe's own
    quantum: int = QUANTUM
    afresh: bool = False  # see `Attack`
    model: Callable[[Interpreter], Interpreter] = lambda interpreter: interpreter  # the attacker's model of it
    judges: Callable[[Interpreter], tuple[Explainer, ...]] = lambda interpreter: ()  # see `Attack`
    prediction: Callable[[int, int], PredictionLoss] = lambda steps, seed: CrossEntropy()


@dataclass(frozen=True)
class Recipe:
    """A solver's family of attacks; `map_attacks` goes by interpreter name, any without a row by `attacked_like`."""

    perturbation: Perturbation
    warm_steps: int
    warm_rule: StepRule
    plain_steps: int  # of the attack that ignores the map, after its warm start
    rule: Callable[[Rungs], StepRule]
    weight: Callable[[float, int], Schedule]  # of the final weight and the number of steps
    map_attacks: Mapping[str, MapAttack]
    evasion: Callable[[Sequence[Squeezer], Perturbation], Evasion]
    further: Mapping[str, float] = field(default_factory=dict)  # weights of other terms in all its attacks, by name


def _with_paper_gate(interpreter: Interpreter) -> Interpreter:
    return replace(_ours(interpreter, GRAD), input_gradient=SmoothedReLU(PaperGate(tau=1e-4)))


def _unrolled(interpreter: Interpreter) -> Interpreter:
    return replace(_ours(interpreter, MASK), attacker=Unrolled(follow=4, lookahead=4))


def _hurried(interpreter: Interpreter) -> tuple[Explainer, ...]:
    """Three draws of MASK after a third of its iterations, which tell more than one whole solution and cost as much."""
    mask = _ours(interpreter, MASK)
    return 3 * (replace(mask, solver=replace(mask.solver, steps=-(-mask.solver.steps // 3))),)


def _ours(interpreter: Interpreter, kind: type[Own]) -> Own:
    """The interpreter; UnderfireError if it only has the name of one of that kind."""
    if not isinstance(interpreter, kind):
        raise UnderfireError(
            f"An interpreter of your own is named '{interpreter.name}', as one of underfire's is; "
            "give it a name of its own."
        )
    return interpreter


def _search(rungs: Rungs) -> StepRule:
    return TwoPhaseStep(max_step=Constant(0.08), prediction_step=0.05, floor=0.95, bisections=12)


def _annealed_momentum(rungs: Rungs) -> StepRule:
    return MomentumSignStep(_annealed(2 / 255, rungs))


def _patch_momentum(rungs: Rungs) -> StepRule:
    return MomentumSignStep(_annealed(PATCH_STEP, rungs))


def _shortening(rungs: Rungs) -> StepRule:
    return UnitStep(_annealed(0.1, rungs))


def _flowing(rungs: Rungs) -> StepRule:
    return AdamStep(_annealed(0.1, rungs))


def _annealed(start: float, rungs: Rungs) -> Schedule:
    """From start to 0 along half a cosine wave, on each rung anew."""
    return InTurn(tuple(Cosine(start, 0.0, steps) for steps in rungs), rungs)


def _once(steps: int) -> Mapping[str, Rungs]:
    """One rung, which leaves no choice of effort."""
    return {STANDARD: (steps,)}


def ladder(*rungs: int) -> Mapping[str, Rungs]:
    """The first rung is quick, all but the last are standard, all of them thorough."""
    return {QUICK: rungs[:1], STANDARD: rungs[:-1], THOROUGH: rungs}


def margin(steps: int, seed: int) -> PredictionLoss:
    return Margin()


def _paper_smoothing(steps: int, seed: int) -> PredictionLoss:
    return SmoothedCrossEntropy(Linear(0.05, 0.01, steps), seed)


def _but(recipe: Recipe, **rows: Mapping[str, Any]) -> Recipe:
    """The recipe with these fields of these interpreters' rows."""
    changed = {name: replace(recipe.map_attacks[name], **fields) for name, fields in rows.items()}
    return replace(recipe, map_attacks={**recipe.map_attacks, **changed})


STEADINESS = 1.0  # the weight of a map that survives harmless changes, over that of the map itself
PATCH_STEP = 32 / 255  # the first step in a region where any value is in reach
CELLS = 56 * 56  # of the maps of GRAD and RTS at 224 pixels; the grid is ours, the paper names none

_PAPER = Recipe(
    perturbation=Pixels(0.031),
    warm_steps=400,
    warm_rule=SignStep(Constant(1 / 255)),
    plain_steps=600,
    rule=lambda rungs: SignStep(Constant(1 / 255)),
    weight=lambda c, steps: Linear(c / 2, c, steps),
    map_attacks={
        "cam": MapAttack(_once(1200), 0.204 * 7 * 7),
        "grad": MapAttack(_once(800), 0.007 * CELLS, model=_with_paper_gate, prediction=_paper_smoothing),
        "mask": MapAttack(_once(1000), 1.0, {"prediction": 0.0}, rule=_search, model=_unrolled),
        "rts": MapAttack(_once(1200), 0.002 * CELLS, {"encoder": 0.1}),
    },
    evasion=algorithm_2,
)

_ANNEALED = Recipe(
    perturbation=Pixels(8 / 255),
    warm_steps=60,
    warm_rule=SignStep(Constant(1 / 255)),
    plain_steps=100,
    rule=lambda rungs: SignStep(_annealed(2 / 255, rungs)),
    weight=lambda c, steps: Constant(c),
    map_attacks={
        "cam": MapAttack(ladder(50, 50, 200), 20.0, rule=_annealed_momentum, prediction=margin),
        "grad": MapAttack(ladder(50, 100, 300), 20.0),
        "mask": MapAttack(ladder(240, 240, 480), 2.5, quantum=120, afresh=True, judges=_hurried),
        "rts": MapAttack(ladder(50, 150, 300), 20.0, {"encoder": 0.1}, rule=_annealed_momentum, prediction=margin),
    },
    evasion=agreement,
)

RECIPES: Mapping[str, Recipe] = {
    "paper": _PAPER,
    "paper-densenet": _but(_PAPER, rts={"weight": 0.008 * CELLS}),
    "paper-isic": _but(
        _PAPER, cam={"weight": 0.02 * 7 * 7}, rts={"weight": 0.006 * CELLS, "further": {"encoder": 0.0}}
    ),
    "annealed": _ANNEALED,
    "patch": replace(
        _ANNEALED,
        perturbation=Pixels(1.0),
        warm_rule=SignStep(Constant(16 / 255)),
        rule=lambda rungs: SignStep(_annealed(PATCH_STEP, rungs)),
        map_attacks={
            name: replace(each, rule=None if each.rule is None else _patch_momentum)
            for name, each in _ANNEALED.map_attacks.items()
        },
    ),
}

L2_RECIPES: Mapping[str, Recipe] = {
    "annealed": replace(
        _ANNEALED,
        perturbation=L2Ball(),
        warm_rule=UnitStep(Constant(0.1), decay=0.0),
        rule=_shortening,
        map_attacks={name: replace(each, rule=None) for name, each in _ANNEALED.map_attacks.items()},
    )
}


_FLOW_PAPER = Recipe(
    perturbation=Flow(),
    warm_steps=400,
    warm_rule=AdamStep(Constant(0.01)),
    plain_steps=600,
    rule=lambda rungs: AdamStep(Constant(0.01)),
    weight=lambda c, steps: Linear(c / 2, c, steps),
    map_attacks={
        "cam": MapAttack(_once(600), 0.653 * 7 * 7),
        "grad": MapAttack(_once(800), 0.023 * CELLS, model=_with_paper_gate, prediction=_paper_smoothing),
        "mask": MapAttack(_once(1000), 500.0, {"cost": 0.004}, model=_unrolled),
        "rts": MapAttack(_once(600), 0.0408 * CELLS, {"encoder": 0.1}),
    },
    evasion=algorithm_2,
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
            "cam": MapAttack(ladder(50, 150, 300), 100.0, prediction=margin),
            "grad": MapAttack(ladder(50, 100, 300), 50.0),
            "mask": MapAttack(ladder(240, 240, 480), 10.0, quantum=120, afresh=True, judges=_hurried),
            "rts": MapAttack(ladder(50, 150, 300), 100.0, {"encoder": 0.1}, prediction=margin),
        },
        evasion=agreement,
        further={"cost": 0.0005},
    ),
}


def rungs_of(row: MapAttack, recipe: str, effort: str | None, steps: int | None) -> Rungs:
    """The rungs of a recipe's row; UnderfireError if it lacks the effort, or if steps are given as well."""
    if effort is not None and steps is not None:
        raise UnderfireError(f"{steps} steps leave nothing for the effort '{effort}' to say; give one of the two.")
    if steps is not None:
        return (check_count("steps", steps, least=0),)
    if (effort := effort or STANDARD) in row.efforts:
        return row.efforts[effort]
    if effort in EFFORTS:
        raise UnderfireError(f"The recipe '{recipe}' has the paper's steps and no other effort; leave out '{effort}'.")
    raise UnderfireError(f"There is no effort '{effort}'; the efforts are {', '.join(EFFORTS)}.")


def map_attack(recipe: Recipe, interpreter: Interpreter) -> MapAttack:
    """An interpreter's row; for an ensemble the rungs of its slowest member, the weights those of all."""
    if not isinstance(interpreter, Ensemble):
        other = replace(recipe.map_attacks[attacked_like(interpreter)], model=lambda interpreter: interpreter)
        return recipe.map_attacks.get(interpreter.name, other)
    rows = [map_attack(recipe, each) for each in interpreter.members]
    members = tuple(row.model(each) for row, each in zip(rows, interpreter.members, strict=True))
    weights = tuple(row.weight for row in rows)
    return MapAttack(
        efforts=max((row.efforts for row in rows), key=lambda efforts: sum(efforts[STANDARD])),
        weight=len(weights) * max(weights),  # so that each member's loss has its own weight
        further={name: weight for row in rows for name, weight in row.further.items() if name != "prediction"},
        quantum=max(row.quantum for row in rows),
        afresh=any(row.afresh for row in rows),
        model=lambda _: Ensemble(members, weights),
    )


def evasion(recipe: Recipe, interpreter: Interpreter, evade: Sequence[Evaded]) -> Evasion:
    """What a recipe adds to its attack on this interpreter to hide it from squeezers and from self-consistency."""
    squeezers = [each for each in evade if not isinstance(each, Consistency)]
    asked_twice = [each for each in evade if isinstance(each, Consistency)]
    squeezed = recipe.evasion(squeezers, recipe.perturbation)
    weight = STEADINESS * map_attack(recipe, interpreter).weight
    steady = steadiness(asked_twice, interpreter, lambda each: map_attack(recipe, each).model(each), weight)
    return Evasion((*squeezed.terms, *steady.terms), squeezed.anchor)
