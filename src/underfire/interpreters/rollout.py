"""Rollout: which patches a vision transformer's attention leads to, from layer to layer.

    r = e B_L ... B_1,    m = mm( r over the patches )

    Rollout        B_l = (mean over heads of A_l + I) / 2                              Abnar and Zuidema 2020
    Grad-rollout   B_l = I + mean over heads of relu( d logit_y / d A_l * A_l )        Chefer et al. 2021

A_l is the attention of layer l, of each row's token to each column's, so that products of B_l follow it through the
residual connections. e picks the class token, that is those of the tokens before the patches on which the logits
depend; where there is none it is the mean over the patches. Rollout knows of no class: the maps of all classes are the
same. Attacker and deployed interpreter share the same closed form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import normalise_map
from underfire.core.types import Images, Keys, Labels, Logits, Maps, Reading
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading
from underfire.models.attention import INSTEAD, Attention
from underfire.models.classifier import Classifier
from underfire.models.layout import token_grid

Mix = Float[Tensor, "n t t"]
Tokens = Float[Tensor, "n t"]


@dataclass(frozen=True)
class Rollout(ClosedForm):
    """Attention rollout of a vision transformer; it explains no class in particular."""

    draws: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "rollout"

    def check(self, classifier: Classifier, x: Images) -> None:
        _check(classifier, x)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.enable_grad():
            return self._maps(classifier, x.detach(), y)[1].detach()

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(*self._maps(classifier, x, y), y)

    def _maps(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Maps]:
        logits, attention = classifier.attention(x)
        (last,) = _gradients(logits, y, attention[-1:], create_graph=False)
        same = torch.eye(last.shape[2], dtype=last.dtype, device=last.device)
        return logits, rolled_out([(each.mean(1) + same) / 2 for each in attention], last, x)


@dataclass(frozen=True)
class GradRollout(ClosedForm):
    """Gradient-weighted attention rollout of a class; its attack differentiates through the weights too."""

    draws: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "grad-rollout"

    def check(self, classifier: Classifier, x: Images) -> None:
        _check(classifier, x)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.enable_grad():
            return self._maps(classifier, x.detach(), y, create_graph=False)[1].detach()

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(*self._maps(classifier, x, y, create_graph=True), y)

    def _maps(self, classifier: Classifier, x: Images, y: Labels, create_graph: bool) -> tuple[Logits, Maps]:
        logits, attention = classifier.attention(x)
        gradients = _gradients(logits, y, attention, create_graph)
        same = torch.eye(attention[0].shape[2], dtype=x.dtype, device=x.device)
        weighted = [(gradient * each).relu().mean(1) for gradient, each in zip(gradients, attention, strict=True)]
        return logits, rolled_out([same + each for each in weighted], gradients[-1].detach(), x)


def rolled_out(mixes: Sequence[Mix], of_last: Attention, x: Images) -> Maps:
    """mm of e B_L ... B_1 on the patches of images x, from the gradient of the logits in the last attention."""
    prefixes, grid = _grid(of_last, x)
    row = readers((of_last != 0).any(3).any(1).to(of_last.dtype), prefixes)
    for mix in reversed(mixes):
        row = torch.einsum("nt,nts->ns", row, mix)
    return normalise_map(row[:, prefixes:].reshape(-1, *grid))


def readers(matters: Tokens, prefixes: int) -> Tokens:
    """Equal shares of those tokens before the patches that matter to the logits (1, not 0); else of the patches."""
    before = torch.arange(matters.shape[1], device=matters.device) < prefixes
    special, patches = matters * before, matters * ~before
    chosen = torch.where(special.any(1, keepdim=True), special, patches)
    return chosen / chosen.sum(1, keepdim=True).clamp_min(1)


def _gradients(logits: Logits, y: Labels, attention: Sequence[Attention], create_graph: bool) -> tuple[Attention, ...]:
    """d logit_y / d A of each layer."""
    of_class = logits.gather(1, y[:, None]).sum()
    return torch.autograd.grad(of_class, attention, create_graph=create_graph, retain_graph=True)


def _check(classifier: Classifier, x: Images) -> None:
    _grid(classifier.attention(x)[1][-1], x)


def _grid(attention: Attention, x: Images) -> tuple[int, tuple[int, int]]:
    """How many tokens stand before the patches, and the patches' rows and columns; UnderfireError if they are none."""
    tokens, height, width = attention.shape[2], x.shape[2], x.shape[3]
    found = token_grid(tokens, (height, width))
    if found is None:
        raise UnderfireError(
            f"Rollout needs patches on a grid; the {tokens} tokens of this network are none of an image of {width} × "
            f"{height} pixels, behind up to five others: {INSTEAD}."
        )
    return found
