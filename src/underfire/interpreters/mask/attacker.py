"""How the attacker follows MASK's solver while the image changes, and how the map moves with the image.

    Unrolled   the paper's way (Alg. 1): from the deployed map, `follow` Adam iterations per attack step at
               the fixed image, then `lookahead` more that are differentiated through
    Replay     ours: the first `horizon` iterations from the solver's own start, again and again, `follow`
               of them per attack step; one gradient step ahead, its mixed derivative by finite differences:

                   m' = m - r dE/dm,   (dm'/dx)^T v = -r (dE/dx(m + hv; x) - dE/dx(m; x)) / h,   max |hv| = delta

               with r the number of cells, so that the weight of the map term is that of a mean over cells

Replay needs no second derivative and no deployed solution, and it sees the way that the deployed solver goes
rather than the environment of where it once arrived.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from underfire.core import rows
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.input_gradients import step_size
from underfire.interpreters.mask.solver import Solution, Solver, at_rest
from underfire.interpreters.protocol import reading
from underfire.models.classifier import Classifier

PURPOSE = "mask attacker"  # of the attacker's jitter: the solver is known, the dice that score are not


@runtime_checkable
class SolverModel(Protocol):
    """The attacker's begin, advance and read of an Interpreter, for a given solver."""

    def begin(self, solver: Solver, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Solution: ...

    def advance(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Solution: ...

    def read(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Reading: ...


@dataclass(frozen=True)
class Unrolled:
    """Reads `lookahead` views of the map, after 1, 2, … further iterations, by second-order autograd."""

    follow: int = 4
    lookahead: int = 4

    def begin(self, solver: Solver, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Solution:
        return at_rest(solver.solve(classifier, x, y, keys).mask, keys)

    def advance(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Solution:
        return solver.descend(classifier, belief, solver.delete(x), y, self.follow, PURPOSE)

    def read(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Reading:
        deletion, ahead, maps = solver.delete(x), belief, []
        with torch.enable_grad():
            for _ in range(self.lookahead):
                mask = ahead.mask if ahead.mask.requires_grad else ahead.mask.detach().requires_grad_()
                energy = solver.energy(classifier, deletion, mask, y, solver.offsets(ahead, deletion, PURPOSE))
                (gradient,) = torch.autograd.grad(energy.sum(), mask, create_graph=True)
                ahead = solver.adam(replace(ahead, mask=mask), gradient)
                maps.append(1 - ahead.mask)
        return replace(reading(classifier(x), maps[0], y), maps=torch.stack(maps, 1))


@dataclass(frozen=True)
class Replay:
    """Reads the replayed map, which moves with the image as one gradient step ahead does."""

    follow: int = 4
    horizon: int = 80
    delta: float = 0.5

    def begin(self, solver: Solver, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Solution:
        return solver.start(solver.delete(x), keys)

    def advance(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Solution:
        deletion = solver.delete(x)
        fresh = replace(solver.start(deletion, belief.key), drawn=belief.drawn)
        belief = rows.where(belief.step >= self.horizon, fresh, belief)
        return solver.descend(classifier, belief, deletion, y, self.follow, PURPOSE)

    def read(self, solver: Solver, classifier: Classifier, belief: Solution, x: Images, y: Labels) -> Reading:
        maps: Tensor = _Ahead.apply(x, y, belief, solver, classifier, self.delta)
        return reading(classifier(x), maps, y)


class _Ahead(torch.autograd.Function):
    """The map 1 - m; its backward pass is that of 1 - m'."""

    @staticmethod
    def forward(
        ctx: Any, x: Images, y: Labels, belief: Solution, solver: Solver, classifier: Classifier, delta: float
    ) -> Maps:
        ctx.save_for_backward(x, y)
        ctx.belief, ctx.solver, ctx.classifier, ctx.delta = belief, solver, classifier, delta
        return 1 - belief.mask

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, u: Maps) -> tuple[Images | None, ...]:
        x, y = ctx.saved_tensors
        mask, solver = ctx.belief.mask, ctx.solver
        h = step_size(u, ctx.delta)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            deletion = solver.delete(leaf)
            offsets = solver.offsets(ctx.belief, deletion, PURPOSE)
            towards, here = (
                solver.energy(ctx.classifier, deletion, m, y, offsets) for m in ((mask + h * u).clamp(0, 1), mask)
            )
            rate = mask[0].numel() / h.flatten()
            (gradient,) = torch.autograd.grad((rate * (towards - here)).sum(), leaf)
        return gradient, None, None, None, None, None
