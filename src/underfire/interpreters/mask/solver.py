"""The energy of a mask and its descent: an Adam of its own for every image.

    E(m; x) = p_y(phi(x; m)) + area sum |1 - m| + variation TV_beta(m)                         (Eq. 9)

Each iteration sees the picture shifted by a few pixels, drawn from (seed, purpose, image, iteration).
"""

from dataclasses import dataclass, replace

import torch

from underfire.core import rng
from underfire.core.image_ops import total_variation
from underfire.core.losses import confidence
from underfire.core.types import Images, Keys, Labels, Maps, Row
from underfire.interpreters.mask.deletion import Deletion, Geometry, Offsets
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Solution:
    """A mask on its way down with Adam's moments: row record. `step` counts for Adam, `drawn` for the jitter."""

    key: Keys
    mask: Maps
    mean: Maps
    square: Maps
    step: Labels
    drawn: Labels


@dataclass(frozen=True)
class Solver:
    """Adam on E from m = 1/2, clamped to [0, 1] after each step; `geometry` None follows the size of the images."""

    area: float = 1e-4
    variation: float = 1e-2
    beta: float = 3.0
    steps: int = 300
    lr: float = 0.1
    geometry: Geometry | None = None
    seed: int = 0

    def delete(self, x: Images) -> Deletion:
        """phi of these images."""
        return Deletion.of(x, self.geometry or Geometry.of(min(x.shape[2:])))

    def solve(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Solution:
        """All iterations from the start."""
        deletion = self.delete(x)
        return self.descend(classifier, self.start(deletion, keys), deletion, y, self.steps, "mask")

    def start(self, deletion: Deletion, keys: Keys) -> Solution:
        """m = 1/2, Adam at rest."""
        return at_rest(deletion.image.new_full((len(keys), *deletion.grid), 0.5), keys)

    def descend(
        self, classifier: Classifier, solution: Solution, deletion: Deletion, y: Labels, steps: int, purpose: str
    ) -> Solution:
        """So many more iterations, without a graph."""
        for _ in range(steps):
            with torch.enable_grad():
                mask = solution.mask.detach().requires_grad_()
                energy = self.energy(classifier, deletion, mask, y, self.offsets(solution, deletion, purpose))
                (gradient,) = torch.autograd.grad(energy.sum(), mask)
            solution = self.adam(solution, gradient)
        return solution

    def energy(self, classifier: Classifier, deletion: Deletion, mask: Maps, y: Labels, offsets: Offsets) -> Row:
        """E(m; x) with the picture shifted."""
        p = confidence(classifier(deletion(mask, offsets)), y)
        return p + self.area * (1 - mask).abs().sum((1, 2)) + self.variation * total_variation(mask, self.beta)

    def offsets(self, solution: Solution, deletion: Deletion, purpose: str) -> Offsets:
        """The shift of each image in the next iteration."""
        return rng.integers(self.seed, purpose, solution.key, solution.drawn, 2, deletion.geometry.jitter + 1)

    def adam(self, solution: Solution, gradient: Maps) -> Solution:
        """The next iterate; differentiable in the gradient, also where that vanishes or the mask is saturated."""
        count = (solution.step + 1).to(gradient.dtype).view(-1, 1, 1)
        mean = 0.9 * solution.mean + 0.1 * gradient
        square = 0.999 * solution.square + 0.001 * gradient.square()
        scale = (square / (1 - 0.999**count) + 1e-20).sqrt() + 1e-8
        mask = (solution.mask - self.lr * mean / (1 - 0.9**count) / scale).clamp(0, 1)
        return replace(solution, mask=mask, mean=mean, square=square, step=solution.step + 1, drawn=solution.drawn + 1)


def at_rest(mask: Maps, keys: Keys) -> Solution:
    """A solution whose Adam has not moved yet."""
    zero, never = torch.zeros_like(mask), torch.zeros_like(keys)
    return Solution(keys, mask, zero, zero, never, never)
