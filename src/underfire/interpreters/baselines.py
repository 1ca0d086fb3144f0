"""Maps that look at neither image nor classifier: what an interpreter must beat to be worth anything."""

from dataclasses import dataclass

import torch

from underfire.core import rng
from underfire.core.types import Images, Keys, Labels, Maps
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Centre:
    """A pyramid on the pixel grid, m = 1 - max(|u|, |v|) with u, v in (-1, 1): what exceeds a is a centred box."""

    @property
    def name(self) -> str:
        return "centre"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        rows, columns = ((2 * torch.arange(side, device=x.device) + 1 - side).abs() / side for side in x.shape[2:])
        pyramid: Maps = 1 - torch.maximum(rows[:, None], columns).to(x.dtype)
        return pyramid.expand(len(x), -1, -1)


@dataclass(frozen=True)
class RandomMap:
    """`side` x `side` independent uniform cells, drawn from (seed, image)."""

    side: int = 8
    seed: int = 0

    @property
    def name(self) -> str:
        return "random"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        cells = rng.uniform(self.seed, "random map", keys, torch.zeros_like(keys), self.side**2)
        return cells.view(-1, self.side, self.side).to(x.dtype)
