"""One training loop for all our networks; what is minimised is passed in.

    network = initialised(DemoClassifier, seed=0)
    fit(network, batch=draw, loss=per_image, steps=1000, lr=3e-3)
    fit(…, held_out=HeldOut(score, 100, 5), checkpoint=Checkpoint(path, "which training"))

No global generator is read or moved: initial weights come from a seed, batches from their step.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from underfire.core.errors import UnderfireError
from underfire.core.io import write_atomically
from underfire.core.rng import integers, uniform
from underfire.core.types import Labels, Row

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


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
        order = _order(count, seed, "data order", epoch)
        return order[place * size : (place + 1) * size]

    return indices


def balanced(labels: Labels, size: int, seed: int) -> Callable[[int], Labels]:
    """Step -> the indices of its batch: classes take turns, and each class's images take turns within it.

    Every class that occurs comes up equally often, in an order that changes from round to round, and so do its
    images from one pass through the class to the next.
    """
    members = [(labels == label).nonzero()[:, 0] for label in sorted(set(labels.tolist()))]
    if size < 1 or not members:
        raise UnderfireError(f"A batch needs one or more of at least one image, not {size} of {len(labels)}.")

    def index(place: int) -> Tensor:
        turn, position = divmod(place, len(members))
        of_class = members[_order(len(members), seed, "class order", turn)[position]]
        passes, position = divmod(turn, len(of_class))
        image: Tensor = of_class[_order(len(of_class), seed, "order within a class", passes)[position]]
        return image

    return lambda step: torch.stack([index(place) for place in range(step * size, (step + 1) * size)])


def _order(count: int, seed: int, purpose: str, epoch: int) -> Labels:
    images = torch.arange(count)
    order: Tensor = uniform(seed, purpose, images, torch.full_like(images, epoch), 1).flatten().argsort()
    return order


@contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Layers that draw numbers of their own, such as dropout, draw those of this step; global generators stay."""
    key = torch.zeros(1, dtype=torch.int64)
    number = int(integers(seed, "layers", key, key + step, 1, 2**31))
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        (torch.cuda if on_gpu else torch).manual_seed(number)
        yield


