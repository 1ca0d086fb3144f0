"""CAM and Grad-CAM: how much each cell of the last convolutional block supports the class.

    CAM       m(i, j) = mm( sum_k w[y, k] a_k(i, j) )                    Zhou et al. 2016
    Grad-CAM  m(i, j) = mm( relu( sum_k alpha_k a_k(i, j) ) ),
              alpha_k = mean over cells of d logit_y / d a_k             Selvaraju et al. 2017

a are the features after their activation, w the linear layer behind global average pooling; maps
stay on the features' own grid. Attacker and deployed interpreter share the same closed form.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from underfire.core.image_ops import normalise_map
from underfire.core.types import Images, Keys, Labels, Logits, Maps, Reading
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class CAM(ClosedForm):
    """Class activation map; the network must pool its features right before one linear layer, or its class maps."""

    draws: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "cam"

    def check(self, classifier: Classifier, x: Images) -> None:
        classifier.locate_head(x)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.no_grad():
            return self._maps(classifier, x, y)[1]

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        logits, maps = self._maps(classifier, x, y)
        return reading(logits, maps, y)

    def _maps(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Maps]:
        head = classifier.locate_head(x)
        evidence = classifier.evidence(x)
        return evidence.logits, normalise_map(head.class_maps(evidence.features, y))


@dataclass(frozen=True)
class GradCAM(ClosedForm):
    """Grad-CAM on the located or named features of any network; its attack differentiates through the weights too.

    Where a pool and one linear layer follow the features, alpha_k = w[y, k] / cells: the positive part of CAM.
    """

    draws: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return "grad-cam"

    def check(self, classifier: Classifier, x: Images) -> None:
        classifier.locate_features(x)

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.enable_grad():
            return self._maps(classifier, x.detach().requires_grad_(), y, create_graph=False)[1].detach()

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        logits, maps = self._maps(classifier, x, y, create_graph=True)
        return reading(logits, maps, y)

    def _maps(self, classifier: Classifier, x: Images, y: Labels, create_graph: bool) -> tuple[Logits, Maps]:
        head = classifier.find_head(x)
        if head is not None:
            evidence = classifier.evidence(x)
            return evidence.logits, normalise_map(head.class_maps(evidence.features, y).relu())
        evidence, gradient = classifier.sensitivity(x, y, create_graph)
        maps = torch.einsum("nk,nkij->nij", gradient.mean((2, 3)), evidence.features)
        return evidence.logits, normalise_map(maps.relu())
