"""Which interpreters work on which networks of torchvision, timm and Hugging Face: the table of docs/networks.md.

    python benchmarks/networks.py --write            # five minutes of one thread
    python benchmarks/networks.py --networks torchvision:resnet18,timm:vit_tiny_patch16_224

Weights are random and images small, so that nothing is downloaded: this asks whether an interpreter can be followed on
a network, not how well. It works if the gradient of the attacker's map arrives at the image, finite and not zero, and
the map after two steps of ADV2 is finite and not constant. Otherwise the table has the sentence that a user gets.
"""

import argparse
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from underfire.core.rng import image_keys
from underfire.interpreters import Interpreter
from underfire.interpreters.mask.solver import Solver

DOCUMENT = Path(__file__).parents[1] / "docs" / "networks.md"
BEGIN, END = "<!-- written by benchmarks/networks.py --write -->\n", "<!-- end -->"
CLASSES, SIDE = 10, 64
LAYER = re.compile(r"explains '.*?'")  # of a sentence, where the row has it already
INTERPRETERS: Mapping[str, Interpreter] = {
    "cam": uf.CAM(),
    "grad": uf.GRAD(),
    "grad-cam": uf.GradCAM(),
    "ig": uf.IG(uf.GaussLegendre(4)),
    "mask": uf.MASK(solver=Solver(steps=5)),
    "rollout": uf.Rollout(),
    "grad-rollout": uf.GradRollout(),
}


def of_torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)


def of_timm(name: str, **options: Any) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)


def of_hugging_face(family: str, **options: Any) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{family}Config")(num_labels=CLASSES, **options)
    return getattr(transformers, f"{family}ForImageClassification")(config)


@dataclass(frozen=True)
class Network:
    """A network with random weights, and the side of the images that it is tried on."""

    build: Callable[[], nn.Module]
    side: int = SIDE


def _networks() -> Mapping[str, Network]:
    plain = {
        "torchvision": (of_torchvision, "resnet18 densenet121 vgg11_bn mobilenet_v2 mobilenet_v3_small efficientnet_b0 "
                        "convnext_tiny regnet_y_400mf"),
        "timm": (of_timm, "resnet18 densenet121 vgg11_bn mobilenetv3_small_100 efficientnet_b0 convnext_atto "
                 "regnety_002"),
        "transformers": (of_hugging_face, "ResNet MobileNetV2 EfficientNet ConvNextV2 RegNet"),
    }  # fmt: skip
    found = {f"{library}:{name}": Network(partial(build, name)) for library, (build, names) in plain.items()
             for name in names.split()}  # fmt: skip
    with_heads = {"init_weights": False}
    small = {"image_size": SIDE, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3}
    return found | {
        "torchvision:googlenet": Network(partial(of_torchvision, "googlenet", **with_heads)),
        "torchvision:inception_v3": Network(partial(of_torchvision, "inception_v3", **with_heads), side=128),
        "torchvision:swin_t": Network(partial(of_torchvision, "swin_t")),
        "torchvision:vit_b_16": Network(partial(of_torchvision, "vit_b_16", image_size=SIDE)),
        "timm:inception_v3": Network(partial(of_timm, "inception_v3"), side=128),
        "timm:swin_tiny_patch4_window7_224": Network(
            partial(of_timm, "swin_tiny_patch4_window7_224", img_size=96, window_size=3), side=96
        ),
        "timm:vit_tiny_patch16_224": Network(partial(of_timm, "vit_tiny_patch16_224", img_size=SIDE)),
        "transformers:Swin": Network(partial(of_hugging_face, "Swin", image_size=96, window_size=3), side=96),
        "transformers:ViT": Network(partial(of_hugging_face, "ViT", **small, intermediate_size=96)),
    }


NETWORKS = _networks()


@dataclass(frozen=True)
class Tried:
    """What came of a network: the layer that Grad-CAM explains, and by interpreter the sentence if it does not work."""

    layer: str
    sentences: Mapping[str, str | None]


