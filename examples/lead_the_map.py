"""Can a map be led elsewhere? Two interpreters are to show a random patch in place of the object."""

import torch

import underfire as uf
from underfire.data.demo import demo_images

model = uf.Classifier.load("demo")  # or "torchvision:resnet50" with weights="DEFAULT"
scenes = demo_images(4)
images = torch.stack([scenes.read(i) for i in range(len(scenes))])

print("interpreter   map distance: to the patch   to the benign map   fooled")
for interpreter in (uf.CAM(), uf.RTS.demo()):
    attack = uf.adv2(model, interpreter, eps=16 / 255)
    result = attack(images, target=uf.NextClass(), target_map=uf.Patch())
    distances = f"{result.map_l1.mean():27.3f}{result.benign_l1.mean():20.3f}"
    print(f"{interpreter.name:13}{distances}   {int(result.success.sum())} of {len(images)}")
