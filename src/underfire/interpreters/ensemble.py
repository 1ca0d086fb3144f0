"""Several interpreters at once, for an attacker who must deceive all of them (the adaptive attack on defence 1).

    attack = presets.adv2(Ensemble((CAM(), GRAD()), weights=(1.0, 1.0)))

Its map is a picture of the members' maps, one below the other on the finest grid among them, each multiplied by s:

    l_int = mean over m of s_m^2 * mean over cells of (m-th map - m-th target)^2,      s_m^2 = weight_m / largest weight
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import area_mean
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.protocol import Interpreter, draws
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Ensemble:
    """The members' maps in one; of their further terms those of one name are summed.

    UnderfireError for fewer than two members. Members' maps may have several views, all as many.
    """

    members: tuple[Interpreter, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2 or len(self.weights) != len(self.members):
            raise UnderfireError("An ensemble takes two interpreters or more, and a weight for each of them.")

    @property
    def name(self) -> str:
        return "ensemble"

    @property
    def draws(self) -> bool:
        return any(map(draws, self.members))

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        keys = rng.keys_of(x, keys)
        return self._stacked([each.explain(classifier, x, y, keys)[:, None] for each in self.members])[:, 0]

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> tuple[Any, ...]:
        return tuple(each.begin(classifier, x, y, keys) for each in self.members)

    def advance(self, classifier: Classifier, belief: tuple[Any, ...], x: Images, y: Labels) -> tuple[Any, ...]:
        pairs = zip(self.members, belief, strict=True)
        return tuple(each.advance(classifier, own, x, y) for each, own in pairs)

    def read(self, classifier: Classifier, belief: tuple[Any, ...], x: Images, y: Labels) -> Reading:
        pairs = zip(self.members, belief, strict=True)
        readings = [each.read(classifier, own, x, y) for each, own in pairs]
        terms: dict[str, Tensor] = {}
        for each in readings:
            terms |= {name: value + terms.get(name, 0) for name, value in each.terms.items()}
        return Reading(readings[0].logits, readings[0].log_prob, self._stacked([each.maps for each in readings]), terms)

    def _stacked(self, maps: Sequence[Float[Tensor, "n _v _i _j"]]) -> Float[Tensor, "n views i j"]:
        scales = ((weight / max(self.weights)) ** 0.5 for weight in self.weights)
        return stacked([scale * each for scale, each in zip(scales, maps, strict=True)])


def stacked(maps: Sequence[Float[Tensor, "n _v _i _j"]]) -> Float[Tensor, "n views i j"]:
    """One below the other, on the finest grid among them; a map of one view is repeated in all."""
    views, rows, columns = (max(each.shape[axis] for each in maps) for axis in (1, 2, 3))
    resized = [area_mean(each, rows, columns) for each in maps]
    return torch.cat([each.expand(-1, views, -1, -1) for each in resized], 2)
