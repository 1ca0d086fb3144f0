"""Where features lie in what a layer gives, the weights around it tell; grids that can be none are refused."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from transformers import SwinConfig, SwinForImageClassification, ViTConfig, ViTForImageClassification

import underfire as uf
from tiny_networks import MEAN, STD, images, network, seeded
from underfire.models.classifier import Classifier
from underfire.models.features import locate
from underfire.models.layout import layouts_of, tokens

SMALL = {"num_classes": 5, "img_size": 32}
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, **SMALL}
Y = torch.tensor([0, 1])


def torchvision_vit() -> nn.Module:
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=5
    )
    nn.init.normal_(net.heads.head.weight)  # zero before training
    return net


def timm_vit(**further: Any) -> Callable[[], nn.Module]:
    return lambda: timm.models.VisionTransformer(**VIT, **further)


def timm_swin() -> nn.Module:
    return timm.models.SwinTransformer(
        patch_size=2, embed_dim=24, depths=(1, 1), num_heads=(2, 4), window_size=4, **SMALL
    )


def hf_vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=32,
            patch_size=8,
            num_labels=5,
        )
    )


def hf_swin() -> nn.Module:
    return SwinForImageClassification(
        SwinConfig(
            image_size=32, patch_size=2, embed_dim=12, depths=[1, 1], num_heads=[2, 4], window_size=4, num_labels=5
        )
    )


FOUND: Mapping[str, tuple[Callable[[], nn.Module], str, str, tuple[int, int]]] = {
    "torchvision's ViT": (torchvision_vit, "encoder.layers.encoder_layer_1.ln_1", "tokens", (4, 4)),
    "timm's ViT": (timm_vit(), "blocks.1.norm1", "tokens", (4, 4)),
    "timm's ViT with registers": (timm_vit(reg_tokens=4), "blocks.1.norm1", "tokens", (4, 4)),
    "timm's ViT that averages": (timm_vit(global_pool="avg", class_token=False), "norm", "tokens", (4, 4)),
    "Hugging Face's ViT": (hf_vit, "vit.layers.1.layernorm_before", "tokens", (4, 4)),
    "timm's Swin": (timm_swin, "norm", "channels-last", (8, 8)),
    "torchvision's Swin": (
        lambda: torchvision.models.SwinTransformer([2, 2], 24, [1, 1], [2, 4], [4, 4], num_classes=5),
        "permute",
        "channels-first",
        (8, 8),
    ),
    "Hugging Face's Swin": (hf_swin, "swin.layernorm", "tokens", (8, 8)),
    "torchvision's MobileNetV3": (
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
        "features.9.block.0",
        "channels-first",
        (2, 2),
    ),
}


@pytest.fixture(params=FOUND)
def case(request: pytest.FixtureRequest) -> tuple[Classifier, str, str, tuple[int, int]]:
    make, layer, layout, grid = FOUND[request.param]
    return Classifier(seeded(make), MEAN, STD), layer, layout, grid


def test_features_of_many_networks(case: tuple[Classifier, str, str, tuple[int, int]]) -> None:
    model, layer, layout, grid = case
    located = locate(model.network, model, images(1, side=32))
    assert (located.layer, located.layout) == (layer, layout)
    assert model.evidence(images(2, side=32)).features.shape[2:] == grid


def test_they_are_attacked_through_grad_cam(case: tuple[Classifier, str, str, tuple[int, int]]) -> None:
    result = uf.adv2(case[0], uf.GradCAM(), steps=2)(images(2, side=32))
    assert result.maps.shape[1:] == case[3]
    assert result.adversarial.isfinite().all()


def test_an_inner_stage_of_swin_is_read_with_its_channels_last() -> None:
    model, x = Classifier(seeded(timm_swin), MEAN, STD, features="layers.0"), images(2, side=32)
    assert model.evidence(x).features.shape == (2, 24, 16, 16)
    _, (output,) = model.tap(x, ["layers.0"])
    assert torch.equal(model.evidence(x).features, output.permute(0, 3, 1, 2))
    forced = Classifier(seeded(timm_swin), MEAN, STD, features="layers.0", layout="channels-first")
    with pytest.raises(uf.UnderfireError, match=r"'layers.0', \(1, 16, 16, 24\), is no grid of features .* Candidates"):
        forced.evidence(x)


def test_patches_lie_row_by_row_behind_the_class_token() -> None:
    cells = torch.arange(6.0).view(1, 6, 1)
    features = tokens(torch.cat([torch.full((1, 1, 1), -1.0), cells], 1), (32, 48))
    assert features is not None
    assert features[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tokens(torch.zeros(1, 15, 1), (32, 32)) is None


@pytest.mark.parametrize(
    ("shape", "channels", "found"),
    [
        ((1, 8, 4, 4), (8,), ["channels-first"]),
        ((1, 4, 4, 8), (8,), ["channels-last"]),
        ((1, 4, 4, 4), (4,), ["channels-first", "channels-last"]),
        ((1, 8, 4, 4), (9,), []),
        ((1, 8, 1, 1), (8,), []),
        ((1, 8, 4, 9), (8,), []),
        ((1, 17, 8), (8,), ["tokens"]),
        ((1, 15, 8), (8,), []),
    ],
)
def test_layouts_by_channels_and_proportions(
    shape: tuple[int, ...], channels: tuple[int, ...], found: list[str]
) -> None:
    assert list(layouts_of(torch.zeros(shape), channels, (32, 32))) == found


class Shrinking(nn.Module):
    """Convolutions that leave one cell of 16 pixels, then CAM's head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.Conv2d(6, 8, 4, 4))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x).mean((2, 3)))
        return logits


def test_a_grid_of_one_cell_is_called_that() -> None:
    model = Classifier(seeded(Shrinking), MEAN, STD)
    with pytest.raises(
        uf.UnderfireError, match=r"that of images of 16 × 16 pixels is a single cell \(1 × 1\); use Grad-CAM"
    ):
        uf.CAM().explain(model, images(2), Y, Y)
    assert uf.GradCAM().explain(model, images(2), Y, Y).shape == (2, 4, 4)


def test_layers_on_which_no_logit_depends_are_passed_over() -> None:
    net = network("resnet")
    net.fc.weight.data.zero_()
    net.avgpool = nn.AdaptiveMaxPool2d(1)
    with pytest.raises(
        uf.UnderfireError, match="No layer was found with a grid of 2 × 2 cells or more on which the log"
    ):
        uf.GradCAM().explain(Classifier(net, MEAN, STD), images(2), Y, Y)
