"""Rollouts against loops spelled out, across libraries, and on every kind of token before the patches."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from tiny_networks import classifier, images, network, seeded
from underfire.core.errors import UnderfireError
from underfire.interpreters import GradRollout, Rollout
from underfire.interpreters.protocol import NoBelief
from underfire.interpreters.rollout import readers, rolled_out
from underfire.models.classifier import Classifier

Y = torch.tensor([0, 3, 4])
BOTH = pytest.mark.parametrize("interpreter", [Rollout(), GradRollout()], ids=lambda each: each.name)


def normalised(values: np.ndarray) -> Tensor:
    grid = values.reshape(4, 4)
    return torch.from_numpy((grid - grid.min()) / (grid.max() - grid.min()))


def test_rollout_is_the_product_of_layers_from_the_first_to_the_last() -> None:
    """(mean over heads of A + I) / 2 with rows normalised, multiplied from the left; the class token's row."""
    attention = [torch.rand(1, 3, 17, 17, dtype=torch.float64).softmax(3) for _ in range(4)]
    joint = np.eye(17)
    for layer in attention:
        mixed = (layer[0].numpy().mean(0) + np.eye(17)) / 2
        mixed = mixed / mixed.sum(1, keepdims=True)
        product = np.zeros((17, 17))
        for i in range(17):
            for j in range(17):
                product[i, j] = sum(mixed[i, k] * joint[k, j] for k in range(17))
        joint = product
    of_last = torch.zeros_like(attention[-1])
    of_last[:, :, 0] = 1
    same = torch.eye(17, dtype=torch.float64)
    found = rolled_out([(each.mean(1) + same) / 2 for each in attention], of_last, torch.zeros(1, 3, 16, 16))
    torch.testing.assert_close(found[0], normalised(joint[0, 1:]))


def test_of_a_network_it_is_the_rollout_of_its_attention() -> None:
    model, x = classifier("transformer", torch.float64), images(3, dtype=torch.float64)
    with torch.no_grad():
        _, attention = model.attention(x)
    for n, found in enumerate(Rollout().explain(model, x, Y, Y)):
        joint = np.eye(17)
        for layer in attention:
            joint = (layer[n].numpy().mean(0) + np.eye(17)) / 2 @ joint
        torch.testing.assert_close(found, normalised(joint[0, 1:]))


def test_grad_rollout_is_its_definition() -> None:
    """R = I, R = R + (mean over heads of (dA * A)+) R, with autograd's gradient of the class's logit."""
    model, x = classifier("transformer", torch.float64), images(3, dtype=torch.float64)
    maps = GradRollout().explain(model, x, Y, Y)
    for n in range(3):
        logits, attention = model.attention(x[n : n + 1].clone().requires_grad_())
        gradients = torch.autograd.grad(logits[0, Y[n]], attention)
        relevance = np.eye(17)
        for layer, gradient in zip(attention, gradients, strict=True):
            weighted = (layer * gradient)[0].detach().numpy()
            relevance = relevance + np.maximum(weighted, 0).mean(0) @ relevance
        torch.testing.assert_close(maps[n], normalised(relevance[0, 1:]))


def test_rollout_knows_of_no_class_and_grad_rollout_does() -> None:
    model, x = classifier("transformer"), images(3)
    maps, others = (Rollout().explain(model, x, y, y) for y in (Y, (Y + 1) % 5))
    assert torch.equal(maps, others)
    maps, others = (GradRollout().explain(model, x, y, y) for y in (Y, (Y + 1) % 5))
    assert (maps - others).abs().amax((1, 2)).min() > 0.01


@BOTH
def test_the_same_weights_in_timm_and_in_torchvision_give_the_same_map(interpreter: Rollout | GradRollout) -> None:
    timm = pytest.importorskip("timm")
    theirs = seeded(lambda: torchvision.models.VisionTransformer(16, 4, 2, 2, 12, 24, num_classes=5))
    ours = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2, num_classes=5
    )
    ours.load_state_dict(dict(as_in_timm(theirs)))
    x = images(3)
    maps, expected = (interpreter.explain(Classifier(net.eval()), x, Y, Y) for net in (ours, theirs))
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)


