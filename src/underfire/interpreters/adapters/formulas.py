"""In torch, for an attacker to differentiate, what pytorch-grad-cam computes in numpy: a user's library hides nothing.

    attributions = FORMULAS["GradCAMPlusPlus"](classifier, x, y)

With a the features and g the gradient of the class's logit by them, both N D h w, k the channel:

    GradCAM             relu( sum_k mean(g_k) a_k )                         Selvaraju et al. 2017
    GradCAMPlusPlus     relu( sum_k sum(alpha_k relu(g_k)) a_k ),           Chattopadhay et al. 2018, Eq. 19
                        alpha = g^2 / (2 g^2 + sum(a) g^3)
    XGradCAM            relu( sum_k sum(g_k a_k) / sum(a_k) a_k )           Fu et al. 2020
    HiResCAM            relu( sum_k g_k a_k )                               Draelos and Carin 2020
    LayerCAM            relu( sum_k relu(g_k) a_k )                         Jiang et al. 2021
    GradCAMElementWise  sum_k relu( g_k a_k )

mean and sum without an index are over cells. Maps are resized to the image, as there. That a formula is the library's,
the probe measures, like any derivative.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from underfire.core.image_ops import resize
from underfire.core.types import Features, Images, Labels
from underfire.interpreters.adapters.raw import Attributions
from underfire.models.classifier import Classifier

CELLS = (2, 3)


@dataclass(frozen=True)
class CamFormula:
    """A map of the features and the gradient by them; x must ask for a gradient."""

    combined: Callable[[Features, Features], Tensor]

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Attributions:
        evidence, gradient = classifier.sensitivity(x, y, create_graph=True)
        maps = self.combined(evidence.features, gradient).relu()
        return resize(maps[:, None], x.shape[2], x.shape[3])


def _weighted(a: Features, weights: Tensor) -> Tensor:
    return (weights * a).sum(1)


def _plus_plus(a: Features, g: Features) -> Tensor:
    """The weights of Grad-CAM++; where g is 0 so is alpha."""
    alpha = g**2 / (2 * g**2 + a.sum(CELLS, keepdim=True) * g**3 + 1e-6)
    return (alpha * g.relu()).sum(CELLS, keepdim=True)


FORMULAS: Mapping[str, CamFormula] = MappingProxyType(
    {
        "GradCAM": CamFormula(lambda a, g: _weighted(a, g.mean(CELLS, keepdim=True))),
        "GradCAMPlusPlus": CamFormula(lambda a, g: _weighted(a, _plus_plus(a, g))),
        "XGradCAM": CamFormula(
            lambda a, g: _weighted(a, (g * a).sum(CELLS, keepdim=True) / (a.sum(CELLS, keepdim=True) + 1e-7))
        ),
        "HiResCAM": CamFormula(_weighted),
        "LayerCAM": CamFormula(lambda a, g: _weighted(a, g.relu())),
        "GradCAMElementWise": CamFormula(lambda a, g: (g * a).relu().sum(1)),
    }
)
