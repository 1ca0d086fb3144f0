"""What one attack step costs, in units of what no attack can do without: one forward pass and one input gradient.

    python benchmarks/step.py                # print a table
    python benchmarks/step.py --write        # and put it into docs/benchmarks.md

The unit ("bare") is the same network in evaluation mode with frozen parameters, on the same batch: the log
probability of the target and its gradient in the normalised input. Bare passes and steps alternate, and each step
is divided by the mean of the bare passes before and after it, so that other work on the machine, which slows both,
drops out of the ratio; on a CPU one thread works, and its processor time counts. A step is the engine's own, with
all its bookkeeping; judging by the deployed interpreter comes once per quantum of 50 steps and is timed apart.
"""

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import torch
import torchvision
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from underfire import CAM, GRAD, Classifier, OneSidedDifferences
from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.core.rng import image_keys
from underfire.core.types import Goal

SIDE = 224
GOALS = {"PGD": 1.03, "CAM": 1.10, "GRAD": 3.3, "GRAD, one-sided": 2.3, "GRAD, paper's gate": None}
DOCUMENT = Path(__file__).parents[1] / "docs" / "benchmarks.md"
Peaks = dict[tuple[str, str | None], float]  # MiB by network and attack, None for the bare pass
BEGIN, END = "<!-- written by benchmarks/step.py --write -->\n", "<!-- end -->"


@dataclass
class Timing:
    """What a network cost: seconds of bare passes, and by attack the ratios of steps and of judging to them."""

    bare: list[float]
    steps: dict[str, list[float]]
    judges: dict[str, list[float]]


def attacks() -> dict[str, Attack]:
    """What is timed, one step at a time."""
    named = {
        "PGD": solvers.pgd(),
        "CAM": solvers.adv2(CAM()),
        "GRAD": solvers.adv2(GRAD()),
        "GRAD, one-sided": solvers.adv2(GRAD(OneSidedDifferences())),
        "GRAD, paper's gate": solvers.adv2(GRAD(), recipe="paper"),
    }
    return {name: replace(attack, quantum=1, warm_start=None) for name, attack in named.items()}


