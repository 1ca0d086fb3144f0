"""One training loop for all our networks; what is minimised is passed in.

    network = initialised(DemoClassifier, seed=0)
    fit(network, batch=draw, loss=per_image, steps=1000, lr=3e-3)

No global generator is read or moved: initial weights come from a seed, batches from their step.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from underfire.rng import uniform
from underfire.types import Labels, Row, UnderfireError

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


def initialised(build: Callable[[], Network], seed: int) -> Network:
    """A network with random weights that depend on the seed alone, built on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def shuffled(count: int, size: int, seed: int) -> Callable[[int], Labels]:
    """Step -> the indices of its batch: each epoch visits `count` images once, in an order of its own.

    An epoch has count // size batches; its last count % size images are left out.
    """
    if not 1 <= size <= count:
        raise UnderfireError(f"A batch needs between 1 and {count} images, not {size}.")

    def indices(step: int) -> Labels:
        epoch, place = divmod(step, count // size)
        images = torch.arange(count)
        order = uniform(seed, "data order", images, torch.full_like(images, epoch), 1).flatten().argsort()
        return order[place * size : (place + 1) * size]

    return indices


def fit(
    network: Network,
    batch: Callable[[int], Batch],
    loss: Callable[[Network, Batch], Row],
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Minimise the mean over images of `loss` in place by AdamW under a one-cycle schedule peaking at `lr`.

    batch(step) gives the data of a step; on_step(step, mean loss) is told of progress. Leaves the
    network in evaluation mode. UnderfireError if the loss stops being finite.
    """
    if steps < 1:
        raise UnderfireError(f"Training needs at least one step, not {steps}.")
    optimiser = AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
    network.train()
    for step in range(steps):
        losses = loss(network, batch(step))
        mean = losses.sum() / len(losses)
        if not math.isfinite(mean.item()):
            raise UnderfireError(f"The training loss is {mean.item()} at step {step}; lower the learning rate.")
        optimiser.zero_grad()
        torch.autograd.backward(mean)
        optimiser.step()
        schedule.step()
        if on_step is not None:
            on_step(step, mean.item())
    network.eval()
