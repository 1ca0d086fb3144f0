"""What effort buys: the distance of attacked maps against passes of the classifier, the ladder beside fixed steps.

    python benchmarks/effort.py --model my_model.py:build --images photos/ --normalize imagenet --interpreter cam

Attacks the same images with every effort and with fixed numbers of steps, all from one warm start, prints a line each
and draws docs/images/effort-NAME.svg. A pass is one image through the classifier, the deployed maps by which iterates
are judged included; the warm start, which all share, is not. Distances are by draws that no attack has seen.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import EFFORTS, interpreter_name
from underfire.attacks.target_classes import random_class
from underfire.core import rows
from underfire.core.rng import image_keys
from underfire.core.types import Goal, Images, Keys, Labels, Logits, Maps, Samples
from underfire.data.demo import demo_images
from underfire.data.image_set import open_images
from underfire.data.selection import select
from underfire.interpreters import Interpreter
from underfire.interpreters.protocol import REPEATED, draws, scoring_draws
from underfire.interpreters.registry import interpreter_named
from underfire.metrics.maps import compare_draws, map_l1
from underfire.models.classifier import Classifier

PICTURES = Path(__file__).parents[1] / "docs" / "images"


class Counter:
    """How many images have gone through a classifier."""

    def __init__(self, classifier: Classifier) -> None:
        self.passes = 0
        classifier.network.register_forward_hook(self._count)

    def _count(self, network: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
        self.passes += len(given[0])


@dataclass(frozen=True)
class Trial:
    """One attack: passes and steps per image, and the distance that it left of each."""

    name: str
    passes: float
    steps: float
    map_l1: Tensor


@dataclass(frozen=True)
class Bench:
    """The images and what is known of their benign maps."""

    classifier: Classifier
    counter: Counter
    interpreter: Interpreter
    samples: Samples
    batch: int

    def explain(self, x: Images, y: Labels, draw: int) -> Maps:
        def explained(x: Images, y: Labels, keys: Keys) -> Maps:
            return self.interpreter.explain(self.classifier, x, y, keys)

        return rows.by_batch(explained, self.batch, x, y, image_keys(self.samples.ids, draw))

    def goal(self, seed: int) -> Goal:
        """Random targets and the benign maps."""
        x, labels, keys = self.samples.images, self.samples.labels, image_keys(self.samples.ids)
        with torch.no_grad():
            classes = self.classifier(x[:1]).shape[1]
        maps = self.explain(x, labels, 0)
        noise = map_l1(maps, self.explain(x, labels, REPEATED)) if draws(self.interpreter) else None
        return Goal(keys, x, random_class(labels, classes, keys, seed), maps, noise=noise)

    def measure(self, name: str, attack: Attack, goal: Goal, start: Tensor, benign: list[Maps]) -> Trial:
        before = self.counter.passes
        outcome = engine.run(replace(attack, warm_start=None), self.classifier, goal, self.batch, start=start)
        passes = (self.counter.passes - before) / len(goal.key)
        maps = [self.explain(outcome.image, outcome.predicted, draw) for draw in scoring_draws(self.interpreter)]
        return Trial(name, passes, float(outcome.steps.float().mean()), compare_draws(maps, benign)["map_l1"])


def trials(bench: Bench, steps: list[int], seed: int) -> list[Trial]:
    goal, interpreter = bench.goal(seed), bench.interpreter
    benign = [bench.explain(goal.image, bench.samples.labels, draw) for draw in scoring_draws(interpreter)]
    attacks = {f"{n} steps": solvers.adv2(interpreter, steps=n, seed=seed) for n in steps}
    attacks |= {effort: solvers.adv2(interpreter, effort=effort, seed=seed) for effort in EFFORTS}
    warm_start = attacks[EFFORTS[0]].warm_start
    assert warm_start is not None
    start = engine.run(warm_start, bench.classifier, goal, bench.batch).theta
    found = []
    for name, attack in attacks.items():
        found.append(bench.measure(name, attack, goal, start, benign))
        distance = found[-1].map_l1
        print(
            f"{name}: {found[-1].passes:.0f} passes and {found[-1].steps:.0f} steps an image, "
            f"distance {distance.mean():.4f} (median {distance.median():.4f})",
            flush=True,
        )
    return found


def draw(found: list[Trial], title: str, path: Path) -> None:
    figure, panel = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for label, chosen, style in (
        ("fixed steps", [each for each in found if each.name not in EFFORTS], "o--"),
        ("effort", [each for each in found if each.name in EFFORTS], "s-"),
    ):
        panel.plot(
            [each.passes for each in chosen], [float(each.map_l1.median()) for each in chosen], style, label=label
        )
        for each in chosen:
            place = each.passes, float(each.map_l1.median())
            panel.annotate(each.name, place, textcoords="offset points", xytext=(4, 5), fontsize=7)
    panel.set(xscale="log", xlabel="passes per image after the warm start", ylabel="median L1 distance", title=title)
    panel.set_ylim(0, None)
    panel.legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", default="demo", help="folder, .npz or demo")
    parser.add_argument("--labels")
    parser.add_argument("--normalize")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--interpreter", default="cam")
    parser.add_argument("--steps", default="12,25,50,100,200", help="fixed numbers of steps, comma-separated")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the picture; default: the interpreter's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = Classifier.load(options.model, None, options.normalize)
    given = (options.labels, options.crop, options.resize)
    image_set = demo_images(200) if options.images == "demo" else open_images(options.images, *given)

    def classify(images: Images) -> Logits:
        with torch.no_grad():
            return classifier(images)

    samples = select(classify, image_set, options.n, options.seed).samples
    interpreter = interpreter_named(options.interpreter)
    bench = Bench(classifier, Counter(classifier), interpreter, samples, min(options.batch, options.n))
    found = trials(bench, [int(steps) for steps in options.steps.split(",")], options.seed)
    title = f"{interpreter_name(interpreter.name)}, n = {options.n}"
    draw(found, title, PICTURES / f"effort-{options.name or interpreter.name}.svg")


if __name__ == "__main__":
    main()
