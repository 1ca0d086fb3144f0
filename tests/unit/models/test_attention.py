"""Attention as each library computes it is seen, in the graph of the logits, which stay what they were."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tiny_networks import classifier, images, network, seeded
from underfire.core.errors import UnderfireError
from underfire.models.attention import watching_attention
from underfire.models.classifier import Classifier

LAYERS, HEADS, TOKENS = 2, 2, 17


def of_timm(fused: bool = True) -> nn.Module:
    timm = pytest.importorskip("timm")
    was = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(fused)
    try:
        return timm.models.vision_transformer.VisionTransformer(
            img_size=16, patch_size=4, embed_dim=12, depth=LAYERS, num_heads=HEADS, num_classes=5
        )
    finally:
        timm.layers.set_fused_attn(was)


def of_hugging_face(how: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        image_size=16,
        patch_size=4,
        num_labels=5,
    )
    return transformers.ViTForImageClassification._from_config(config, attn_implementation=how)


def of_torchvision() -> nn.Module:
    return torchvision.models.VisionTransformer(16, 4, LAYERS, HEADS, 12, 24, num_classes=5)


TRANSFORMERS: Mapping[str, Callable[[], nn.Module]] = {
    "timm, fused": of_timm,
    "timm, written out": lambda: of_timm(fused=False),
    "hugging face, sdpa": lambda: of_hugging_face("sdpa"),
    "hugging face, eager": lambda: of_hugging_face("eager"),
    "torchvision": of_torchvision,
    "torch.nn": lambda: network("transformer"),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("graph", [False, True])
def test_each_layers_attention_is_seen_and_nothing_changes(name: str, graph: bool) -> None:
    model, x = Classifier(seeded(TRANSFORMERS[name])), images(3).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        expected = model(x)
        logits, attention = model.attention(x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert [each.shape for each in attention] == [(3, HEADS, TOKENS, TOKENS)] * LAYERS
    for each in attention:
        torch.testing.assert_close(each.sum(3), torch.ones(3, HEADS, TOKENS))
    assert torch.equal(model(x), expected)
    if graph:
        assert all(bool(each.any()) for each in torch.autograd.grad(logits[:, 0].sum(), attention))


def test_it_is_what_hugging_face_itself_returns() -> None:
    eager = seeded(lambda: of_hugging_face("eager"))
    fused = of_hugging_face("sdpa").eval()
    fused.load_state_dict(eager.state_dict())
    x = images(2)
    expected = eager(x, output_attentions=True).attentions
    with torch.no_grad():
        _, attention = Classifier(fused, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).attention(x)
    for ours, theirs in zip(attention, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_it_is_what_torch_itself_returns(bias: bool, average: bool) -> None:
    """Of nn.MultiheadAttention, asked for its weights; query, key and value may differ."""
    layer = seeded(lambda: nn.MultiheadAttention(12, 3, bias=bias, batch_first=True))
    query, key, value = torch.rand(3, 2, 5, 12, generator=torch.Generator().manual_seed(0))
    expected, weights = layer(query, key, value, average_attn_weights=average)
    with watching_attention() as watched:
        F.linear(query, torch.eye(12))
        looked, shown = layer(query, key, value, average_attn_weights=average)
    (attention,) = watched.of_tokens(2)
    torch.testing.assert_close(looked, expected)
    torch.testing.assert_close(shown, weights)
    torch.testing.assert_close(attention.mean(1) if average else attention, weights)


@pytest.mark.parametrize("mask", [None, torch.arange(25.0).view(5, 5) / 9, torch.arange(25).view(5, 5) % 6 < 4])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_fused_attention_is_computed_as_torch_does(mask: Tensor | None, scale: float | None) -> None:
    query, key, value = torch.rand(3, 2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    with watching_attention():
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    torch.testing.assert_close(found, expected)


def test_a_worked_example() -> None:
    """Scores 0 and log 3 for the first token, equal ones for the second."""
    query, key = torch.tensor([[[[1.0], [0.0]]]]), torch.tensor([[[[0.0], [math.log(3)]]]])
    with watching_attention() as watched:
        F.linear(torch.zeros(1, 2, 1), torch.ones(1, 1))
        F.scaled_dot_product_attention(query, key, key)
    torch.testing.assert_close(watched.of_tokens(1)[0][0, 0], torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


@pytest.mark.parametrize("masked", [{"is_causal": True}, {"enable_gqa": True}])
def test_attention_of_another_kind_is_left_alone(masked: dict[str, bool]) -> None:
    query = torch.rand(2, 3, 5, 4)
    expected = F.scaled_dot_product_attention(query, query, query, **masked)
    with watching_attention() as watched:
        assert torch.equal(F.scaled_dot_product_attention(query, query, query, **masked), expected)
    with pytest.raises(UnderfireError, match="no attention is seen"):
        watched.of_tokens(2)


def test_multi_head_attention_with_a_mask_is_left_alone() -> None:
    layer, x = seeded(lambda: nn.MultiheadAttention(12, 3, batch_first=True)), torch.rand(2, 5, 12)
    mask = torch.arange(25).view(5, 5) % 6 == 5
    with watching_attention():
        masked = layer(x, x, x, attn_mask=mask)[0]
    torch.testing.assert_close(masked, layer(x, x, x, attn_mask=mask)[0])


def test_networks_without_attention() -> None:
    with pytest.raises(UnderfireError, match=r"no attention is seen in this network; use Grad-CAM \(grad-cam\)"):
        classifier("resnet").attention(images(2))


def test_attention_within_windows() -> None:
    swin = torchvision.models.swin_transformer.SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=5)
    for n in (1, 2):
        with pytest.raises(UnderfireError, match=r"attends within windows.*as Swin does: use Grad-CAM"):
            Classifier(swin).attention(images(n))


def test_attention_between_channels() -> None:
    timm = pytest.importorskip("timm")
    net = timm.models.xcit.Xcit(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=5)
    with pytest.raises(UnderfireError, match="between channels"):
        Classifier(net).attention(images(2))
