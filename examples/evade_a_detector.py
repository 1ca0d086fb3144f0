"""Would feature squeezing have noticed? ADV2 as it is, and ADV2 by an attacker who knows of the squeezer."""

import torch

import underfire as uf
from underfire.core.rng import image_keys
from underfire.data.demo import demo_images
from underfire.detection.calibration import Detector
from underfire.detection.scores import FeatureSqueezing, look

model = uf.Classifier.load("demo")  # or "torchvision:resnet50" with weights="DEFAULT"
scenes = demo_images(104)
images = torch.stack([scenes.read(i) for i in range(len(scenes))])
benign, attacked = images[4:], images[:4]

squeezing = FeatureSqueezing(uf.Median(3))
keys = image_keys(scenes.ids)
detector = Detector.fit(squeezing.scores(model, look(model, benign, keys[4:])), fpr=0.05)

print(f"threshold {detector.threshold:.3f}\nattack        fooled   mean score   flagged")
for name, evade in (("ADV2", ()), ("ADV2 evading", (uf.Median(3),))):
    result = uf.adv2(model, uf.CAM(), eps=16 / 255, evade=evade)(attacked, target=uf.NextClass())
    scores = squeezing.scores(model, look(model, result.adversarial, keys[:4]))
    print(
        f"{name:13} {int(result.success.sum())} of 4   {scores.mean():10.3f}   {int(detector.flag(scores).sum())} of 4"
    )
