"""Several classifiers as one, for an attacker who has no access to the one that is meant.

    surrogate = together([Classifier.load("torchvision:resnet18", "DEFAULT"), other])

Its logits are the means of the members' log-probabilities: what it reports is their geometric mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from underfire.core.types import Images
from underfire.models.classifier import Classifier


class Committee(nn.Module):
    """The members, which bring their own normalisations, side by side."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Images) -> Tensor:
        return torch.stack([member(x).log_softmax(1) for member in self.members]).mean(0)


def together(classifiers: Sequence[Classifier]) -> Classifier:
    """The only one, or a committee of all."""
    if len(classifiers) == 1:
        return classifiers[0]
    return Classifier(Committee(classifiers), (0.0,) * 3, (1.0,) * 3, device=classifiers[0].device)


def members_of(classifier: Classifier) -> list[Classifier]:
    """Of a committee its members, of any other classifier itself."""
    if not isinstance(classifier.network, Committee):
        return [classifier]
    return [each for each in classifier.network.members if isinstance(each, Classifier)]
