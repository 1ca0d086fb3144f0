"""A suite of attacks as stages of a run, and what it leaves of an interpreter in the worst case.

    crafts = {member.name: crafted(member, targets, benign, seed) for member in suite(interpreter)}
    left = worst_case(list(crafts), distances, fooled)         # both K x N, a row per member
    left.map_l1, left.success, defended.ratio_to(undefended)

In the worst case an image shows the closest map among those of the attacks that fooled the classifier. An image that
none of them fooled is not betrayed: it has no distance, so that means and ratios leave it out, and lowers the success.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from underfire.attacks.attack import Attack
from underfire.attacks.perturbations import Pixels
from underfire.attacks.suite import Member
from underfire.metrics.intervals import Estimate, mean_interval, ratio_interval, share
from underfire.runs.specs import Craft, Explain, RandomPoints, TargetClasses


def crafted(member: Member, targets: TargetClasses, benign: Explain, seed: int) -> Craft:
    """The images of one member, which aims at the benign maps."""
    start = _random_start(member, targets, seed) if member.start else warm_start(member.attack, targets)
    return Craft(targets, member.attack, benign, start)


def warm_start(attack: Attack, targets: TargetClasses) -> Craft:
    """What an attack by a recipe goes on from; all that share the recipe share it."""
    assert attack.warm_start is not None
    return Craft(targets, attack.warm_start, None, None)


def _random_start(member: Member, targets: TargetClasses, seed: int) -> RandomPoints:
    perturbation = member.attack.perturbation
    assert isinstance(perturbation, Pixels)
    return RandomPoints(targets.of, perturbation, seed, member.start)


@dataclass(frozen=True)
class WorstCase:
    """By image (column) the distance that each member (row) left, NaN where it did not fool the classifier."""

    members: tuple[str, ...]
    distances: npt.NDArray[np.float64]

    @property
    def smallest(self) -> npt.NDArray[np.float64]:
        """By image; NaN where no member fooled the classifier."""
        smallest: npt.NDArray[np.float64] = np.fmin.reduce(self.distances)
        return smallest

    @property
    def map_l1(self) -> Estimate:
        """Over the images that some member fooled."""
        return mean_interval(self.smallest)

    @property
    def success(self) -> Estimate:
        """The share of images that some member fooled."""
        return share(~np.isnan(self.smallest))

    def map_l1_of(self, member: str) -> Estimate:
        """Over the images that this member fooled."""
        return mean_interval(self._of(member))

    def success_of(self, member: str) -> Estimate:
        return share(~np.isnan(self._of(member)))

    def closest(self, member: str) -> Estimate:
        """The share of images of which this member leaves the smallest distance; of equals the first."""
        numbers = np.where(np.isnan(self.distances), np.inf, self.distances).argmin(0)
        return share((numbers == self.members.index(member)) & ~np.isnan(self.smallest))

    def ratio_to(self, other: "WorstCase") -> Estimate:
        """How many times the other's mean distance on the same images this one's is."""
        return ratio_interval(self.smallest, other.smallest)

    def _of(self, member: str) -> npt.NDArray[np.float64]:
        distances: npt.NDArray[np.float64] = self.distances[self.members.index(member)]
        return distances


def worst_case(members: Sequence[str], distances: npt.ArrayLike, fooled: npt.ArrayLike) -> WorstCase:
    """Of each member's distances and successes, K x N."""
    return WorstCase(tuple(members), np.where(np.asarray(fooled), np.asarray(distances, dtype=np.float64), np.nan))
