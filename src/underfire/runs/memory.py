"""How many images are worked on at a time where nobody says: what a GPU's free memory holds.

largest_batch(classifier, image_set)      # 16 on a CPU
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from underfire.core.losses import cross_entropy, log_prob
from underfire.data.class_names import first_picture
from underfire.data.decode import Picture
from underfire.data.image_set import ImageSet
from underfire.models.classifier import Classifier

ON_CPU, MOST = 16, 256
HELD = 4  # bare passes that an attack on maps holds at a time, about: second derivatives, copies, what it remembers
SHARE = 0.5  # of what is free; the rest is for the library's own buffers, and others


class Memory(Protocol):
    """A device's memory, in bytes."""

    def free(self) -> int:
        """What nobody holds."""
        ...

    def peak(self, work: Callable[[], None]) -> int:
        """The most that is held while something is done."""
        ...


@dataclass(frozen=True)
class CudaMemory:
    """That of a GPU, by what PyTorch counts."""

    device: torch.device

    def free(self) -> int:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def peak(self, work: Callable[[], None]) -> int:
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device)


def largest_batch(classifier: Classifier, image_set: ImageSet) -> int:
    """How many of these images are attacked at a time on the classifier's device."""
    if classifier.device.type != "cuda" or (picture := first_picture(image_set)) is None:
        return ON_CPU
    return fitting(CudaMemory(classifier.device), partial(bare_pass, classifier, picture))


def fitting(memory: Memory, work: Callable[[int], None]) -> int:
    """The largest power of two of which `HELD` such works need no more than `SHARE` of what is free; at least one.

    What an image takes is measured as the difference that two more images make.
    """
    work(1)  # what is allocated once and for all
    few, more = (memory.peak(partial(work, count)) for count in (2, 4))
    each = max(1, (more - few) // 2)
    room = max(1, min(MOST, int(SHARE * memory.free() / (HELD * each))))
    return 1 << room.bit_length() - 1


def bare_pass(classifier: Classifier, picture: Picture, count: int) -> None:
    """One forward pass and one gradient in so many copies of an image."""
    x = picture.to(classifier.device).expand(count, *picture.shape).clone().requires_grad_()
    y = torch.zeros(count, dtype=torch.int64, device=classifier.device)
    with torch.enable_grad():
        torch.autograd.grad(cross_entropy(log_prob(classifier(x), y)).sum(), x)
