"""How a network wants its images: in which memory format, in colour or grey, and whether gradients come back.

    intake = find_intake(network, z, two_sided)      # z: one normalised image, which is passed twice
    output = network(intake.images(z))

On a CPU channels_last is faster, but no network needs to bear it. Networks of one input channel see the picture's grey.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from underfire.core.types import Images, Logits
from underfire.models.outputs import find_scores

LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601


@dataclass(frozen=True)
class Intake:
    """What was found; `where` tells where in its output the scores are, `columns` how many there are of an image."""

    memory_format: torch.memory_format = torch.contiguous_format
    grey: bool = False
    differentiable: bool = True
    where: str = ""
    columns: int = 0  # where no pass succeeded

    def images(self, z: Tensor) -> Tensor:
        """Normalised images as the network takes them."""
        return _prepared(z, self.memory_format, self.grey)


def find_intake(network: nn.Module, z: Images, read: Callable[[Tensor], Logits]) -> Intake:
    """By passing an image; a network that fails altogether shall do so in the pass that was asked for.

    The first way that works is taken, colour before grey. Weights are left in the memory format that is found.
    """
    found = list[Intake]()
    for intake in _tried(network, z, read):
        found.append(intake)
        if intake.differentiable:
            return intake
    network.to(memory_format=torch.contiguous_format)
    return found[-1] if found else Intake()


def _tried(network: nn.Module, z: Images, read: Callable[[Tensor], Logits]) -> Iterator[Intake]:
    """Each way that the network bears, the preferred ones first."""
    formats = (torch.channels_last, torch.contiguous_format) if z.device.type == "cpu" else (torch.contiguous_format,)
    for grey, memory_format in product((False, True), formats):
        with suppress(RuntimeError):  # weights of five axes
            network.to(memory_format=memory_format)
            intake = _try(network, z, read, memory_format, grey)
            if intake is not None:
                yield intake


def _try(
    network: nn.Module, z: Images, read: Callable[[Tensor], Logits], memory_format: torch.memory_format, grey: bool
) -> Intake | None:
    """How an image, twice, passes the network; None if it does not."""
    with torch.inference_mode(False), torch.enable_grad():
        inputs = z.detach().repeat(2, 1, 1, 1).requires_grad_()
        try:
            scores, where = find_scores(network(_prepared(inputs, memory_format, grey)), 2)
            logits = read(scores)
        except MemoryError:
            raise
        except Exception:
            return None
        try:
            gradient = torch.autograd.grad(logits.sum(), inputs, allow_unused=True)[0]
        except Exception:
            gradient = None
        return Intake(memory_format, grey, gradient is not None, where, scores.shape[1])


def _prepared(z: Tensor, memory_format: torch.memory_format, grey: bool) -> Tensor:
    seen = (z * z.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True) if grey else z
    return seen.contiguous(memory_format=memory_format)
