"""What a masker shows: images, their masks, what the masks keep and what is left without it.

python benchmarks/show_masker.py --out masks.png
python benchmarks/show_masker.py --model my_model.py:build --images photos/ --masker masker.safetensors --out masks.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from underfire import RTS, Classifier
from underfire.core.image_ops import blur, resize
from underfire.core.losses import confidence
from underfire.core.rng import image_keys
from underfire.data.demo import demo_images
from underfire.data.image_set import open_images
from underfire.data.selection import select
from underfire.training.rts import BLUR, blended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--normalize")
    parser.add_argument("--images", default="demo")
    parser.add_argument("--labels")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--masker", help="default: the demo's")
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    classifier = Classifier.load(options.model, None, options.normalize)
    rts = RTS.demo() if options.masker is None else RTS.load(options.masker)
    image_set = (
        demo_images()
        if options.images == "demo"
        else open_images(options.images, options.labels, options.crop, options.resize)
    )
    with torch.no_grad():
        samples = select(classifier, image_set, options.n, options.seed).chosen.samples()
        x, y = samples.images, samples.labels
        masks = rts.explain(classifier, x, y, image_keys(samples.ids))
        background = blur(x, BLUR * min(x.shape[2:])).clamp(0, 1)
        parts = {"image": x, "mask": resize(masks[:, None], *x.shape[2:]).expand_as(x)}
        parts["kept"], parts["left"] = blended(x, masks, background)
        shares = {name: confidence(classifier(parts[name]), y) for name in ("image", "kept", "left")}
    figure, panels = plt.subplots(4, len(x), figsize=(1.3 * len(x), 5.6), layout="constrained", squeeze=False)
    for row, (name, images) in zip(panels, parts.items(), strict=True):
        for index, panel in enumerate(row):
            panel.imshow(images[index].permute(1, 2, 0).clamp(0, 1))
            panel.set(xticks=[], yticks=[])
            panel.set_title(f"p = {shares[name][index]:.2f}" if name in shares else name, fontsize=8)
        row[0].set_ylabel(name)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
