"""Which class is reported, and by which pixels? python examples/explain_one_image.py photo.jpg maps.png"""

import sys

import torch
from matplotlib import pyplot as plt
from PIL import Image
from torchvision.transforms import v2

import underfire as uf

model, side = uf.Classifier.load("demo"), 64  # or uf.Classifier.load("torchvision:resnet50", weights="DEFAULT"), 224
prepare = v2.Compose([v2.ToImage(), v2.Resize(side), v2.CenterCrop(side), v2.ToDtype(torch.float32, scale=True)])

x = prepare(Image.open(sys.argv[1]).convert("RGB"))[None]  # N3HW in [0, 1]; the classifier itself normalises
label = model(x).argmax(1)
figure, panels = plt.subplots(1, 3, figsize=(6, 2.3), layout="constrained")
panels[0].imshow(x[0].permute(1, 2, 0).numpy())
panels[0].set_title(f"class {int(label)}")
for panel, interpreter in zip(panels[1:], (uf.CAM(), uf.GRAD()), strict=True):
    heat = interpreter.explain(model, x, label)[0].numpy()  # hw in [0, 1], high = important
    panel.imshow(heat, cmap="inferno", vmin=0, vmax=1)
    panel.set_title(interpreter.name)
    print(f"{interpreter.name:4}  {heat.shape[0]} × {heat.shape[1]} cells, {(heat > 0.5).mean():.0%} of them hot")
for panel in panels:
    panel.set_axis_off()
figure.savefig(sys.argv[2])
