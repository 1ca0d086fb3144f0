"""Shape aliases and the records that travel between rooms.

A *row tensor* has the number of images N as its leading dimension; a *row record* is a frozen
dataclass whose leaves are row tensors, so that `underfire.core.rows` can take, put and select images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float, Int
from torch import Tensor

Images = Float[Tensor, "n 3 h w"]  # RGB in [0, 1]
Maps = Float[Tensor, "n i j"]  # attribution maps in [0, 1], high = important
Flows = Float[Tensor, "n 2 h w"]  # where each pixel is taken from, in pixels down and along from its own place
Features = Float[Tensor, "n d a b"]  # activations of the last convolutional block
Logits = Float[Tensor, "n k"]
Row = Float[Tensor, " n"]  # one number per image
Labels = Int[Tensor, " n"]  # class indices, int64
Keys = Int[Tensor, " n"]  # identity of an image for the random streams, int64 (see `underfire.core.rng`)
Flags = Bool[Tensor, " n"]


@dataclass(frozen=True)
class Samples:
    """N benign images with their names and true classes."""

    ids: tuple[str, ...]
    images: Images
    labels: Labels


@dataclass(frozen=True)
class Goal:
    """What the attacker wants of each image: row record, one row per image."""

    key: Keys
    image: Images  # the benign image x0
    target: Labels  # the class ct to be reported
    target_map: Maps  # the map mt to be shown; unread by attacks that look at no map
    anchor: Float[Tensor, "n k"] | None = None  # class probabilities to come close to, for attacks that ask for them
    noise: Row | None = None  # how far two deployed maps of the image are apart; None if an interpreter does not draw
    region: Bool[Tensor, "n h w"] | None = None  # where the image may be changed; None for everywhere


@dataclass(frozen=True)
class Evidence:
    """What one forward pass of a classifier gives."""

    logits: Logits
    features: Features


@dataclass(frozen=True)
class Reading:
    """The attacker's view of one IDLS at x for class y, differentiable in x.

    log_prob is log p_y; maps holds J >= 1 views of the attacker's map; terms holds further per-image
    losses by name.
    """

    logits: Logits
    log_prob: Row
    maps: Float[Tensor, "n views i j"]
    terms: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Terms:
    """Per-image losses by name and their weighted sum, with the logits they were read from."""

    total: Row
    parts: Mapping[str, Row]
    logits: Logits


@dataclass(frozen=True)
class Outcome:
    """What an attack returns for each image: row record; all of it measured on `image` itself."""

    image: Images
    theta: Float[Tensor, "n ..."]  # the perturbation's parameters that decode to `image`
    probabilities: Float[Tensor, "n k"]
    predicted: Labels
    confidence: Row  # p of the target class
    success: Flags  # predicted == target
    success_last: Flags  # likewise at the last iterate, which need not be the best one
    steps: Labels  # steps spent on this image, warm start not counted
    settled: Flags  # left before the last rung: further ones had nothing to win
    closest: Row  # the attacker's smallest rank of any iterate by its own reading, see `Attack.rank`
    closest_before: Row  # that of the iterates before the last fifth of all steps
