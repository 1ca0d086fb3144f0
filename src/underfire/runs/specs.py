"""Pieces of work with an identity: a spec says what is computed from what, its key names the result in a store.

chosen = Select(model=fingerprint, images=digest, n=16, seed=0)
aimed  = TargetClasses(chosen, seed=0)
benign = Explain(chosen, CAM())
plain  = Craft(aimed, pgd(), goal=None, start=None)
"""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

from underfire.attacks.attack import Attack
from underfire.attacks.perturbations import Pixels
from underfire.attacks.target_classes import RandomClass, TargetClass
from underfire.attacks.target_maps import TargetMap
from underfire.data.corruptions import HARMLESS, Corruption
from underfire.data.regions import Region
from underfire.detection.scores import Scorer
from underfire.interpreters.integrated_gradients import Quadrature
from underfire.interpreters.protocol import REPEATED, Explainer


class Identified:
    """What has a key, which is made once."""

    @cached_property
    def key(self) -> str:
        """The hash of the spec's canonical JSON."""
        text = json.dumps(describe(self), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


@dataclass(frozen=True)
class Select(Identified):
    """n correctly classified images; rows: image, label. model and images are fingerprints.

    The order of the choice is a function of seed and ids, so n is not part of what it is: more go on where fewer ended.
    """

    model: str
    images: str
    n: int = field(compare=False)
    seed: int
    version: int = 2


@dataclass(frozen=True)
class Meet(Identified):
    """Images, classified correctly or not, in the order in which they are met up to the n-th correct one; rows: image,
    label, predicted. model and images are fingerprints.

    As in `Select`, n is not part of what it is.
    """

    model: str
    images: str
    n: int = field(compare=False)
    seed: int
    version: int = 1


@dataclass(frozen=True)
class Locate(Identified):
    """n images, classified correctly or not, whose objects are known; rows: image, label, object, predicted.

    model, images and masks are fingerprints.
    """

    model: str
    images: str
    masks: str
    n: int
    seed: int
    version: int = 1


@dataclass(frozen=True)
class TargetClasses(Identified):
    """A class other than its own for each chosen image; rows: target."""

    of: Select
    seed: int
    rule: TargetClass = field(default_factory=RandomClass)
    version: int = 2


@dataclass(frozen=True)
class RandomPoints(Identified):
    """Thetas to begin from, drawn from a budget around chosen images; rows: theta. Each `start` is another draw."""

    of: Select
    perturbation: Pixels
    seed: int
    start: int
    version: int = 1


@dataclass(frozen=True)
class Craft(Identified):
    """Adversarial images, found without the draws that `interpreters.protocol.scoring_draws` names; rows as in Outcome.

    goal holds the target maps, start the thetas to begin from, anchor the class probabilities to come close to, noise
    how near two deployed maps of an image are; region says where images may be changed.
    """

    of: TargetClasses
    attack: Attack
    goal: "Explain | ExplainElsewhere | TargetMaps | None"
    start: "Craft | RandomPoints | None"
    anchor: "Craft | None" = None
    noise: "Repeat | None" = None
    region: Region | None = None
    version: int = 5


@dataclass(frozen=True)
class CraftElsewhere(Craft):
    """The same against another classifier, whose fingerprint is `model` and whose classes the rows are."""

    model: str = ""


@dataclass(frozen=True)
class Given(Identified):
    """Images that somebody else's attack made of chosen ones; rows: image, label, predicted, confidence, success.

    `pictures` is a fingerprint. Where the attack had targets, confidence and success are of these; else success is any
    class but the label, and confidence that of the class reported.
    """

    of: Select
    pictures: str
    targets: TargetClasses | None
    version: int = 1


@dataclass(frozen=True)
class SignNoise(Identified):
    """Chosen images with a random sign at every value, as large as that image's largest change by an attack, and cut to
    [0, 1]; rows: image, predicted.
    """

    of: Craft
    seed: int
    version: int = 2


@dataclass(frozen=True)
class CalibratedNoise(Identified):
    """Chosen images under noise of a kind (see `NOISES`) that makes the classifier err on that share of them.

    Rows: image, predicted, sigma. All `among` images that are chosen decide the noise.
    """

    of: Select
    kind: str
    level: float
    seed: int
    version: int = 3
    among: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "among", self.of.n)


@dataclass(frozen=True)
class Saved(Identified):
    """Attacked images as a file of that form gives them back; rows: predicted, confidence (of the target class, or of
    the one reported where there is no target)."""

    of: Craft | Given
    form: Corruption
    version: int = 1


Pictured = Select | Locate | Craft | Given | Saved | SignNoise | CalibratedNoise  # what holds images


