"""How many images are worked on at a time: by a memory that is only counted, and by real passes on this processor."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from tiny_networks import classifier, images
from underfire.data.demo import demo_images
from underfire.runs.memory import HELD, MOST, ON_CPU, SHARE, bare_pass, fitting, largest_batch


@dataclass
class Counted:
    """So many bytes, of which some are held for good and some by each image."""

    total: int
    each: int
    fixed: int = 1000
    counts: list[int] = field(default_factory=list)

    def work(self, count: int) -> None:
        self.counts.append(count)

    def free(self) -> int:
        return self.total - self.fixed

    def peak(self, work: Callable[[], None]) -> int:
        work()
        return self.fixed + self.each * self.counts[-1]


@pytest.mark.parametrize(("room", "expected"), [(0.5, 1), (1, 1), (2, 2), (3.9, 2), (64, 64), (100, 64), (1e6, MOST)])
def test_as_many_as_fit_in_the_share_of_what_is_free(room: float, expected: int) -> None:
    memory = Counted(total=1000 + int(room * HELD * 50 / SHARE), each=50)
    assert fitting(memory, memory.work) == expected
    assert max(memory.counts) == 4, "it is measured on few images"


def test_a_network_that_holds_nothing_takes_the_most() -> None:
    memory = Counted(total=10**9, each=0)
    assert fitting(memory, memory.work) == MOST


def test_what_is_measured_is_a_pass_and_its_gradient() -> None:
    model, seen = classifier("tanh"), []
    model.network.register_forward_hook(lambda network, given, logits: seen.append((len(given[0]), logits.grad_fn)))
    with torch.no_grad():
        bare_pass(model, images(1)[0], 3)
    count, graph = seen[-1]  # after what the classifier asks once, on a few pictures
    assert count == 3
    assert graph is not None


def test_on_a_processor_nothing_is_tried() -> None:
    model = classifier("tanh")
    model.network.register_forward_hook(lambda network, given, logits: pytest.fail("an image was passed"))
    assert largest_batch(model, demo_images(1)) == ON_CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_small_network_takes_the_most() -> None:
    model = classifier("tanh").to(torch.device("cuda"))
    assert largest_batch(model, demo_images(1)) == MOST
