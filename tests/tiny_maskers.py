"""RTS with a masker of random weights, the same in every run, for any of the tiny networks.

model = classifier("resnet")
maps = tiny_rts(model).explain(model, images(3), y, keys)
"""

from pathlib import Path

import torch

from tiny_networks import CLASSES, images
from underfire.interpreters import RTS
from underfire.interpreters.rts import find_scales
from underfire.models.classifier import Classifier
from underfire.models.files import Encoder, MaskerManifest, write_network
from underfire.models.masker import Masker, MaskerNetwork
from underfire.training.loop import initialised

WIDTH = 8


def tiny_rts(model: Classifier) -> RTS:
    manifest, network = tiny_masker(model)
    return RTS("tiny", Masker(manifest, network.requires_grad_(False).eval(), "tiny"))


def tiny_masker(model: Classifier, seed: int = 0) -> tuple[MaskerManifest, MaskerNetwork]:
    """What a masker's file holds. The network inside a wrapper is traced in its place, so that no call is counted."""
    inside = getattr(model.network, "net", model.network)
    prefix = "" if inside is model.network else "net."
    scales = find_scales(Classifier(inside, model.mean, model.std), images(1, dtype=model.dtype))
    channels = tuple(scale.channels for scale in scales)
    with torch.inference_mode(False):
        network = initialised(lambda: MaskerNetwork(channels, CLASSES, WIDTH), seed)
    encoder = Encoder(layers=tuple(prefix + scale.layer for scale in scales), channels=channels)
    return MaskerManifest(classifier=model.fingerprint(), classes=CLASSES, encoder=encoder, width=WIDTH), network


def masker_file(path: Path, model: Classifier, seed: int = 0) -> Path:
    """The same in a file."""
    write_network(path, *tiny_masker(model, seed))
    return path
