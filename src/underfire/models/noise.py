"""Random noise that makes a classifier err on a given share of images (Fig. 15).

    sigma = Trial(classifier, images.__getitem__, labels, keys, "normal", seed=0).calibrate(0.3)
    noisy = disturbed(images, "normal", keys, sigma, seed=0)

    x = clip( x0 + sigma n, 0, 1 ),    n ~ N(0, 1)  or  U(-sqrt 3, sqrt 3),  both of deviation 1, one draw per image

As the draw stays the same, the share of errors grows with sigma but for a few images, and bisection finds the level.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.types import Images, Keys, Labels
from underfire.models.classifier import Classifier

STRONGEST, BISECTIONS = 1.0, 16
Spread = Callable[[Float[Tensor, "n s"]], Float[Tensor, "n s"]]  # of numbers that are uniform in (0, 1)

NOISES: Mapping[str, Spread] = MappingProxyType(
    {"normal": torch.special.ndtri, "uniform": lambda uniform: math.sqrt(3) * (2 * uniform - 1)}
)


def disturbed(images: Images, kind: str, keys: Keys, sigma: float, seed: int) -> Images:
    """Images with noise of that kind and deviation."""
    draws = rng.uniform(seed, f"{kind} noise", keys, torch.zeros_like(keys), images[0].numel())
    return (images + sigma * NOISES[kind](draws).view_as(images).to(images.dtype)).clamp(0, 1)


@dataclass(frozen=True)
class Trial:
    """Correctly classified images and the noise that is tried on them, `batch_size` at a time.

    `images` gives those at some places, so that not all need be in memory.
    """

    classifier: Classifier
    images: Callable[[list[int]], Images]
    labels: Labels
    keys: Keys
    kind: str
    seed: int
    batch_size: int = 16

    def errors(self, sigma: float) -> float:
        """The share of images that are misclassified under noise of this deviation."""
        wrong = 0
        for chunk in torch.split(torch.arange(len(self.keys)), self.batch_size):
            noisy = disturbed(self.images(chunk.tolist()), self.kind, self.keys[chunk], sigma, self.seed)
            with torch.no_grad():
                predicted = self.classifier(noisy.to(self.classifier.device)).argmax(1).cpu()
            wrong += int((predicted != self.labels[chunk]).sum())
        return wrong / len(self.keys)

    def check(self, level: float) -> None:
        """UnderfireError if even the strongest noise causes fewer errors."""
        if self.errors(STRONGEST) < level:
            raise UnderfireError(
                f"Not even {self.kind} noise of deviation {STRONGEST:g} makes the model err on {100 * level:g} % of the"
                " images, so there is no such noise to compare maps under."
            )

    def calibrate(self, level: float) -> float:
        """The deviation at which the share of errors reaches the level, by bisection."""
        self.check(level)
        low, high = 0.0, STRONGEST
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.errors(middle) >= level else (middle, high)
        return high