def tried(network: Network, interpreters: Mapping[str, Interpreter] = INTERPRETERS) -> Tried:
    """Every interpreter on one image."""
    torch.manual_seed(0)
    model = uf.Classifier(lively(network.build(), network.side))
    x = torch.rand(1, 3, network.side, network.side)
    sentences = {name: sentence_of(model, interpreter, x) for name, interpreter in interpreters.items()}
    try:
        model.locate_features(x)
    except uf.UnderfireError:
        return Tried("", sentences)
    _, _, rows, columns = model.evidence(x).features.shape
    return Tried(f"`{model.features_layer}`, {rows} × {columns}", sentences)


def lively(net: nn.Module, side: int) -> nn.Module:
    """Statistics of random images where a trained network has those of its photos, and no head of zeros.

    Without them what a random network computes dies away from layer to layer, and no map has anything to show.
    """
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()
        if isinstance(module, nn.Linear) and not bool(module.weight.any()):
            nn.init.normal_(module.weight, std=0.02)
    with torch.no_grad():
        net(torch.randn(8, 3, side, side))
    return net.eval()


def sentence_of(model: uf.Classifier, interpreter: Interpreter, x: Tensor) -> str | None:
    """What a user would be told; None where it works."""
    try:
        if fault := unfollowed(model, interpreter, x):
            return fault
        attacker = uf.adv2(model, interpreter, steps=2)
        cold = replace(attacker, attack=replace(attacker.attack, warm_start=None))
        return faulty("the attacked map", cold(x).maps)
    except uf.UnderfireError as problem:
        return str(problem)


def unfollowed(model: uf.Classifier, interpreter: Interpreter, x: Tensor) -> str | None:
    """What is wrong with the gradient that an attacker gets of the map; None if it arrives."""
    leaf, keys = x.clone().requires_grad_(), image_keys(["0"])
    with torch.no_grad():
        y = model(x).argmax(1)
    belief = interpreter.advance(model, interpreter.begin(model, x, y, keys), x, y)
    maps = interpreter.read(model, belief, leaf, y).maps
    weights = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((maps * weights).sum(), leaf)
    return faulty("the gradient of the map", gradient)


def faulty(what: str, values: Tensor) -> str | None:
    if not bool(values.isfinite().all()):
        return f"{what} is not finite"
    return f"{what} is the same everywhere" if bool(values.amax() == values.amin()) else None


def table(found: Mapping[str, Tried]) -> str:
    """Markdown: a row per network, and below it the sentences by their numbers."""
    numbers: dict[str, int] = {}
    heads = ["network", "CAM and Grad-CAM read", *INTERPRETERS]
    lines = [heads, ["---"] * len(heads)]
    for name, each in found.items():
        cells = [
            "✓" if sentence is None else str(numbers.setdefault(LAYER.sub("explains '…'", sentence), len(numbers) + 1))
            for sentence in each.sentences.values()
        ]
        lines.append([f"`{name}`", each.layer, *cells])
    sentences = [f"{number}. {sentence}" for sentence, number in numbers.items()]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", *sentences])


def written(found: Mapping[str, Tried]) -> None:
    """Replace what stands between the marks in docs/networks.md; what is said around it stays."""
    libraries = ("torch", "torchvision", "timm", "transformers")
    facts = f"Tried with {', '.join(f'{each} {version(each)}' for each in libraries)}."
    head, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    DOCUMENT.write_text(f"{head}{BEGIN}\n{facts}\n\n{table(found)}\n\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="some of them, by their names in the table")
    parser.add_argument("--write", action="store_true", help="put the table into docs/networks.md, row by row")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Tried] = {}
    for name in options.networks.split(","):
        begun = time.process_time()
        with warnings.catch_warnings(action="ignore"):
            found[name] = tried(NETWORKS[name])
        print(f"{name}: {time.process_time() - begun:.0f} s", flush=True)
        if options.write:
            written(found)
    print(table(found))


if __name__ == "__main__":
    main()
