"""The named attacks with their parameters: recipe "paper" (Zhang et al. 2020) and recipe "annealed" (ours).

    paper      400 plain PGD steps, then hundreds of steps of a constant 1/255 with the map weight
               rising linearly from c/2 to c
    annealed   60 plain PGD steps of 1/255, then a few hundred whose size falls by a cosine from 2/255
               to 0 with a constant map weight; where the map follows the image smoothly (all but GRAD and
               MASK) with momentum and a margin in place of the cross-entropy

The paper's lambda multiplies the *sum* over the map's cells; c multiplies the mean, so c = lambda * h * w
on the paper's grids (CAM 7 x 7, GRAD and RTS 56 x 56) whatever the size of the map at hand.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from underfire.attack import Attack, CrossEntropy, Margin, PredictionLoss, SmoothedCrossEntropy, StopRule
from underfire.interpreters.gates import PaperGate
from underfire.interpreters.grad import GRAD
from underfire.interpreters.input_gradients import SmoothedReLU
from underfire.interpreters.mask import MASK
from underfire.interpreters.mask_attacker import Unrolled
from underfire.interpreters.protocol import Blind, Interpreter
from underfire.perturbations import Pixels
from underfire.schedules import Constant, Cosine, Linear, Schedule
from underfire.steps import MomentumSignStep, SignStep, StepRule, TwoPhaseStep
from underfire.types import UnderfireError


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
class Recipe:
    """A family of attacks; `map_attacks` goes by interpreter name, with `otherwise` for any other."""

    eps: float
    warm_steps: int
    warm_alpha: float
    plain_steps: int  # of plain PGD after its warm start
    plain_stop: StopRule | None
    rule: Callable[[int], StepRule]  # of the number of steps
    weight: Callable[[float, int], Schedule]  # of the final weight and the number of steps
    map_attacks: Mapping[str, MapAttack]
    otherwise: MapAttack


def _with_paper_gate(interpreter: Interpreter) -> Interpreter:
    assert isinstance(interpreter, GRAD)
    return replace(interpreter, input_gradient=SmoothedReLU(PaperGate(tau=1e-4)))


def _unrolled(interpreter: Interpreter) -> Interpreter:
    assert isinstance(interpreter, MASK)
    return replace(interpreter, attacker=Unrolled(follow=4, lookahead=4))


def _search(steps: int) -> StepRule:
    return TwoPhaseStep(reach=Constant(0.08), prediction_step=0.05, floor=0.95, halvings=12)


def _annealed_momentum(steps: int) -> StepRule:
    return MomentumSignStep(Cosine(2 / 255, 0.0, steps))


def _margin(steps: int, seed: int) -> PredictionLoss:
    return Margin()


def _paper_smoothing(steps: int, seed: int) -> PredictionLoss:
    return SmoothedCrossEntropy(Linear(0.05, 0.01, steps), seed)


RECIPES: Mapping[str, Recipe] = {
    "paper": Recipe(
        eps=0.031,
        warm_steps=400,
        warm_alpha=1 / 255,
        plain_steps=600,
        plain_stop=StopRule(confidence=0.999),
        rule=lambda steps: SignStep(Constant(1 / 255)),
        weight=lambda c, steps: Linear(c / 2, c, steps),
        map_attacks={
            "cam": MapAttack(1200, 0.204 * 7 * 7),
            "grad": MapAttack(800, 0.007 * 56 * 56, model=_with_paper_gate, prediction=_paper_smoothing),
            "mask": MapAttack(1000, 1.0, {"prediction": 0.0}, rule=_search, model=_unrolled),
            "rts": MapAttack(1200, 0.002 * 56 * 56, {"encoder": 0.1}),
        },
        otherwise=MapAttack(1200, 0.204 * 7 * 7),
    ),
    "annealed": Recipe(
        eps=8 / 255,
        warm_steps=60,
        warm_alpha=1 / 255,
        plain_steps=100,
        plain_stop=None,
        rule=lambda steps: SignStep(Cosine(2 / 255, 0.0, steps)),
        weight=lambda c, steps: Constant(c),
        map_attacks={
            "cam": MapAttack(100, 20.0, rule=_annealed_momentum, prediction=_margin),
            "grad": MapAttack(150, 20.0),
            "mask": MapAttack(240, 2.5, quantum=120),
            "rts": MapAttack(200, 20.0, {"encoder": 0.1}, rule=_annealed_momentum, prediction=_margin),
        },
        otherwise=MapAttack(100, 20.0, rule=_annealed_momentum, prediction=_margin),
    ),
}


def pgd(*, eps: float | None = None, recipe: str = "annealed", steps: int | None = None) -> Attack:
    """Plain PGD (Eq. 1): fools the classifier and ignores the interpreter; the baseline of every table."""
    chosen = _recipe(recipe)
    steps = chosen.plain_steps if steps is None else steps
    return Attack(
        name="pgd",
        interpreter=Blind(),
        perturbation=Pixels(chosen.eps if eps is None else eps),
        rule=chosen.rule(steps),
        steps=steps,
        stop=chosen.plain_stop,
        warm_start=_warm_start(chosen, eps),
    )


def adv2(
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    recipe: str = "annealed",
    steps: int | None = None,
    map_weight: float | None = None,
    seed: int = 0,
) -> Attack:
    """ADV2 on PGD (Eq. 3 and 4): fools the classifier and shows the target map, benign by default."""
    chosen = _recipe(recipe)
    parameters = chosen.map_attacks.get(interpreter.name, chosen.otherwise)
    steps = parameters.steps if steps is None else steps
    return Attack(
        name="adv2",
        interpreter=parameters.model(interpreter),
        perturbation=Pixels(chosen.eps if eps is None else eps),
        rule=(parameters.rule or chosen.rule)(steps),
        weights={
            "map": chosen.weight(parameters.weight if map_weight is None else map_weight, steps),
            **{name: Constant(weight) for name, weight in parameters.further.items()},
        },
        prediction=parameters.prediction(steps, seed),
        steps=steps,
        quantum=parameters.quantum,
        warm_start=_warm_start(chosen, eps),
    )


def _warm_start(recipe: Recipe, eps: float | None) -> Attack:
    return Attack(
        name="warm-start",
        interpreter=Blind(),
        perturbation=Pixels(recipe.eps if eps is None else eps),
        rule=SignStep(Constant(recipe.warm_alpha)),
        steps=recipe.warm_steps,
    )


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise UnderfireError(f"There is no recipe '{name}'; the recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]
