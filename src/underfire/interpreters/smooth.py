"""Randomised smoothing of an interpreter: the median of its maps over noisy copies of the image (Cohen et al. 2019).

    g = Smooth(CAM(), copies=9, sigma=0.05)                 # on the command line: smooth:cam

    map(x) = median over c of g(x + sigma n_c),   n_c ~ N(0, 1) for every pixel value, drawn per image

A defence that needs no training. Its attacker does not know the noise by which it is scored: each reading takes fresh
copies, keyed by the belief's own key and a counter, and is differentiable through the median, which passes every cell's
gradient to the copy that it is taken from. What the attacker believes of the interpreter inside is one belief about the
image, shared by all copies. The prediction is the classifier's own at x.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.losses import log_prob
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.protocol import Interpreter, check_suited, remarks_on
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Smoothed:
    """Which noise comes next for each image, and the belief about the interpreter inside: row record."""

    keys: Keys
    step: Labels
    inside: Any


@dataclass(frozen=True)
class Smooth:
    """The median over an odd number of copies with noise of deviation sigma; noisy pixels are not cut to [0, 1]."""

    inside: Interpreter
    copies: int = 9
    sigma: float = 0.05
    seed: int = 0

    draws: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.copies < 1 or self.copies % 2 == 0 or self.sigma < 0:
            raise UnderfireError(
                f"Smoothing takes an odd number of copies and noise of 0 or more, not {self.copies} and {self.sigma:g}."
            )

    @property
    def name(self) -> str:
        return f"smooth-{self.inside.name}"

    def check(self, classifier: Classifier, x: Images) -> None:
        check_suited(self.inside, classifier, x)

    def remarks(self, classifier: Classifier, x: Images) -> tuple[str, ...]:
        return remarks_on(self.inside, classifier, x)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        keys = rng.keys_of(x, keys)
        noisy = self._noisy(x, "deployed", keys, torch.zeros_like(keys))
        return _median([self.inside.explain(classifier, copy, y, keys) for copy in noisy])

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Smoothed:
        return Smoothed(keys, torch.zeros_like(keys), self.inside.begin(classifier, x, y, keys))

    def advance(self, classifier: Classifier, belief: Smoothed, x: Images, y: Labels) -> Smoothed:
        return replace(belief, step=belief.step + 1, inside=self.inside.advance(classifier, belief.inside, x, y))

    def read(self, classifier: Classifier, belief: Smoothed, x: Images, y: Labels) -> Reading:
        logits = classifier(x)
        noisy = self._noisy(x, "attacker", belief.keys, belief.step)
        maps = _median([self.inside.read(classifier, belief.inside, copy, y).maps for copy in noisy])
        return Reading(logits, log_prob(logits, y), maps)

    def _noisy(self, x: Images, whose: str, keys: Keys, step: Labels) -> list[Images]:
        """The copies for each image's own step."""
        copies = []
        for copy in range(self.copies):
            drawn = rng.normal(self.seed, f"smoothing, {whose}, copy {copy}", keys, step, x[0].numel())
            copies.append(x + self.sigma * drawn.view_as(x).to(x.dtype))
        return copies


def _median(maps: list[Tensor]) -> Tensor:
    """Cell by cell; the gradient goes to the copy it is taken from."""
    return torch.stack(maps).sort(dim=0, stable=True).values[len(maps) // 2]
