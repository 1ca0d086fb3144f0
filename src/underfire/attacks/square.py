"""Random search by squares: theta moves where the loss falls, without a gradient (Andriushchenko et al. 2020).

    rule = Square(share=0.1)
    theta, state, terms = rule.step(objective, theta, rule.init(theta), step)

A proposal sets all pixels of a square, channel by channel, to one end of the budget. Its area is `share` of the image
at first and halves at the steps of the paper's schedule for 10,000 queries, so that fewer queries are their beginning.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire.attacks.steps import Objective
from underfire.core import rng, rows
from underfire.core.checks import check_number, check_seed
from underfire.core.types import Keys, Labels, Row, Terms

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # steps, in the schedule of Sec. 4.1
BEYOND = 1.0  # a change of a pixel that no budget exceeds; the projection cuts it to the budget


@dataclass(frozen=True)
class Accepted:
    """The best theta by the attacker's loss, and that loss: row record."""

    theta: Tensor
    loss: Row


@dataclass(frozen=True)
class Square:
    """What came in is looked at once, and kept if its loss is smaller; what goes out is the kept one with a new square.

    Place and signs of a square are a function of the seed, the image's key and the step.
    """

    share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("The share of a square", self.share, above=0.0, most=1.0)
        check_seed(self.seed)

    def init(self, theta: Tensor) -> Accepted:
        return Accepted(theta, torch.full((len(theta),), torch.inf, dtype=theta.dtype, device=theta.device))

    def step(
        self, objective: Objective, theta: Tensor, state: Accepted, step: Labels
    ) -> tuple[Tensor, Accepted, Terms]:
        with torch.no_grad():
            terms = objective(theta)
        loss = terms.total.to(state.loss.dtype)
        kept = rows.where(loss < state.loss, Accepted(theta, loss), state)
        return self._with_square(kept.theta, objective.keys, step), kept, terms

    def side(self, step: Labels, height: int, width: int) -> Labels:
        """Of the squares at these steps, in pixels."""
        halvings = torch.searchsorted(torch.tensor(HALVINGS, device=step.device), step)
        area = self.share * height * width / 2.0**halvings
        return area.sqrt().round().long().clamp(1, min(height, width))

    def _with_square(self, theta: Tensor, keys: Keys, step: Labels) -> Tensor:
        channels, height, width = theta.shape[1:]
        draws = rng.uniform(self.seed, "square", keys, step, 2 + channels)
        side = self.side(step, height, width)
        down, along = (
            _covered((draws[:, axis] * (size - side + 1)).long(), side, size)
            for axis, size in enumerate((height, width))
        )
        inside = (down[:, :, None] & along[:, None, :])[:, None]
        ends = BEYOND * (draws[:, 2:] - 0.5).sign().to(theta.dtype)
        return torch.where(inside, ends[:, :, None, None], theta)


def _covered(first: Labels, side: Labels, size: int) -> Tensor:
    """Which of so many places in a row are among the `side` from the first on, NS."""
    place = torch.arange(size, device=first.device)
    return (place >= first[:, None]) & (place < (first + side)[:, None])