@dataclass(frozen=True)
class Bench:
    """A network with random weights and a batch to attack."""

    classifier: Classifier
    goal: Goal

    @classmethod
    def of(cls, network: str, batch: int, device: str) -> "Bench":
        torch.manual_seed(0)
        classifier = Classifier(torchvision.models.get_model(network, weights=None), device=device)
        images = torch.rand(batch, 3, SIDE, SIDE)
        target = torch.arange(batch)
        goal = Goal(image_keys(map(str, range(batch))), images, target, torch.zeros(batch, 1, 1))
        return cls(classifier, goal)

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised images as a leaf, in the layout that suits the device, and a column of targets."""
        layout = torch.channels_last if self.classifier.device.type == "cpu" else torch.contiguous_format
        x = self.goal.image.to(self.classifier.device).contiguous(memory_format=layout).requires_grad_()
        return x, self.goal.target.to(self.classifier.device)[:, None]

    def forward(self) -> object:
        """A forward pass alone."""
        with torch.no_grad():
            return self.classifier.network(self.inputs()[0].detach())

    def bare(self) -> Callable[[], object]:
        """The unit: forward, log probability of the target, gradient in the input."""
        x, target = self.inputs()

        def run() -> object:
            log_prob = self.classifier.network(x).log_softmax(1).gather(1, target)
            return torch.autograd.grad(log_prob.sum(), x)

        return run

    def slots(self, attack: Attack) -> engine.Slots:
        """The batch in its slots, aiming at the benign maps."""
        x, device = self.goal.image, self.classifier.device
        maps = attack.interpreter.explain(
            self.classifier, x.to(device), self.goal.target.to(device), self.goal.key.to(device)
        )
        goal = replace(self.goal, target_map=maps.cpu())
        return engine._fresh(attack, self.classifier, goal, attack.perturbation.init(x), list(range(len(x))))

    def step(self, attack: Attack, slots: engine.Slots) -> engine.Slots:
        return engine._quantum(attack, self.classifier, slots, lambda *_: None)

    def judge(self, attack: Attack, slots: engine.Slots) -> object:
        judged = engine._judge(attack, self.classifier, slots)
        return judged, engine._settled(attack, self.classifier, judged)


def measure(network: str, batch: int, rounds: int, device: str) -> Timing:
    """All attacks in turn in every round, each round beginning with another one."""
    bench, named = Bench.of(network, batch, device), attacks()
    bare, slots = bench.bare(), {name: bench.slots(attack) for name, attack in named.items()}
    timing = Timing([], {name: [] for name in named}, {name: [] for name in named})
    bare()
    for shift in range(rounds):
        order = list(named)[shift % len(named) :] + list(named)[: shift % len(named)]
        before = seconds(bare, device)
        for name in order:
            stepping = seconds(partial(bench.step, named[name], slots[name]), device)
            judging = seconds(partial(bench.judge, named[name], slots[name]), device)
            after = seconds(bare, device)
            unit = (before + after) / 2
            timing.bare.append(unit)
            timing.steps[name].append(stepping / unit)
            timing.judges[name].append(judging / unit)
            before = after
    return timing


def seconds(run: Callable[[], object], device: str) -> float:
    """How long one call takes: processor time of this one thread on a CPU, wall time on a GPU."""
    if device == "cpu":
        begun = time.process_time()
        run()
        return time.process_time() - begun
    torch.cuda.synchronize(device)
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def peak_memory(network: str, attack: str | None, batch: int, device: str) -> float:
    """Peak memory in MiB of a process that does nothing but the bare pass (attack None) or two steps of an attack."""
    bench = Bench.of(network, batch, device)
    if attack is None:
        bench.bare()()
    else:
        chosen = attacks()[attack]
        bench.step(chosen, bench.step(chosen, bench.slots(chosen)))
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # KiB on Linux


def memories(networks: list[str], batch: int, device: str) -> Peaks:
    """The peak of each configuration in a process of its own.

    Run this first: Linux counts into a new process's peak what its parent held when it was started.
    """
    cases = [(network, attack) for network in networks for attack in (None, *attacks())]
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        peaks = processes.map(peak_memory, *zip(*((*case, batch, device) for case in cases), strict=True))
        return dict(zip(cases, peaks, strict=True))


def table(timings: dict[str, Timing], peaks: Peaks) -> str:
    """Everything measured, as a Markdown table."""
    shown = Table(box=MARKDOWN)
    for name in ("network", "attack", "step / bare", "middle half", "goal", "judging / bare", "peak memory"):
        shown.add_column(name, justify="left" if name in ("network", "attack") else "right", no_wrap=True)
    for network, timing in timings.items():
        unit = f"{1000 * statistics.median(timing.bare):.0f} ms"
        shown.add_row(network, "bare", unit, "", "", "", f"{peaks[network, None]:.0f} MiB")
        for attack, ratios in timing.steps.items():
            low, median, high = statistics.quantiles(ratios, n=4)
            goal = "" if GOALS[attack] is None else f"≤ {GOALS[attack]:.2f}"
            judging = f"{statistics.median(timing.judges[attack]):.2f}"
            memory = f"{peaks[network, attack]:.0f} MiB"
            shown.add_row(network, attack, f"{median:.3f}", f"{low:.3f} to {high:.3f}", goal, judging, memory)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.strip() for line in captured.get().splitlines() if line.strip())


def write(measured: str, begin: str, end: str) -> None:
    """Replace what stands between these marks in docs/benchmarks.md; what is said around it stays."""
    head, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    tail = rest.partition(end)[2]
    DOCUMENT.write_text(f"{head}{begin}\n{measured}\n\n{end}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="squeezenet1_1,resnet18,resnet50", help="names of torchvision models")
    parser.add_argument("--batch", type=int, default=4, help="images in the batch")
    parser.add_argument("--rounds", type=int, default=7, help="how often each attack is timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    networks, load = options.networks.split(","), os.getloadavg()[0]
    peaks = memories(networks, options.batch, options.device)
    timings = {network: measure(network, options.batch, options.rounds, options.device) for network in networks}
    machine = (
        torch.cuda.get_device_name()
        if options.device != "cpu"
        else f"one thread of a {os.cpu_count()}-core {platform.machine()} CPU"
    )
    facts = (
        f"{machine}, load {load:.1f} at the start; "
        f"torch {version('torch')}, torchvision {version('torchvision')}, underfire {version('underfire')}; "
        f"batch {options.batch}, {SIDE} × {SIDE} pixels, {options.rounds} rounds."
    )
    measured = f"{facts}\n\n{table(timings, peaks)}"
    print(measured)
    if options.write:
        write(measured, BEGIN, END)


if __name__ == "__main__":
    main()
