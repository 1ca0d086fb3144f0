"""Random search by squares: the paper's schedule, the shape of a proposal, and a loss that never rises."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from underfire.attacks.square import Square
from underfire.core.errors import UnderfireError
from underfire.core.types import Keys, Labels, Terms

KEYS = torch.tensor([11, 22, 33])
STILL = torch.zeros(3, 3, 32, 32)


@dataclass
class Distance:
    """The squared distance to a picture, row by row; remembers where it was asked."""

    wanted: Tensor
    keys: Keys = field(default_factory=lambda: KEYS)
    asked: list[Tensor] = field(default_factory=list)

    def __call__(self, theta: Tensor) -> Terms:
        self.asked.append(theta)
        loss = (theta - self.wanted).square().mean((1, 2, 3))
        return Terms(loss, {"loss": loss}, theta.flatten(1))

    prediction = __call__

    def project(self, theta: Tensor) -> Tensor:
        return theta.clamp(-0.1, 0.1)


def at(step: int, rows: int = 3) -> Labels:
    return torch.full((rows,), step)


@pytest.mark.parametrize(
    ("step", "halvings"),
    [(0, 0), (10, 0), (11, 1), (50, 1), (51, 2), (201, 3), (501, 4), (1001, 5), (2001, 6), (8000, 8), (8001, 9)],
)
def test_the_area_halves_where_the_papers_does(step: int, halvings: int) -> None:
    side = Square(share=0.8).side(at(step, 1), 224, 224)
    assert side.item() == round((0.8 * 224 * 224 / 2**halvings) ** 0.5)


def test_a_square_is_a_pixel_or_more_and_no_larger_than_the_image() -> None:
    assert Square(share=0.05).side(at(10**6, 1), 8, 8).item() == 1
    assert Square(share=1.0).side(at(0, 1), 8, 32).item() == 8


def test_a_proposal_is_one_square_whose_channels_go_to_their_ends() -> None:
    rule = Square(share=0.05)
    moved, _, _ = rule.step(Distance(STILL), STILL, rule.init(STILL), at(0))
    for image in moved:
        inside = image.abs().sum(0) > 0
        rows, columns = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        assert (len(rows), len(columns)) == (7, 7)
        assert bool(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        for channel in image:
            assert channel[inside].unique().tolist() in ([-1.0], [1.0])


def test_squares_lie_anywhere_with_all_signs() -> None:
    rule, many = Square(share=0.02), torch.zeros(2000, 3, 9, 12)
    moved, _, _ = rule.step(Distance(many, torch.arange(2000)), many, rule.init(many), at(0, 2000))
    covered = (moved != 0).any(1).any(0)
    assert bool(covered.all()), "corners, too"
    signs = set(map(tuple, moved.sum((2, 3)).sign().tolist()))
    assert len(signs) == 8


def test_a_proposal_depends_on_key_step_and_seed_alone() -> None:
    def proposed(rule: Square, keys: Keys, step: int) -> Tensor:
        theta = STILL[: len(keys)]
        return rule.step(Distance(theta, keys), theta, rule.init(theta), at(step, len(keys)))[0]

    together = proposed(Square(), KEYS, 7)
    assert torch.equal(together[[2, 0]], proposed(Square(), KEYS[[2, 0]], 7))
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, proposed(Square(), KEYS, 8))
    assert not torch.equal(together, proposed(Square(seed=1), KEYS, 7))


def test_one_look_a_step_and_the_best_look_is_kept() -> None:
    """Against a recount of everything that was asked."""
    rule, objective = Square(share=0.3), Distance(0.1 * torch.ones(3, 3, 8, 8))
    theta = torch.zeros(3, 3, 8, 8)
    state, before = rule.init(theta), torch.full((3,), torch.inf)
    for step in range(60):
        moved, state, terms = rule.step(objective, theta, state, at(step))
        assert torch.equal(terms.total, Distance(objective.wanted)(theta).total), "of what came in"
        assert bool((state.loss <= before).all())
        theta, before = objective.project(moved), state.loss
    assert len(objective.asked) == 60
    losses = torch.stack([Distance(objective.wanted)(each).total for each in objective.asked])
    assert torch.equal(state.loss, losses.amin(0))
    assert bool((state.loss < losses[0]).all()), "it gets nearer"
    assert torch.equal(Distance(objective.wanted)(state.theta).total, state.loss)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_is_a_part_of_the_image(share: float) -> None:
    with pytest.raises(UnderfireError, match="The share of a square"):
        Square(share=share)
