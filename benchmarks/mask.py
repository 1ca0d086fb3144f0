"""What MASK and RTS cost, against the passes that they cannot do without.

    python benchmarks/mask.py                # print a table
    python benchmarks/mask.py --write        # and put it into docs/benchmarks.md

The unit is the bare pass of benchmarks/step.py: forward, log probability, gradient in the input. Two other kinds of
pass are measured in it, in the same minutes: a forward pass alone, and a second-order pass (forward, gradient with a
graph, and the derivative of that gradient along a direction). A step of each attack is then compared with the sum
of the passes that its definition asks for:

    MASK         4 first-order iterations, 1 pass for the prediction and 2 for the difference that moves the map
    MASK, paper  4 first-order iterations, 4 more for the map where the step begins, 1 pass for the step down the
                 prediction's gradient, 4 second-order iterations and 1 forward pass where that led, 12 for the search

RTS is compared with forward and gradient through classifier and masker alone, without the package's loop.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from step import SIDE, Bench, seconds, write

from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.interpreters import MASK, RTS
from underfire.interpreters.mask.solver import Solver
from underfire.interpreters.rts import find_scales
from underfire.models.files import Encoder, MaskerManifest
from underfire.models.masker import Masker, MaskerNetwork
from underfire.models.tracing import watching
from underfire.training.loop import initialised

ITERATIONS = 4  # of the deployed solver in one timing
BEGIN, END = "<!-- written by benchmarks/mask.py --write -->\n", "<!-- end of MASK and RTS -->"


@dataclass(frozen=True)
class Case:
    """Something to time, and how many passes of each kind it needs."""

    run: Callable[[], object]
    passes: Mapping[str, int]
    goal: float | None = None


def cases(bench: Bench) -> dict[str, Case]:
    """What is timed; bare passes, the unit, are not among it."""
    few = MASK(Solver(steps=ITERATIONS))
    return {
        "forward": Case(bench.forward, {}),
        "second order": Case(second_order(bench), {}),
        "MASK, deployed": Case(partial(explain, bench, few), {"bare": ITERATIONS}, 1.15),
        "MASK": Case(one_step(bench, solvers.adv2(few)), {"bare": 4 + 1 + 2}, 1.25),
        "MASK, paper": Case(
            one_step(bench, solvers.adv2(few, recipe="paper")),
            {"bare": 4 + 4 + 1, "second order": 4, "forward": 1 + 12},
            1.25,
        ),
        "classifier + masker": Case(masker_pass(bench), {}),
        "RTS": Case(one_step(bench, solvers.adv2(rts(bench))), {"classifier + masker": 1}, 1.15),
    }


def second_order(bench: Bench) -> Callable[[], object]:
    """Forward, gradient with a graph, and the derivative of the gradient along a direction."""
    x, target = bench.inputs()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)

    def run() -> object:
        log_prob = bench.classifier.network(x).log_softmax(1).gather(1, target)
        (gradient,) = torch.autograd.grad(log_prob.sum(), x, create_graph=True)
        return torch.autograd.grad((gradient * direction).sum(), x)

    return run


def explain(bench: Bench, interpreter: MASK) -> object:
    device = bench.classifier.device
    x, target, keys = (rows.to(device) for rows in (bench.goal.image, bench.goal.target, bench.goal.key))
    return interpreter.explain(bench.classifier, x, target, keys)


def one_step(bench: Bench, attack: Attack) -> Callable[[], engine.Slots]:
    attack = replace(attack, quantum=1, warm_start=None)
    return partial(bench.step, attack, bench.slots(attack))


def rts(bench: Bench) -> RTS:
    """With a masker of random weights and the size that training gives it."""
    classifier, classes = bench.classifier, bench.classifier(bench.goal.image[:1].to(bench.classifier.device))
    scales = find_scales(classifier, bench.goal.image[:1].to(classifier.device))
    encoder = Encoder(layers=tuple(s.layer for s in scales), channels=tuple(s.channels for s in scales))
    network = initialised(lambda: MaskerNetwork(encoder.channels, classes.logits.shape[1]), 0)
    network = network.requires_grad_(False).eval().to(classifier.device)
    manifest = MaskerManifest(
        classifier=classifier.fingerprint(), classes=classes.logits.shape[1], encoder=encoder, width=32
    )
    return RTS("random", Masker(manifest, network, "random"))


def masker_pass(bench: Bench) -> Callable[[], object]:
    """Forward through classifier and masker, and the gradient of a loss of both in the input."""
    masker, (x, target) = rts(bench).masker, bench.inputs()
    layers = {name: bench.classifier.network.get_submodule(name) for name in masker.manifest.encoder.layers}
    outputs: dict[str, torch.Tensor] = {}

    def run() -> object:
        with watching(layers.items(), lambda name, module, inputs, output: outputs.__setitem__(name, output)):
            log_prob = bench.classifier.network(x).log_softmax(1).gather(1, target)
        maps = masker.network([outputs[name] for name in layers], target[:, 0], SIDE // 4, SIDE // 4)
        return torch.autograd.grad(log_prob.sum() + maps.square().sum(), x)

    return run


def measure(network: str, batch: int, rounds: int, device: str) -> tuple[float, dict[str, float], dict[str, Case]]:
    """Seconds of a bare pass, and the median cost of each case in bare passes run just before and after it."""
    bench = Bench.of(network, batch, device)
    named, bare = cases(bench), bench.bare()
    units: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in named}
    for case in (bare, *(case.run for case in named.values())):
        case()
    for shift in range(rounds):
        order = list(named)[shift % len(named) :] + list(named)[: shift % len(named)]
        before = seconds(bare, device)
        for name in order:
            spent, after = seconds(named[name].run, device), seconds(bare, device)
            units.append((before + after) / 2)
            ratios[name].append(spent / units[-1])
            before = after
    return statistics.median(units), {name: statistics.median(found) for name, found in ratios.items()}, named


def table(networks: list[str], batch: int, rounds: int, device: str) -> str:
    """Everything measured, as a Markdown table."""
    shown = Table(box=MARKDOWN)
    for name in ("network", "what", "in bare passes", "passes it needs", "ratio", "goal"):
        shown.add_column(name, justify="left" if name in ("network", "what", "passes it needs") else "right")
    for network in networks:
        unit, costs, named = measure(network, batch, rounds, device)
        shown.add_row(network, "bare", f"{1000 * unit:.0f} ms", "", "", "")
        for what, case in named.items():
            needed = sum(count * {"bare": 1.0, **costs}[kind] for kind, count in case.passes.items())
            passes = " + ".join(f"{count} {kind}" for kind, count in case.passes.items())
            ratio, goal = (f"{costs[what] / needed:.3f}", f"≤ {case.goal:.2f}") if needed and case.goal else ("", "")
            shown.add_row(network, what, f"{costs[what]:.2f}", passes, ratio, goal)
    console = Console(width=140)
    with console.capture() as captured:
        console.print(shown)
    return "\n".join(line.strip() for line in captured.get().splitlines() if line.strip())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="squeezenet1_1,resnet18", help="names of torchvision models")
    parser.add_argument("--batch", type=int, default=4, help="images in the batch")
    parser.add_argument("--rounds", type=int, default=7, help="how often each case is timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    measured = (
        f"{'One thread' if options.device == 'cpu' else torch.cuda.get_device_name()}, load {load:.1f} at the start; "
        f"torch {version('torch')}; batch {options.batch}, {SIDE} × {SIDE} pixels, {options.rounds} rounds.\n\n"
        f"{table(options.networks.split(','), options.batch, options.rounds, options.device)}"
    )
    print(measured)
    if options.write:
        write(measured, BEGIN, END)


if __name__ == "__main__":
    main()
