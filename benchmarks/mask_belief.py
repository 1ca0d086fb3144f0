"""How well the attacker of MASK knows the map: its own belief against the deployed map of the same image, over a run.

    python benchmarks/mask_belief.py --model my_model.py:build --images photos/ --normalize imagenet

Draws docs/images/mask-belief.svg: for each recipe, and at every few steps, the mean L1 distance of the attacker's
map to the deployed one ("belief"), and of the deployed map to the target ("deployed"). The deployed map costs 300
passes per image and point, which is why an attack cannot look at it all the time.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from underfire import MASK, Classifier
from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.target_classes import random_class
from underfire.core.rng import image_keys
from underfire.core.types import Goal, Images, Logits
from underfire.data.image_set import open_images
from underfire.data.selection import select
from underfire.metrics.maps import map_l1

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "mask-belief.svg"
Curve = list[tuple[int, float, float]]  # step, belief to deployed, deployed to target


def goal_of(classifier: Classifier, options: argparse.Namespace) -> Goal:
    """Correctly classified images, random targets, benign maps."""

    def classify(images: Images) -> Logits:
        with torch.no_grad():
            return classifier(images)

    image_set = open_images(options.images, options.labels, options.crop, options.resize)
    samples = select(classify, image_set, options.n, options.seed).chosen.samples()
    keys = image_keys(samples.ids)
    target = random_class(samples.labels, classify(samples.images[:1]).shape[1], keys, options.seed)
    maps = MASK().explain(classifier, samples.images, samples.labels, keys)
    return Goal(keys, samples.images, target, maps)


def follow(attack: Attack, classifier: Classifier, goal: Goal, steps: int, every: int) -> Curve:
    """The attack's first steps, looked at before every `every`-th one; beliefs begin anew as in the engine."""
    assert attack.warm_start is not None
    start = engine.run(attack.warm_start, classifier, goal, len(goal.key)).theta
    slots = engine._fresh(attack, classifier, goal, start, list(range(len(goal.key))))
    curve: Curve = []
    for step in range(steps):
        x = attack.perturbation.decode(goal.image, slots.theta)
        if step and step % attack.quantum == 0:
            slots = engine._next(attack, classifier, slots)
        slots = engine._step(attack, classifier, slots)
        if step % every == every - 1:
            shown = attack.interpreter.explain(classifier, x, goal.target, goal.key)
            believed = attack.interpreter.read(classifier, slots.belief, x.requires_grad_(), goal.target).maps[:, -1]
            distances = (map_l1(believed.detach(), shown), map_l1(shown, goal.target_map))
            belief, deployed = (float(distance.mean()) for distance in distances)
            curve.append((step + 1, belief, deployed))
            print(f"{attack.interpreter} step {step + 1}: belief {belief:.3f}, deployed {deployed:.3f}", flush=True)
    return curve


def draw(curves: dict[str, Curve], noise: float) -> None:
    figure, panels = plt.subplots(1, len(curves), figsize=(9, 3.2), sharey=True, layout="constrained")
    for panel, (name, curve) in zip(panels, curves.items(), strict=True):
        steps, belief, deployed = zip(*curve, strict=True)
        panel.plot(steps, belief, label="attacker's map to the deployed one")
        panel.plot(steps, deployed, label="deployed map to the target")
        panel.axhline(noise, color="grey", linestyle=":", label="two deployed maps of one image")
        panel.set(title=name, xlabel="step", ylim=(0, None))
    panels[0].set_ylabel("mean L1 distance")
    panels[0].legend(frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", required=True, help="folder or .npz")
    parser.add_argument("--labels")
    parser.add_argument("--normalize")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--every", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    classifier = Classifier.load(options.model, None, options.normalize)
    goal = goal_of(classifier, options)
    again = MASK().explain(classifier, goal.image, classifier(goal.image).argmax(1), goal.key + 1)
    attacks = {f"recipe {name}": solvers.adv2(MASK(), recipe=name) for name in ("annealed", "paper")}
    curves = {name: follow(attack, classifier, goal, options.steps, options.every) for name, attack in attacks.items()}
    draw(curves, float(map_l1(again, goal.target_map).mean()))


if __name__ == "__main__":
    main()
