"""The layers that a masker sees through are found in every anatomy; where there is none the error helps."""

import pytest
import torch
import torchvision
from torch import nn

from tiny_networks import NETWORKS, classifier, images, seeded
from underfire.core.errors import UnderfireError
from underfire.interpreters.rts import EncoderScale, find_scales
from underfire.models.classifier import Classifier


@pytest.mark.parametrize(
    ("net", "scales"),
    [
        ("resnet", (EncoderScale("relu", 12, 4, 4), EncoderScale("bn1", 8, 8, 8))),
        ("squeezenet", (EncoderScale("classifier.0", 12, 4, 4), EncoderScale("features.1", 8, 8, 8))),
        ("densenet", (EncoderScale("features", 16, 4, 4), EncoderScale("features.0", 8, 8, 8))),
        ("mobilenet", (EncoderScale("features", 16, 4, 4), EncoderScale("features.2", 8, 8, 8))),
    ],
)
def test_the_last_layer_of_each_size_counts_and_class_maps_do_not(net: str, scales: tuple[EncoderScale, ...]) -> None:
    assert find_scales(classifier(net), images(2)) == scales


@pytest.mark.parametrize("net", NETWORKS)
def test_a_tap_gives_what_the_scales_promise(net: str) -> None:
    model = classifier(net)
    scales = find_scales(model, images(2))
    _, features = model.tap(images(2), [scale.layer for scale in scales])
    assert [tuple(f.shape[1:]) for f in features] == [(s.channels, s.rows, s.columns) for s in scales]
    assert not any(module._forward_hooks for module in model.network.modules() if module._forward_hooks)


@pytest.mark.parametrize(
    ("name", "side", "sides"),
    [
        ("resnet18", 64, [2, 4, 8, 16]),
        ("squeezenet1_1", 96, [5, 11, 23]),
        ("densenet121", 64, [2, 4, 8, 16]),
        ("mobilenet_v2", 96, [3, 6, 12, 24]),
    ],
)
def test_torchvision_s_networks_have_up_to_four_scales_no_finer_than_the_mask(
    name: str, side: int, sides: list[int]
) -> None:
    model = Classifier(seeded(lambda: torchvision.models.get_model(name, weights=None, num_classes=7)))
    assert [scale.rows for scale in find_scales(model, images(1, side=side))] == sides


def test_features_finer_than_the_mask_serve_where_there_are_no_others() -> None:
    fine = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )
    assert find_scales(Classifier(seeded(lambda: fine)), images(1)) == (EncoderScale("1", 6, 16, 16),)


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5)),
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    ],
    ids=["no convolution", "class maps alone"],
)
def test_no_features_is_one_sentence(net: nn.Module) -> None:
    with pytest.raises(UnderfireError, match=r"No layer of this network gives feature maps .*encoder= \(--encoder\)"):
        find_scales(Classifier(net), torch.rand(1, 3, 16, 16))
