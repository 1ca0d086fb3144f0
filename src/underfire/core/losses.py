"""Per-image losses, one function per equation; every result is one number per image, never an average."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underfire.core.types import Labels, Logits, Maps, Row


def log_odds(logits: Logits, target: Labels) -> Row:
    """log p_t / (1 - p_t), exact also where p_t rounds to 1.

    Its gradient is that of log p_t divided by 1 - p_t, so it never vanishes when p_t saturates.
    """
    others = logits.scatter(1, target[:, None], -torch.inf)
    return logits.gather(1, target[:, None])[:, 0] - others.logsumexp(1)


def log_prob(logits: Logits, target: Labels) -> Row:
    """log p_t."""
    return F.logsigmoid(log_odds(logits, target))


def cross_entropy(log_prob: Row) -> Row:
    """Prediction loss of Eq. 3: -log p_t."""
    return -log_prob


def smoothed_cross_entropy(logits: Logits, target: Labels, mass: Row) -> Row:
    """Cross-entropy against `mass` on the target class and the rest spread evenly over the others."""
    log_p = logits.log_softmax(1)
    of_target = log_p.gather(1, target[:, None])[:, 0]
    of_others = (log_p.sum(1) - of_target) / (logits.shape[1] - 1)
    return -(mass * of_target + (1 - mass) * of_others)


def map_distance(maps: Float[Tensor, "n views #i #j"], target: Float[Tensor, "n #i #j"]) -> Row:
    """Interpretation loss of Eq. 3 with the mean over cells (and over views) in place of the sum.

    A blank map of one cell stands for a map of any size.
    """
    return (maps - target[:, None]).square().mean((1, 2, 3))


def roughness(masks: Maps) -> Row:
    """TV of Eq. 8: the mean squared difference of neighbouring cells, down the columns plus along the rows."""
    down, along = masks.diff(dim=1), masks.diff(dim=2)
    return down.square().mean((1, 2)) + along.square().mean((1, 2))


def mask_terms(masks: Maps, kept: Logits, removed: Logits, y: Labels, exponent: float) -> dict[str, Row]:
    """The four terms of Eq. 8: TV(m), mean(m), -log p_y(phi(x; m)) and p_y(phi(x; 1 - m))^exponent.

    kept and removed are the logits where the mask, or all but the mask, shows the image.
    """
    return {
        "roughness": roughness(masks),
        "area": masks.mean((1, 2)),
        "kept": -log_prob(kept, y),
        "removed": (exponent * log_prob(removed, y)).exp(),
    }


def confidence(logits: Logits, target: Labels) -> Row:
    """p_t."""
    return F.sigmoid(log_odds(logits, target))
