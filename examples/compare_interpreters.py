"""Which interpreter warns best? PGD ignores the map, ADV2 hides from it; the same images and targets for all."""

import torch

import underfire as uf
from underfire.data.demo import demo_images

model = uf.Classifier.load("demo")  # or "torchvision:resnet50" with weights="DEFAULT"
scenes = demo_images(4)
images = torch.stack([scenes.read(i) for i in range(len(scenes))])
targets = (scenes.labels + 1) % 10

print("interpreter   map distance: PGD   ADV2   fooled by ADV2")
for interpreter in (uf.CAM(), uf.GradCAM(), uf.GRAD()):
    plain = uf.pgd(model, interpreter, eps=16 / 255)(images, target=targets)
    dual = uf.adv2(model, interpreter, eps=16 / 255, steps=60)(images, target=targets)
    distances = f"{plain.map_l1.mean():17.3f}  {dual.map_l1.mean():.3f}"
    print(f"{interpreter.name:12}  {distances}   {int(dual.success.sum())} of {len(images)}")
