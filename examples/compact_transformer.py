"""A compact vision transformer for pictures of 32 × 32 pixels: convolutions in the place of large patches.

    underfire train classifier --model examples/compact_transformer.py:build --images cifar10-train.npz --crop 32 \
                               --augment upright --batch 64 --steps 5000 --out transformer.safetensors
    underfire attack --model examples/compact_transformer.py:build --weights transformer.safetensors \
                     --images cifar10-test.npz --interpreter rollout,grad-rollout,grad-cam

After Hassani et al., Escaping the Big Data Paradigm with Compact Transformers, 2021. It needs the extra `timm`.
"""

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

WIDTH, SIDE = 96, 32


class Stem(nn.Sequential):
    """N × 3 × 32 × 32 to 8 × 8 tokens, N × 64 × width."""

    num_patches = (SIDE // 4) ** 2

    def __init__(self, **_: object) -> None:
        pool = nn.MaxPool2d(2)
        super().__init__(*convolution(3, 32), pool, *convolution(32, 64), pool, *convolution(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(2).transpose(1, 2)


def convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def build(num_classes: int = 10) -> nn.Module:
    """Six layers of three heads, and a class token."""
    return VisionTransformer(
        SIDE, num_classes=num_classes, embed_dim=WIDTH, depth=6, num_heads=3, mlp_ratio=2, embed_layer=Stem
    )
