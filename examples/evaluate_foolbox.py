"""Judge an attack of foolbox, targeted at the next class: python examples/evaluate_foolbox.py FOLDER"""

import sys

import foolbox
import torch

import underfire as uf
from underfire.data.demo import demo_images

model = uf.Classifier.load("demo")  # a torch.nn.Module over [0, 1], which foolbox takes as it is
scenes = demo_images(8)  # and your images and classes here
images = torch.stack([scenes.read(i) for i in range(len(scenes))])
targets = (scenes.labels + 1) % 10

attack = foolbox.attacks.LinfProjectedGradientDescentAttack(rel_stepsize=0.1, steps=30)
criterion = foolbox.criteria.TargetedMisclassification(targets)
_, attacked, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, criterion, epsilons=16 / 255)

run = uf.evaluate(
    model, images, attacked, ["cam"], labels=scenes.labels, out=sys.argv[1], name="foolbox PGD", target_class="next"
)
for row in run.outcomes().to_pylist():
    print(f"{row['id']}  p = {row['confidence']:.3f}  IoU {row['iou_mean']:.2f}  {row['judgement']}")
