"""Attack a network of your own: images are tensors in [0, 1], the network returns logits."""

import torch

import underfire as uf
from underfire.data.demo import demo_images
from underfire.models.demo import DEMO_MEAN, DEMO_STD, demo_classifier

network = demo_classifier()  # put your torch.nn.Module here; it will not be changed
scenes = demo_images(4)  # and your images and classes here
images = torch.stack([scenes.read(i) for i in range(len(scenes))])
targets = (scenes.labels + 1) % 10

model = uf.Classifier(network, mean=DEMO_MEAN, std=DEMO_STD)
attack = uf.adv2(model, uf.CAM(), eps=16 / 255)
result = attack(images, target=targets)

for true, target, success, p, distance in zip(
    scenes.labels, result.target, result.success, result.confidence, result.map_l1, strict=True
):
    verdict = "fooled" if success else "not fooled"
    names = f"{scenes.classes[true]} as {scenes.classes[target]}"
    print(f"{verdict:10}  {names:24}  p = {p:.3f}  map distance = {distance:.3f}")
