"""What effort buys: the distance of attacked maps against passes of the classifier, the ladder beside fixed steps.

    python benchmarks/effort.py --model my_model.py:build --images photos/ --normalize imagenet --interpreter cam

Attacks the same images with every effort and with fixed numbers of steps, all from one warm start, prints a line each
beside that of PGD, and with --name draws docs/images/effort-NAME.svg. A pass is one image through the network; deployed
maps by which iterates are judged are counted, the warm start, which all share, is not. Distances are by draws that no
attack has seen.
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
from underfire.attacks.target_maps import Pool, TargetMap, Wanted, target_map_named
from underfire.core import rows
from underfire.core.rng import image_keys
from underfire.core.types import Goal, Images, Keys, Labels, Logits, Maps, Samples
from underfire.data.demo import demo_images
from underfire.data.image_set import open_images
from underfire.data.selection import select
from underfire.interpreters import Interpreter
from underfire.interpreters.protocol import REPEATED, draws, scoring_draws
from underfire.interpreters.registry import interpreter_named
from underfire.metrics.intervals import mean_interval
from underfire.metrics.maps import PLAUSIBLE, compare_draws, map_l1
from underfire.models.classifier import Classifier

PGD = "PGD"
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
    """One attack: passes and steps per image; of each the distance and overlap that it left, and its success."""

    name: str
    passes: float
    steps: float
    success: Tensor
    map_l1: Tensor
    iou: Tensor

    def __str__(self) -> str:
        mean = mean_interval(self.map_l1.numpy())
        return (
            f"{self.name}: {self.passes:.0f} passes and {self.steps:.0f} steps an image, "
            f"success {self.success.float().mean():.0%}, distance {mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}], "
            f"median {self.map_l1.median():.4f}, IoU {self.iou.nanmean():.2f}, "
            f"plausible {(self.iou > PLAUSIBLE).float().mean():.0%}"
        )


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

    def goal(self, rule: TargetMap | None, seed: int) -> Goal:
        """Random classes, and the benign maps or those of a rule."""
        x, labels, keys = self.samples.images, self.samples.labels, image_keys(self.samples.ids)
        with torch.no_grad():
            classes = self.classifier(x[:1]).shape[1]
        maps, target = self.explain(x, labels, 0), random_class(labels, classes, keys, seed)
        noise = map_l1(maps, self.explain(x, labels, REPEATED)) if draws(self.interpreter) else None
        if rule is not None:
            maps, _ = rule.maps(Wanted(keys, target, Pool(keys, labels, maps)), seed)
        return Goal(keys, x, target, maps, noise=noise)

    def measure(self, name: str, attack: Attack, goal: Goal, start: Tensor, wanted: list[Maps]) -> Trial:
        before = self.counter.passes
        outcome = engine.run(replace(attack, warm_start=None), self.classifier, goal, self.batch, start=start)
        passes = (self.counter.passes - before) / len(goal.key)
        maps = [self.explain(outcome.image, outcome.predicted, draw) for draw in scoring_draws(self.interpreter)]
        distances = compare_draws(maps, wanted)
        steps = float(outcome.steps.float().mean())
        return Trial(name, passes, steps, outcome.success, distances["map_l1"], distances["iou_mean"])


def trials(bench: Bench, rule: TargetMap | None, steps: list[int], efforts: list[str], seed: int) -> list[Trial]:
    """PGD, then ADV2 of these lengths, a line of print each."""
    goal, interpreter = bench.goal(rule, seed), bench.interpreter
    benign = [bench.explain(goal.image, bench.samples.labels, draw) for draw in scoring_draws(interpreter)]
    print(f"own noise {compare_draws(benign, benign)['map_l1'].mean():.4f}", flush=True)
    if rule is not None:
        away = mean_interval(compare_draws(benign, [goal.target_map])["map_l1"].numpy())
        print(f"benign maps {away.value:.4f} [{away.low:.4f}, {away.high:.4f}] from their targets", flush=True)
    plain = solvers.pgd()
    attacks = {PGD: plain} | {f"{n} steps": solvers.adv2(interpreter, steps=n, seed=seed) for n in steps}
    attacks |= {effort: solvers.adv2(interpreter, effort=effort, seed=seed) for effort in efforts}
    assert plain.warm_start is not None
    start = engine.run(plain.warm_start, bench.classifier, goal, bench.batch).theta
    found = []
    for name, attack in attacks.items():
        goal_of_it = replace(goal, target_map=torch.zeros(len(goal.key), 1, 1)) if name == PGD else goal
        found.append(bench.measure(name, attack, goal_of_it, start, benign if rule is None else [goal.target_map]))
        print(found[-1], flush=True)
    return found


def draw(found: list[Trial], title: str, path: Path) -> None:
    figure, panel = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for label, chosen, style in (
        ("fixed steps", [each for each in found if each.name not in (PGD, *EFFORTS)], "o--"),
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
    parser.add_argument("--weights")
    parser.add_argument("--images", default="demo", help="folder, .npz or demo")
    parser.add_argument("--labels")
    parser.add_argument("--normalize")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--interpreter", default="cam")
    parser.add_argument("--target-map", default="benign", help="as of underfire attack")
    parser.add_argument("--steps", default="12,25,50,100,200", help="fixed numbers of steps, comma-separated, or none")
    parser.add_argument("--efforts", default=",".join(EFFORTS))
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="of the picture, if one is wanted")
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = Classifier.load(options.model, options.weights, options.normalize)
    given = (options.labels, options.crop, options.resize)
    image_set = demo_images(200) if options.images == "demo" else open_images(options.images, *given)

    def classify(images: Images) -> Logits:
        with torch.no_grad():
            return classifier(images)

    samples = select(classify, image_set, options.n, options.seed).chosen.samples()
    interpreter = interpreter_named(options.interpreter)
    bench = Bench(classifier, Counter(classifier), interpreter, samples, min(options.batch, options.n))
    steps = [int(each) for each in options.steps.split(",") if each.isdigit()]
    rule = target_map_named(options.target_map)
    found = trials(bench, rule, steps, options.efforts.split(","), options.seed)
    if options.name is not None:
        title = f"{interpreter_name(interpreter.name)}, n = {options.n}"
        draw(found, title, PICTURES / f"effort-{options.name}.svg")


if __name__ == "__main__":
    main()