@dataclass(frozen=True)
class Explain(Identified):
    """Deployed maps of chosen images, or of those with random signs, for their label, of all others for the class that
    the classifier reports; rows: map, constant.

    Another `draw` is another run of the random numbers that an interpreter uses, if any.
    """

    of: Pictured
    interpreter: Explainer
    draw: int = 0
    version: int = 2


@dataclass(frozen=True)
class Repeat(Identified):
    """How far benign maps are from those by a further draw, which no score uses; rows: map_l1."""

    of: Explain
    draw: int = REPEATED
    version: int = 1


@dataclass(frozen=True)
class Vary(Identified):
    """How far benign maps move when their images are changed harmlessly; rows: map_l1, iou_mean, one per change."""

    of: Explain
    changes: tuple[Corruption, ...] = HARMLESS
    version: int = 1


@dataclass(frozen=True)
class Believed(Identified):
    """How far the attacker's maps of the images that an attack returned are from the deployed ones; rows: map_l1.

    The attacker looks at each image for as long as between two judgements of its attack.
    """

    of: Explain
    version: int = 1


@dataclass(frozen=True)
class ExplainElsewhere(Identified):
    """The same maps by another classifier, whose fingerprint is `model`; rows: map, constant, predicted."""

    of: Select | Craft | Saved | SignNoise
    interpreter: Explainer
    model: str
    draw: int = 0
    version: int = 2


@dataclass(frozen=True)
class ExplainRandomised(Identified):
    """Maps of chosen images for their label once the layers of that depth (see `DEPTHS`) are re-initialised.

    Rows: map, constant.
    """

    of: Select
    interpreter: Explainer
    depth: str
    seed: int
    version: int = 1


@dataclass(frozen=True)
class TargetMaps(Identified):
    """Target maps on the grid of the benign ones; rows: map, constant, donor.

    donor is the place, among the chosen images, of the one whose benign map it is, or NO_DONOR. Where the rule borrows
    maps, all `among` images that are chosen may lend theirs.
    """

    of: TargetClasses
    benign: Explain
    rule: TargetMap
    seed: int
    version: int = 3
    among: int | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "among", self.of.of.n if self.rule.borrows else None)


@dataclass(frozen=True)
class Bound(Identified):
    """Both sides of Proposition 1 for the target class.

    Rows: prediction_loss, interpretation_loss, completeness_error.
    """

    of: Select | Craft | SignNoise
    targets: TargetClasses
    quadrature: Quadrature
    version: int = 1


@dataclass(frozen=True)
class Reported(Identified):
    """Deployed maps of the class that the classifier reports, true or not; rows: map, constant, predicted.

    `of` is the key of the stage that holds the images, whoever computed it; they are looked at as PNG files hold them.
    """

    of: str
    interpreter: Explainer
    version: int = 2


@dataclass(frozen=True)
class Detect(Identified):
    """How suspicious images are, as PNG files hold them; rows: score. `of` is the key of the stage that holds them,
    whoever computed it. The maps that the scorer looks at are those of their `Reported`.
    """

    of: str
    scorer: Scorer
    version: int = 2


Spec = (
    Select
    | Meet
    | Locate
    | TargetClasses
    | RandomPoints
    | Craft
    | Given
    | Saved
    | SignNoise
    | CalibratedNoise
    | Explain
    | Repeat
    | Vary
    | Believed
    | ExplainElsewhere
    | ExplainRandomised
    | TargetMaps
    | Bound
    | Reported
    | Detect
)


def describe(value: Any) -> Any:
    """A spec, attack or parameter as plain JSON values, each record with its type.

    Fields that records leave out of comparison (compare=False) are not part of their identity; functions are known by
    their source.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "type": type(value).__name__,
            **{f.name: describe(getattr(value, f.name)) for f in fields(value) if f.compare},
        }
    if isinstance(value, Mapping):
        return {str(name): describe(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    return _code(value) if callable(value) else value


def _code(function: Any) -> dict[str, str]:
    """A user's function, or an object that can be called, by its source; what it holds is not looked at."""
    written = function if hasattr(function, "__code__") else type(function)
    try:
        source = inspect.getsource(written)
    except (OSError, TypeError):  # typed where nothing keeps it
        source = str(getattr(getattr(written, "__code__", None), "co_code", ""))
    digest = hashlib.blake2b(source.encode(), digest_size=10).hexdigest()
    return {"type": "code", "name": written.__qualname__, "source": digest}


def key(spec: Identified) -> str:
    """What names a stage: the hash of what is computed from what."""
    return spec.key