def check_same_training(beginning: str, held: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """UnderfireError, a sentence with this beginning, unless a finished training was that of this identity."""
    if differing := [name for name, value in identity.items() if held.get(name) != value]:
        changes = "; ".join(f"{name} was {held.get(name)} and is now {identity[name]}" for name in differing)
        raise UnderfireError(f"{beginning} of another training: {changes}. Choose another --out.")


@dataclass(frozen=True)
class HeldOut:
    """Judges the network every so many steps and at the end; the best one is kept.

    score is lower for better networks. After `patience` judgements without a better one the training stops.
    """

    score: Callable[[Any], float]
    every: int
    patience: int


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a training is kept every so many steps; `identity` says which training it is."""

    path: Path
    identity: str
    every: int = 50


def fit(
    network: Network,
    batch: Callable[[int], Batch],
    loss: Callable[[Network, Batch], Row],
    *,
    steps: int,
    lr: float,
    weight_decay: float = 0.01,
    on_step: Callable[[int, float], None] | None = None,
    held_out: HeldOut | None = None,
    checkpoint: Checkpoint | None = None,
    memory: Mapping[str, Tensor] = NOTHING,
) -> int:
    """Minimise the mean over images of `loss` in place by AdamW under a one-cycle schedule peaking at `lr`.

    batch(step) gives the data of a step; on_step(step, mean loss) is told of progress. Goes on from the
    checkpoint if there is one, to the same bits as without the interruption; a place that cannot be written to
    is found out before the first step. `memory` holds whatever else batches and scores write to in place: it is
    kept in the checkpoint too. Leaves the network in evaluation mode and returns the number of steps done.
    UnderfireError if the loss stops being finite.
    """
    if steps < 1:
        raise UnderfireError(f"Training needs at least one step, not {steps}.")
    progress = _Progress(network, AdamW(network.parameters(), lr=lr, weight_decay=weight_decay), memory)
    if checkpoint is not None:
        (progress.restore if checkpoint.path.exists() else progress.save)(checkpoint)
    schedule = OneCycleLR(progress.optimiser, max_lr=lr, total_steps=steps, last_epoch=progress.done - 1)
    network.train()
    while progress.done < steps and not (held_out and progress.stale >= held_out.patience):
        mean = progress.descend(loss(network, batch(progress.done)))
        schedule.step()
        if on_step is not None:
            on_step(progress.done, mean)
        progress.done += 1
        if held_out and (progress.done % held_out.every == 0 or progress.done == steps):
            progress.judge(held_out)
        if checkpoint and progress.done % checkpoint.every == 0:
            progress.save(checkpoint)
    if progress.best_weights:
        network.load_state_dict(progress.best_weights)
    network.eval()
    return progress.done


class _Progress:
    """How far a training has come, and the best network so far."""

    def __init__(self, network: nn.Module, optimiser: AdamW, memory: Mapping[str, Tensor]) -> None:
        self.network, self.optimiser, self.memory = network, optimiser, memory
        self.done = self.stale = 0
        self.best = math.inf
        self.best_weights: dict[str, Tensor] = {}

    def descend(self, losses: Row) -> float:
        """One step down the mean of the losses, which it returns."""
        mean = losses.sum() / len(losses)
        value = mean.item()
        if not math.isfinite(value):
            raise UnderfireError(f"The training loss is {value} at step {self.done}; lower the learning rate.")
        self.optimiser.zero_grad()
        torch.autograd.backward(mean)
        self.optimiser.step()
        return value

    def judge(self, held_out: HeldOut) -> None:
        self.network.eval()
        with torch.no_grad():
            score = held_out.score(self.network)
        self.network.train()
        self.stale += 1
        if score < self.best:
            self.best, self.stale = score, 0
            self.best_weights = {name: value.clone() for name, value in self.network.state_dict().items()}

    def save(self, checkpoint: Checkpoint) -> None:
        optimiser = self.optimiser.state_dict()
        tensors = {
            **{f"network.{name}": value for name, value in self.network.state_dict().items()},
            **{f"best.{name}": value for name, value in self.best_weights.items()},
            **{f"memory.{name}": value for name, value in self.memory.items()},
            **{f"{i}.{name}": value for i, state in optimiser["state"].items() for name, value in state.items()},
        }
        counters = {"done": self.done, "stale": self.stale, "best": self.best, "groups": optimiser["param_groups"]}
        metadata = {"identity": checkpoint.identity, "counters": json.dumps(counters)}
        owned = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        write_atomically(checkpoint.path, lambda temporary: save_file(owned, temporary, metadata=metadata))

    def restore(self, checkpoint: Checkpoint) -> None:
        try:
            with safe_open(checkpoint.path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            identity, counters = metadata["identity"], json.loads(metadata["counters"])
        except (SafetensorError, OSError, KeyError, ValueError) as problem:
            raise UnderfireError(f"The checkpoint {checkpoint.path} is damaged; delete it to begin anew.") from problem
        if identity != checkpoint.identity:
            raise UnderfireError(
                f"{checkpoint.path} is the checkpoint of a training with other settings, model or images; "
                "delete it to begin anew, or choose another --out."
            )
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            groups.setdefault(group, {})[rest] = value
        self.network.load_state_dict(groups.pop("network"))
        self.best_weights = groups.pop("best", {})
        for name, value in groups.pop("memory", {}).items():
            self.memory[name].copy_(value)
        state = {int(group): values for group, values in groups.items()}
        self.optimiser.load_state_dict({"state": state, "param_groups": counters["groups"]})
        self.done, self.stale, self.best = counters["done"], counters["stale"], counters["best"]