def as_in_timm(net: nn.Module) -> Sequence[tuple[str, Tensor]]:
    """The state of torchvision's transformer under timm's names."""
    names = (
        ("class_token", "cls_token"),
        ("conv_proj", "patch_embed.proj"),
        ("encoder.pos_embedding", "pos_embed"),
        ("encoder.layers.encoder_layer_", "blocks."),
        ("encoder.ln", "norm"),
        ("heads.head", "head"),
        ("ln_1", "norm1"),
        ("ln_2", "norm2"),
        ("self_attention.in_proj_", "attn.qkv."),
        ("self_attention.out_proj", "attn.proj"),
        ("mlp.0", "mlp.fc1"),
        ("mlp.3", "mlp.fc2"),
    )
    state = []
    for name, value in net.state_dict().items():
        for theirs, ours in names:
            name = name.replace(theirs, ours)
        state.append((name, value))
    return state


@pytest.mark.parametrize(
    ("options", "prefixes", "expected"),
    [
        ({}, 1, [0]),
        ({"reg_tokens": 3}, 4, [0]),
        ({"reg_tokens": 3, "class_token": False, "global_pool": "avg"}, 3, range(3, 19)),
        ({"class_token": False, "global_pool": "avg"}, 0, range(16)),
        ({"class_token": False, "global_pool": "map"}, 0, range(16)),
        ({"global_pool": "avg"}, 1, range(1, 17)),
    ],
)
def test_which_tokens_are_followed(options: dict[str, object], prefixes: int, expected: Sequence[int]) -> None:
    """The class token, not the registers behind it; where the head reads the patches, all of them."""
    timm = pytest.importorskip("timm")
    net = seeded(
        lambda: timm.models.vision_transformer.VisionTransformer(
            img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=2, num_classes=5, **options
        )
    )
    model, x = Classifier(net), images(2)
    logits, attention = model.attention(x.requires_grad_())
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention[-1:])
    shares = readers((gradient != 0).any(3).any(1).float(), prefixes)
    wanted = torch.zeros(2, 16 + prefixes)
    wanted[:, list(expected)] = 1 / len(expected)
    torch.testing.assert_close(shares, wanted)
    for interpreter in (Rollout(), GradRollout()):
        interpreter.check(model, x)
        assert interpreter.explain(model, x, Y[:2], Y[:2]).shape == (2, 4, 4)


def test_class_token_and_patches_read_together_are_followed_from_the_class_token() -> None:
    """As in the heads of DINOv2; a distilled network has two such tokens."""
    assert readers(torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 1]]), 2).tolist() == [[1, 0, 0, 0], [0, 0, 0.5, 0.5]]
    assert readers(torch.tensor([[1.0, 1, 0, 0]]), 2).tolist() == [[0.5, 0.5, 0, 0]]


@BOTH
def test_images_that_are_not_square(interpreter: Rollout | GradRollout) -> None:
    timm = pytest.importorskip("timm")
    net = timm.models.vision_transformer.VisionTransformer(
        img_size=(8, 16), patch_size=2, embed_dim=12, depth=1, num_heads=2, num_classes=5
    )
    maps = interpreter.explain(Classifier(net.eval()), images(3)[:, :, :8], Y, Y)
    assert maps.shape == (3, 4, 8)


class Strip(nn.Module):
    """Fifteen tokens, of a strip of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[:, :, :15, :4].transpose(1, 2).flatten(2)).mean(1))


@BOTH
def test_tokens_that_are_no_grid(interpreter: Rollout | GradRollout) -> None:
    complaint = r"the 15 tokens of this network are none of an image of 16 × 16 pixels.*use Grad-CAM \(grad-cam\)"
    with pytest.raises(UnderfireError, match=complaint):
        interpreter.check(Classifier(Strip()), images(1))


@BOTH
def test_the_attack_sees_through_attention(interpreter: Rollout | GradRollout) -> None:
    """What is read moves with the image, through fused attention that has no second derivative."""
    model, x = Classifier(network("transformer")), images(3).requires_grad_()
    reading = interpreter.read(model, NoBelief(), x, Y)
    (gradient,) = torch.autograd.grad(reading.maps.square().sum(), x)
    assert gradient.abs().amax((1, 2, 3)).min() > 1e-4
