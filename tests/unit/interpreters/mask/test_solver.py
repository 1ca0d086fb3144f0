"""MASK's descent: the energy by its formula, Adam against PyTorch's, jitter and rows of one's own, and known masks."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tiny_networks import SMOOTH, classifier, images
from underfire.core import rows
from underfire.core.rng import image_keys
from underfire.interpreters.mask.solver import Solution, Solver, at_rest
from underfire.models.classifier import Classifier

KEYS = image_keys(["a", "b", "c"])
Y = torch.tensor([1, 3, 0])
STILL = torch.zeros(3, 2, dtype=torch.int64)


class Checks(nn.Module):
    """Logits (g v, -g v) where v is how much of a chequered pattern the upper left quarter holds."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x: Tensor) -> Tensor:
        quarter = x[:, :, : x.shape[2] // 2, : x.shape[3] // 2]
        evidence = self.gain * (quarter * chequered(quarter)).mean((1, 2, 3))
        return torch.stack([evidence, -evidence], 1)


def chequered(x: Tensor) -> Tensor:
    """+1 and -1 in squares of two pixels."""
    rows, columns = (torch.arange(side) // 2 for side in x.shape[2:])
    return (1 - 2 * ((rows[:, None] + columns) % 2)).to(x.dtype)


def checks(gain: float) -> Classifier:
    return Classifier(Checks(gain).double(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def random_masks(n: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(n, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_energy_is_confidence_area_and_variation() -> None:
    model, x, masks = classifier("resnet", torch.float64), images(3, dtype=torch.float64), random_masks()
    solver = Solver(area=0.3, variation=0.7, beta=2.0)
    deletion = solver.delete(x)
    p = model(deletion(masks, STILL)).softmax(1).gather(1, Y[:, None])[:, 0]
    down = (masks[:, 1:] - masks[:, :-1]).square().sum((1, 2))
    along = (masks[:, :, 1:] - masks[:, :, :-1]).square().sum((1, 2))
    expected = p + 0.3 * (1 - masks).sum((1, 2)) + 0.7 * (down + along + 16e-8)
    torch.testing.assert_close(solver.energy(model, deletion, masks, Y, STILL), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_adam_is_pytorchs_with_a_clamp_after_each_step(scale: float) -> None:
    """In three rows: a random gradient, one that comes and goes, and one that is always zero.

    Where they are as small as the floor of 1e-10 under the root, this one goes a little slower.
    """
    noise = scale * torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise[:, 1] *= (torch.arange(20) % 3 == 0).view(-1, 1, 1)
    noise[:, 2] = 0
    solution, theirs = at_rest(random_masks(), KEYS), nn.Parameter(random_masks())
    optimiser = torch.optim.Adam([theirs], lr=0.1)
    for gradient in noise:
        solution = Solver().adam(solution, gradient)
        theirs.grad = gradient.clone()
        optimiser.step()
        theirs.data.clamp_(0, 1)
        torch.testing.assert_close(solution.mask, theirs.detach(), rtol=0, atol=1e-5 if scale < 1 else 1e-9)
    assert solution.step.tolist() == solution.drawn.tolist() == [20] * 3
    assert ((solution.mask == 0) | (solution.mask == 1)).any(), "the clamp must have been reached"


def test_every_row_is_at_its_own_iteration() -> None:
    gradient, solver = random_masks(seed=1), Solver()
    fresh = at_rest(random_masks(), KEYS)
    moved = solver.adam(fresh, random_masks(seed=2))
    mixed = rows.where(torch.tensor([True, False, True]), moved, fresh)
    together = solver.adam(mixed, gradient)
    for i, start in enumerate((moved, fresh, moved)):
        alone = rows.take(solver.adam(start, gradient), torch.tensor([i]))
        assert torch.equal(rows.take(together, torch.tensor([i])).mask, alone.mask)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gradient", [0.0, 1e-30, 1e30])
def test_adam_has_a_derivative_at_every_mask_and_every_gradient(value: float, gradient: float) -> None:
    slope = torch.full((3, 4, 4), gradient, requires_grad=True)
    ahead = Solver().adam(at_rest(torch.full((3, 4, 4), value), KEYS), slope)
    assert ahead.mask.isfinite().all()
    assert torch.autograd.grad(ahead.mask.sum(), slope)[0].isfinite().all()


def test_jitter_is_a_function_of_the_image_and_the_iteration() -> None:
    solver = Solver()
    deletion = solver.delete(images(3))

    def offsets(keys: Tensor, drawn: int, purpose: str = "mask") -> Tensor:
        start = at_rest(torch.zeros(len(keys), 4, 4), keys)
        return solver.offsets(replace(start, drawn=torch.full_like(keys, drawn)), deletion, purpose)

    paths = {purpose: torch.stack([offsets(KEYS, k, purpose) for k in range(64)]) for purpose in ("mask", "other")}
    path = paths["mask"]
    assert torch.equal(torch.stack([offsets(KEYS[1:2], k)[0] for k in range(64)]), path[:, 1])
    assert path.unique().tolist() == [0, 1], "from 0 to the largest shift"
    assert not torch.equal(path[:, 0], path[:, 1])
    assert not torch.equal(path[:, :, 0], path[:, :, 1])
    assert not torch.equal(path, paths["other"])
    assert not torch.equal(path, torch.stack([replaced_seed(deletion, k) for k in range(64)]))


def replaced_seed(deletion: object, drawn: int) -> Tensor:
    start = at_rest(torch.zeros(3, 4, 4), KEYS)
    return Solver(seed=1).offsets(replace(start, drawn=torch.full_like(KEYS, drawn)), deletion, "mask")


def test_the_iteration_sees_the_jitter_that_was_drawn() -> None:
    """One step of descend, put together by hand."""
    model, x, solver = classifier("tanh", torch.float64), images(3, dtype=torch.float64), Solver()
    deletion, start = solver.delete(x), at_rest(random_masks(), KEYS)
    mask = start.mask.clone().requires_grad_()
    energy = solver.energy(model, deletion, mask, Y, solver.offsets(start, deletion, "mask"))
    expected = solver.adam(start, torch.autograd.grad(energy.sum(), mask)[0])
    solution = solver.descend(model, start, deletion, Y, 1, "mask")
    assert torch.equal(solution.mask, expected.mask)
    assert (solution.step.tolist(), solution.drawn.tolist()) == ([1] * 3, [1] * 3)


@pytest.mark.parametrize("net", ["resnet", "tanh"])
def test_an_image_alone_is_solved_as_in_a_batch(net: str) -> None:
    """Kernels round differently at other widths, and Adam divides by gradients' own size."""
    model, x, solver = classifier(net, torch.float64), images(3, dtype=torch.float64), Solver(steps=25)
    together = solver.solve(model, x, Y, KEYS)
    for i in range(3):
        alone = solver.solve(model, x[i : i + 1], Y[i : i + 1], KEYS[i : i + 1])
        torch.testing.assert_close(alone.mask[0], together.mask[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("net", SMOOTH)
def test_solving_lowers_the_energy_from_one_half(net: str) -> None:
    model, x, solver = classifier(net, torch.float64), images(3, dtype=torch.float64), Solver(steps=30)
    assert torch.equal(replace(solver, steps=0).solve(model, x, Y, KEYS).mask, torch.full((3, 4, 4), 0.5).double())
    deletion, solution = solver.delete(x), solver.solve(model, x, Y, KEYS)
    before, after = (
        solver.energy(model, deletion, mask, Y, STILL).detach() for mask in (0 * x[:, 0, :4, :4] + 0.5, solution.mask)
    )
    assert (after < before).all()
    assert not solution.mask.requires_grad


def test_what_the_class_lives_on_is_deleted_and_nothing_else() -> None:
    x = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    x = x + 0.4 * chequered(x)
    mask = Solver(steps=80).solve(checks(20.0), x, torch.tensor([0]), KEYS[:1]).mask[0]
    assert mask[:2, :2].max() < 0.25
    assert mask[:3, :3].mean() < 0.25
    assert torch.cat([mask[5:].flatten(), mask[:, 5:].flatten()]).min() > 0.8


def solved_from(value: float, model: Classifier) -> Solution:
    x = images(3, dtype=model.dtype)
    start = at_rest(torch.full((3, 4, 4), value, dtype=model.dtype), KEYS)
    return Solver().descend(model, start, Solver().delete(x), torch.tensor([1, 0, 1]), 12, "mask")


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gain", [0.0, 1.0, 1e4])
def test_masks_stay_numbers_between_0_and_1(start: float, gain: float) -> None:
    """Also where the logits are constant or the confidence is saturated, and from a mask that is."""
    mask = solved_from(start, checks(gain)).mask
    assert 0 <= mask.min() <= mask.max() <= 1


def test_where_nothing_is_to_be_deleted_all_is_kept() -> None:
    assert torch.equal(solved_from(0.5, checks(0.0)).mask, torch.ones(3, 4, 4).double())
