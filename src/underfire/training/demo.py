"""The recipe behind the demo classifier's weights: fresh synthetic scenes at every step.

    accuracy = retrain(Path("demo-classifier.safetensors"))

Scenes of three seeds keep apart what is fitted, what sets the batch statistics and what is held out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import update_bn

from underfire.core.io import write_atomically
from underfire.core.losses import smoothed_cross_entropy
from underfire.core.types import Images, Row, Samples
from underfire.data.scenes import scenes
from underfire.models.demo import DEMO_MEAN, DEMO_STD, DemoClassifier, Normalised
from underfire.training.loop import fit, initialised

FITTED, STATISTICS, HELD_OUT = 9001, 9002, 9003  # seeds of scenes
STEPS, BATCH = 1200, 50
MEASURED, JUDGED = 2000, 1000  # scenes for batch statistics, and held-out ones


def retrain(path: Path, on_step: Callable[[int, float], None] | None = None, steps: int = STEPS) -> float:
    """Train the demo classifier, write its weights as safetensors and return its held-out accuracy."""
    network = train_demo_classifier(steps, on_step=on_step)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary))
    return accuracy(network, scenes(JUDGED, HELD_OUT).samples)


def train_demo_classifier(
    steps: int = STEPS, seed: int = 0, on_step: Callable[[int, float], None] | None = None
) -> nn.Module:
    """The demo classifier after `steps` batches, its batch statistics measured at the final weights."""

    def batch(step: int) -> Samples:
        return scenes(BATCH, FITTED, first=step * BATCH).samples

    network = initialised(DemoClassifier, seed).to(memory_format=torch.channels_last)
    fit(network, batch, _loss, steps=steps, lr=4e-3, weight_decay=0.05, on_step=on_step)
    update_bn(_statistics_batches(), network)
    return network.eval()


def accuracy(network: nn.Module, samples: Samples) -> float:
    """Share of samples whose largest logit is that of their class."""
    with torch.no_grad():
        hits = [
            network(normalise(images)).argmax(1) == labels
            for images, labels in zip(
                torch.split(samples.images, BATCH), torch.split(samples.labels, BATCH), strict=True
            )
        ]
    return torch.cat(hits).double().mean().item()


def normalise(images: Images) -> Normalised:
    """What the demo classifier is fed."""
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (DEMO_MEAN, DEMO_STD))
    return (images - mean) / std


def _loss(network: nn.Module, samples: Samples) -> Row:
    logits = network(normalise(samples.images))
    return smoothed_cross_entropy(logits, samples.labels, torch.full((len(logits),), 0.95))


def _statistics_batches() -> Iterator[Normalised]:
    for first in range(0, MEASURED, BATCH):
        yield normalise(scenes(BATCH, STATISTICS, first=first).samples.images)
