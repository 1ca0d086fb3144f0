"""A suite of attacks on one interpreter: what a defence is worth shows under the one that suits each image best.

    for member in suite(RTS(masker)):
        craft = Craft(targets, member.attack, benign, …)     # from the warm start, or from `random_points`

All are ADV2 by one recipe. They differ in the map's weight, in the number of steps (three times as many are one rung,
which every image takes whole), and in where they start: where the recipe's warm start ends, which knows nothing of the
interpreter and serves all, or at a random point of the budget.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from underfire.attacks import solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import SOLVERS
from underfire.attacks.perturbations import Pixels
from underfire.attacks.recipes import map_attack, rungs_of
from underfire.core import rng
from underfire.core.types import Images, Keys
from underfire.interpreters.protocol import Interpreter

PRESET = "preset"  # the recipe as it is


@dataclass(frozen=True)
class Member:
    """One attack of a suite; its `start` is 0 for the warm start, else the number of a random point."""

    name: str
    attack: Attack
    start: int = 0


def suite(
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> tuple[Member, ...]:
    """The preset, then what differs from it as its name says; `steps` are taken in place of the recipe's rungs."""
    preset = map_attack(SOLVERS["pgd"].recipe(recipe), interpreter)
    once = sum(rungs_of(preset, recipe, effort, steps))

    def adv2(weight: float = 1.0, effort: str | None = effort, steps: int | None = steps) -> Attack:
        length: dict[str, Any] = {"effort": effort, "steps": steps}
        return solvers.adv2(interpreter, eps=eps, recipe=recipe, **length, map_weight=weight * preset.weight, seed=seed)

    return (
        Member(PRESET, adv2()),
        Member("weight ÷ 4", adv2(weight=0.25)),
        Member("weight × 4", adv2(weight=4.0)),
        Member("steps × 3", adv2(effort=None, steps=3 * once)),
        Member("random start", adv2(), start=1),
        Member("random start, weight × 4", adv2(weight=4.0), start=1),
    )


def random_points(perturbation: Pixels, images: Images, keys: Keys, seed: int, start: int) -> Tensor:
    """Thetas uniform within the budget, and cut so that images stay in [0, 1]; a function of (seed, key, start)."""
    draws = rng.uniform(seed, "random start", keys, torch.full_like(keys, start), images[0].numel())
    return perturbation.project(images, perturbation.eps * (2 * draws - 1).view_as(images).to(images))
