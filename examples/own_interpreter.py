"""Attack an interpreter of your own: input times gradient, in which the image weighs its gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import underfire as uf
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.data.demo import demo_images
from underfire.interpreters.grad import saliency
from underfire.interpreters.input_gradients import exact_gradient
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading


@dataclass(frozen=True)
class InputTimesGradient(ClosedForm):
    """The largest |x · ∂log p_y/∂x| over channels, averaged over blocks and scaled to [0, 1]."""

    draws: ClassVar[bool] = False  # two maps of one image are the same

    @property
    def name(self) -> str:
        return "input × gradient"

    def explain(self, classifier: uf.Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.no_grad():  # what users see has no graph
            _, _, gradient = exact_gradient(classifier, x, y)
            return saliency(x * gradient)

    def read(self, classifier: uf.Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        logits, _, gradient = uf.FiniteDifferences()(classifier, x, y)  # can be differentiated once more
        return reading(logits, saliency(x * gradient), y)


if __name__ == "__main__":
    model = uf.Classifier.load("demo")  # or "torchvision:resnet50" with weights="DEFAULT"
    scenes = demo_images(4)
    images = torch.stack([scenes.read(i) for i in range(len(scenes))])
    mine = InputTimesGradient()

    for name, attack in (("PGD", uf.pgd(model, mine, eps=16 / 255)), ("ADV2", uf.adv2(model, mine, eps=16 / 255))):
        result = attack(images, target=uf.NextClass())
        print(f"{name:4}  fooled {int(result.success.sum())} of {len(images)}  map distance {result.map_l1.mean():.3f}")
