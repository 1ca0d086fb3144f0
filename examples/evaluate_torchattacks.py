"""Judge an attack of torchattacks: does the explanation warn of it? python examples/evaluate_torchattacks.py FOLDER"""

import sys

import torch
import torchattacks

import underfire as uf
from underfire.data.demo import demo_images

model = uf.Classifier.load("demo")  # a torch.nn.Module over [0, 1], which torchattacks takes as it is
scenes = demo_images(8)  # and your images and classes here
images = torch.stack([scenes.read(i) for i in range(len(scenes))])

attacked = torchattacks.PGD(model, eps=16 / 255, alpha=2 / 255, steps=20)(images, scenes.labels)

run = uf.evaluate(model, images, attacked, ["cam", "grad"], labels=scenes.labels, out=sys.argv[1], name="PGD-20")
for verdict in uf.verdict(run):
    print(verdict.headline, verdict.sentences[0])
print(run.path / "report.html")
