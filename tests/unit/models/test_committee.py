"""A committee reports the geometric mean of what its members report, each behind its own normalisation."""

import torch

from tiny_networks import classifier, images, network
from underfire.models.classifier import Classifier
from underfire.models.committee import members_of, together


def test_its_log_probabilities_are_the_means_of_the_members() -> None:
    one, other = classifier("resnet"), Classifier(network("densenet"), (0.1,) * 3, (0.9,) * 3)
    x = images(3)
    expected = (one(x).log_softmax(1) + other(x).log_softmax(1)) / 2
    torch.testing.assert_close(together([one, other])(x), expected)
    assert together([one, other]).fingerprint() != together([one, one]).fingerprint()


def test_one_member_is_itself() -> None:
    alone = classifier("resnet")
    assert together([alone]) is alone
    assert members_of(alone) == [alone]
    assert len(members_of(together([alone, alone]))) == 2
