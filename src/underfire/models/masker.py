"""The masker: a small network that turns a classifier's features into the mask of a class (Dabkowski and Gal 2017).

    masker = read_masker(Path("masker.safetensors"))
    mask = masker.network(features, y, rows, columns)         # features deepest first

Where the deepest features speak for class y they pass a selector, the rest is dimmed; a U-Net of pixel-shuffle
upsamplers brings them to the mask's grid:

    f'(i, j) = f(i, j) sigmoid( <e_y, f(i, j)> - confidence ),   m = |a| / (|a| + |b|)

A masker's file is safetensors with a JSON manifest that names its classifier; no code is ever read from it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from underfire.core.errors import UnderfireError, first_line
from underfire.core.image_ops import resize
from underfire.core.types import Features, Labels, Maps, Row
from underfire.models.files import MaskerManifest, read_manifest

FORMAT = 1
FLOOR = 1e-6  # of |a| + |b|
GROUPS = 8  # of channels normalised together, image by image
MANY_CLASSES = 100  # from here on a class must be spoken for clearly to pass the selector


Pyramid = Sequence[Float[Tensor, "n _ _ _"]]  # features of several sizes, deepest first


class MaskerNetwork(nn.Module):
    """Features at up to four scales, deepest first, to masks Nij in [0, 1]; every image is treated on its own."""

    prototypes: Tensor | None

    def __init__(self, channels: Sequence[int], classes: int, width: int = 32, prototypes: bool = False) -> None:
        super().__init__()
        deepest, *skips = channels
        self.confidence = 6.0 if classes >= MANY_CLASSES else 0.0
        self.standardise = nn.ModuleList(Standardise(count) for count in channels)
        self.embedding = nn.Parameter(torch.randn(classes, deepest) / deepest**0.5)
        self.entry = _block(deepest, width)
        self.up = nn.ModuleList(_upsampler(width) for _ in skips)
        self.skip = nn.ModuleList(nn.Conv2d(count, width, 1) for count in skips)
        self.merge = nn.ModuleList(_block(2 * width, width) for _ in skips)
        self.exit = nn.Conv2d(width, 2, 3, padding=1)
        self.register_buffer("prototypes", torch.zeros(classes, deepest) if prototypes else None)

    @torch.no_grad()
    def measure(self, features: Pyramid) -> None:
        """Take mean and deviation of each channel from these images."""
        for layer, values in zip(self.standardise, features, strict=True):
            assert isinstance(layer, Standardise)
            layer.mean.copy_(values.mean((0, 2, 3)))
            layer.deviation.copy_(values.std((0, 2, 3)).clamp_min(1e-3))

    def forward(self, features: Pyramid, y: Labels, rows: int, columns: int) -> Maps:
        deepest, *skips = (layer(f) for layer, f in zip(self.standardise, features, strict=True))
        x = self.entry(deepest * self.select(deepest, y)[:, None])
        for up, skip, merge, f in zip(self.up, self.skip, self.merge, skips, strict=True):
            x = merge(torch.cat([_fitted(up(x), *f.shape[2:]), skip(f)], 1))
        return share(_fitted(self.exit(x), rows, columns))

    def pool(self, deepest: Features) -> Float[Tensor, "n d"]:
        """The mean over cells of the standardised deepest features."""
        pooled: Tensor = self.standardise[0](deepest).mean((2, 3))
        return pooled

    def prototype_distance(self, deepest: Features, y: Labels) -> Row:
        """Mean squared difference of the pooled deepest features from those of the class's training images."""
        assert self.prototypes is not None
        return (self.pool(deepest) - self.prototypes[y]).square().mean(1)

    def select(self, deepest: Features, y: Labels) -> Maps:
        """How much each cell speaks for the class, in [0, 1].

        In double precision, so that a cell's place in the batch, which decides how exp is rounded, is not seen.
        """
        score = (self.embedding[y][:, :, None, None] * deepest).sum(1) - self.confidence
        return torch.sigmoid(score.double()).to(score.dtype)


class Standardise(nn.Module):
    """(x - mean) / deviation, channel by channel, as measured on training images."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Features) -> Features:
        return (x - self.mean[:, None, None]) / self.deviation[:, None, None]


def share(x: Float[Tensor, "n 2 i j"]) -> Maps:
    """|a| / (|a| + |b|) of two channels."""
    a, b = x.abs().unbind(1)
    return a / (a + b).clamp_min(FLOOR)


def _block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(GROUPS, outputs), nn.ReLU())


def _upsampler(width: int) -> nn.Module:
    """Pixel shuffle of a convolution whose four phases begin alike, which keeps checkerboards out of masks."""
    convolution = nn.Conv2d(width, 4 * width, 3, padding=1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, 0))
    return nn.Sequential(convolution, nn.PixelShuffle(2))


def _fitted(x: Features, rows: int, columns: int) -> Float[Tensor, "n d {rows} {columns}"]:
    return x if x.shape[2:] == (rows, columns) else resize(x, rows, columns)


@dataclass(frozen=True)
class Masker:
    """A trained network with its manifest; `digest` is the hash of the file it came from."""

    manifest: MaskerManifest
    network: MaskerNetwork
    digest: str


def read_masker(path: Path) -> Masker:
    """The masker in a file; UnderfireError if there is none, or if anything in it does not fit together."""
    if not path.is_file():
        raise UnderfireError(f"There is no masker {path}; train one with: underfire train rts --out {path}")
    try:
        with torch.inference_mode(False):
            tensors = load_file(path)
    except (SafetensorError, OSError) as problem:
        raise UnderfireError(f"{path} cannot be read as a masker: {first_line(problem)}.") from problem
    manifest = read_manifest(path, MaskerManifest)
    if manifest is None:
        raise UnderfireError(f"{path} holds tensors but no masker; train one with: underfire train rts --out {path}")
    if manifest.format != FORMAT:
        raise UnderfireError(f"{path} is a masker of format {manifest.format}; this version reads format {FORMAT}.")
    return Masker(manifest, _network(path, manifest, tensors), hashlib.blake2b(path.read_bytes()).hexdigest()[:32])


def _network(path: Path, manifest: MaskerManifest, tensors: Mapping[str, Tensor]) -> MaskerNetwork:
    """Built without memory of its own, so that a manifest cannot ask for more than its file holds."""
    encoder = manifest.encoder
    with torch.inference_mode(False), torch.device("meta"):
        try:
            network = MaskerNetwork(
                encoder.channels, manifest.classes, manifest.width, prototypes=not encoder.shares_classes
            )
            network.load_state_dict(tensors, assign=True)
        except (RuntimeError, ValueError) as problem:
            detail = " ".join(str(problem).split())[:200]
            raise UnderfireError(f"The masker in {path} is damaged: its weights do not fit: {detail}") from problem
    if not all(value.is_floating_point() and bool(value.isfinite().all()) for value in tensors.values()):
        raise UnderfireError(f"The masker in {path} is damaged: its weights are not all finite numbers.")
    return network.requires_grad_(False).eval()
