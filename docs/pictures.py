"""Draw the pictures of the demo in these pages anew: python docs/pictures.py (about ten minutes on one core).

Two synthetic scenes, the demo's classifier and its masker, ε = 16/255, the recipe `annealed`, the next class as target.
The attacks stay in runs/pictures; delete that folder to run them anew, too. Rollouts are of the transformer in
examples/, trained on scenes of half their size.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool2d

import underfire as uf
from underfire.attacks.names import attack_name, interpreter_name
from underfire.core.image_ops import blur
from underfire.core.losses import confidence, cross_entropy, log_prob
from underfire.core.plots import COLOURS, STYLE, svg
from underfire.core.types import Samples
from underfire.data.demo import EPS, SEED, demo_images
from underfire.data.scenes import CLASSES, scenes
from underfire.interpreters.relu_gates import LogisticGate, MonotoneGate, PaperGate
from underfire.models.demo import DEMO_MEAN, DEMO_STD
from underfire.models.loading import builder_in
from underfire.report import figures
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute
from underfire.training.demo import BATCH, FITTED, normalise
from underfire.training.loop import fit, initialised
from underfire.training.rts import BLUR, blended

IMAGES = Path(__file__).parent / "images"
RUNS = Path(__file__).parents[1] / "runs" / "pictures"
INTERPRETERS = ("grad", "cam", "grad-cam", "ig", "mask", "rts", "smooth:cam")
PAPER = ("grad", "cam", "mask", "rts")
EVADED = "fs:bits:2"
SIDE, GAP, LINE = 128, 16, 20  # of a tile, between tiles, and of a line of text, in pixels
KEPT = figures.Encoding(SIDE)
INK = "#808080"  # reads on white and on black
AMPLIFIED = 8  # times, where changes of pixels are shown
REACH = 1.5  # pixels, from which on the colours of a flow are pure

Array = npt.NDArray[np.float32]
MODEL = uf.Classifier.load("demo")


@dataclass(frozen=True)
class Tile:
    """A picture as a data URI, and what is written below it."""

    source: str
    caption: str


@dataclass(frozen=True)
class Grid:
    """Rows of tiles below their headings; None leaves a place empty."""

    headings: tuple[str, ...]
    rows: Sequence[Sequence[Tile | None]]

    def svg(self) -> str:
        width, height = SIDE + GAP, SIDE + LINE + GAP
        size = (len(self.headings) * width - GAP, LINE + 6 + len(self.rows) * height - GAP)
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
                f'viewBox="0 0 {size[0]} {size[1]}" font-family="sans-serif" font-size="14" fill="{INK}">',
                *(_text(i * width, LINE - 4, heading) for i, heading in enumerate(self.headings)),
                *(
                    line
                    for j, row in enumerate(self.rows)
                    for i, tile in enumerate(row)
                    if tile is not None
                    for line in _tile(i * width, LINE + 6 + j * height, tile)
                ),
                "</svg>\n",
            ]
        )


def main() -> None:
    torch.set_num_threads(1)
    (IMAGES / "gates.svg").write_bytes(gates())
    for name, grid in grids(RUNS):
        path = IMAGES / f"{name}.svg"
        path.write_text(grid.svg(), encoding="utf-8")
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def gates() -> bytes:
    """Fig. 3: the derivative of ReLU, the logistic function and the printed h near 0, and our two gates."""
    z = torch.linspace(-0.1, 0.1, 1001, dtype=torch.float64)
    jumping = {"r, ReLU's derivative": (z > 0).double(), "h as printed": PaperGate()(z)}
    smooth = {"σ": torch.sigmoid(z), "monotone gate": MonotoneGate()(z), "logistic gate": LogisticGate()(z)}
    left, right = z < 0, z >= 0
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, values), colour in zip({**jumping, **smooth}.items(), COLOURS, strict=False):
            for part, label in ((left, name), (right, None)) if name in jumping else ((left | right, name),):
                axes.plot(z[part], values[part], color=colour, label=label)
        axes.set(xlabel="z", ylabel="in place of ReLU's derivative")
        axes.legend(frameon=False, fontsize=8)
        return svg(figure)


def grids(folder: Path) -> Iterator[tuple[str, Grid]]:
    """Each picture by its name; the attacks are run in `folder`."""
    hidden = attacked(folder / "hidden", interpreters=INTERPRETERS)
    for interpreter in INTERPRETERS:
        name = interpreter.replace(":", "-")
        yield name, of_interpreter(hidden, name)
    yield "pgd", of_pgd(hidden)
    yield "adv2", of_adv2(hidden)
    adaptive = attacked(folder / "adaptive", interpreters=("cam", "grad"), evade=(EVADED, "ensemble"))
    yield "ensemble", of_ensemble(adaptive)
    yield "evasion", of_evasion(adaptive)
    yield "stadv", of_stadv(attacked(folder / "bent", interpreters=("cam",), solvers=("stadv",)))
    yield "square", of_square(attacked(folder / "asked", interpreters=("cam",), solvers=("square",), queries=5000))
    yield "led", of_led_maps(attacked(folder / "led", interpreters=("cam", "rts"), target_map="patch"))
    yield "masker", of_masker(hidden)
    yield "rollout", of_rollouts(transformer(folder / "transformer.safetensors"))


def attacked(out: Path, **settings: Any) -> uf.Run:
    eps = {} if settings.get("solvers") == ("stadv",) else {"eps": EPS}
    chosen = AttackSettings(model="demo", images="demo", n=2, target_class="next", **eps, **settings)
    return execute(chosen, Subject(MODEL, demo_images()), out, Manner("python docs/pictures.py"))


def of_interpreter(run: uf.Run, name: str) -> Grid:
    (_, images), (_, benign) = run.images(), run.maps("benign", name)
    maps = [run.maps(attack, name)[1] for attack in ("pgd", "adv2")]
    rows = [
        [scene(image), Tile(heat(own), ""), *(compared(each[i], own) for each in maps)]
        for i, (image, own) in enumerate(zip(images, benign, strict=True))
    ]
    return Grid(("benign image", "its map", "map under PGD", "map under ADV²"), rows)


def of_pgd(run: uf.Run) -> Grid:
    benign, image = run.images()[1][0], run.images("pgd")[1][0]
    row = [scene(benign), scene(image), changed(image, benign)]
    return Grid(("benign image", "attacked by PGD", f"change × {AMPLIFIED}"), [row])


def of_adv2(run: uf.Run) -> Grid:
    """One scene: the image, which ADV² changed for the first interpreter, and a row of maps per interpreter."""
    rows = [[scene(run.images(attack, PAPER[0])[1][0]) for attack in ("benign", "pgd", "adv2")]]
    for name in PAPER:
        benign, plain, shown = (run.maps(attack, name)[1][0] for attack in ("benign", "pgd", "adv2"))
        rows.append([Tile(heat(benign), interpreter_name(name)), compared(plain, benign), compared(shown, benign)])
    return Grid(("benign", "PGD", "ADV²"), rows)


def of_ensemble(run: uf.Run) -> Grid:
    """One scene, a row per interpreter; the last attack deceives both."""
    attacks = (("adv2", "cam"), ("adv2", "grad"), ("adv2-ensemble", None))
    images = [run.images(*attack)[1][:1] for attack in attacks]
    rows = []
    for explainer in (uf.CAM(), uf.GRAD()):
        benign = run.maps("benign", explainer.name)[1][0]
        maps = [shown_by(explainer, image) for image in images]
        own = Tile(heat(benign), interpreter_name(explainer.name))
        rows.append([own, *(compared(each, benign) for each in maps)])
    return Grid(("benign map", "ADV² for CAM", "ADV² for GRAD", "ADV² for both"), rows)


def of_evasion(run: uf.Run) -> Grid:
    """One scene; a squeezer betrays the first attack and not the second."""
    benign, squeeze, rows = run.maps("benign", "cam")[1][0], uf.BitDepth(2), []
    for attack in ("adv2", f"adv2-evading-{EVADED}"):
        image, shown = run.images(attack, "cam")[1][:1], run.maps(attack, "cam")[1][0]
        squeezed = squeeze(torch.from_numpy(image)).numpy()
        rows.append([scene(image[0]), scene(squeezed[0]), compared(shown, benign)])
    return Grid(("attacked image", "in 2 bits", "its CAM"), rows)


def of_stadv(run: uf.Run) -> Grid:
    """One scene as it is, bent, and bent so that CAM's map stays."""
    original, benign = run.images()[1][0], run.maps("benign", "cam")[1][0]
    rows: list[list[Tile | None]] = [[Tile(scene(original).source, "benign"), None, Tile(heat(benign), "")]]
    for attack in ("stadv", "adv2-stadv"):
        image, field = run.images(attack, "cam")[1][0], run.thetas(attack, "cam")[1][0]
        flow = Tile(figures.flow(field, REACH, KEPT), f"mean {np.hypot(*field).mean():.2f} pixels")
        bent = Tile(scene(image).source, attack_name(attack))
        rows.append([bent, flow, compared(run.maps(attack, "cam")[1][0], benign)])
    return Grid(("image", "flow", "CAM"), rows)


def of_square(run: uf.Run) -> Grid:
    """One scene as it is, and changed by queries alone, without and with an eye to the map."""
    original, benign = run.images()[1][0], run.maps("benign", "cam")[1][0]
    rows: list[list[Tile | None]] = [[Tile(scene(original).source, "benign"), None, Tile(heat(benign), "")]]
    for attack in ("square", "adv2-square"):
        image, shown = run.images(attack, "cam")[1][0], run.maps(attack, "cam")[1][0]
        rows.append([Tile(scene(image).source, attack_name(attack)), changed(image, original), compared(shown, benign)])
    return Grid(("image", f"change × {AMPLIFIED}", "CAM"), rows)


def of_led_maps(run: uf.Run) -> Grid:
    rows = []
    for name in ("cam", "rts"):
        benign, wanted, shown = (run.maps(attack, name)[1][0] for attack in ("benign", "target", "adv2"))
        own, patch = Tile(heat(benign), interpreter_name(name)), Tile(heat(wanted), "random patch")
        rows.append([own, patch, scene(run.images("adv2", name)[1][0]), compared(shown, wanted)])
    return Grid(("benign map", "target map", "attacked by ADV²", "its map"), rows)


def of_masker(run: uf.Run) -> Grid:
    """What the demo's masker keeps, and what is left without it."""
    images, masks = (torch.from_numpy(rows[1]) for rows in (run.images(), run.maps("benign", "rts")))
    kept, left = blended(images, masks, blur(images, BLUR * images.shape[3]).clamp(0, 1))
    rows = [
        [scene(image), Tile(heat(mask), ""), scene(one), scene(other)]
        for image, mask, one, other in zip(*(each.numpy() for each in (images, masks, kept, left)), strict=True)
    ]
    return Grid(("image", "its mask", "kept", "left"), rows)


def transformer(path: Path) -> uf.Classifier:
    """Trained where the file is not there yet."""
    build = builder_in(Path(__file__).parents[1] / "examples" / "compact_transformer.py", "build")
    network = initialised(build, 0)
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        fit(network, small_scenes, small_loss, steps=700, lr=2e-3)
        save_file(network.state_dict(), path)
    return uf.Classifier(network, DEMO_MEAN, DEMO_STD)


def small_scenes(step: int) -> Samples:
    return halved(scenes(BATCH, FITTED, first=step * BATCH).samples)


def small_loss(network: torch.nn.Module, samples: Samples) -> torch.Tensor:
    return cross_entropy(log_prob(network(normalise(samples.images)), samples.labels))


def halved(samples: Samples) -> Samples:
    return replace(samples, images=avg_pool2d(samples.images, 2))


def of_rollouts(model: uf.Classifier) -> Grid:
    """Two scenes, each by both rollouts: the benign map, and those under PGD and ADV²."""
    images = halved(scenes(2, SEED).samples).images
    rows = []
    for explainer in (uf.Rollout(), uf.GradRollout()):
        plain, aware = (make(model, explainer, eps=EPS)(images, target=uf.NextClass()) for make in (uf.pgd, uf.adv2))
        for image, benign, *shown in zip(images, plain.target_map, plain.maps, aware.maps, strict=True):
            name, own = interpreter_name(explainer.name), benign.numpy()
            tiles = (compared(each.numpy(), own) for each in shown)
            rows.append([Tile(figures.photo(image.numpy(), KEPT), name), Tile(heat(own), ""), *tiles])
    return Grid(("benign image", "its map", "map under PGD", "map under ADV²"), rows)


def shown_by(explainer: uf.CAM | uf.GRAD, image: Array) -> Array:
    """The map of the class that is reported; neither interpreter draws random numbers."""
    x = torch.from_numpy(image)
    return explainer.explain(MODEL, x, MODEL(x).argmax(1), torch.zeros(1, dtype=torch.int64))[0].numpy()


def scene(image: Array) -> Tile:
    """An image and the class that is reported for it."""
    logits = MODEL(torch.from_numpy(image)[None])
    label = logits.argmax(1)
    return Tile(figures.photo(image, KEPT), f"{CLASSES[label]}, p {confidence(logits, label).item():.2f}")


def heat(values: Array) -> str:
    """A map on its own grid as a data URI."""
    data = BytesIO()
    colours = matplotlib.colormaps["inferno"](values, bytes=True)[..., :3]
    Image.fromarray(colours).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"


def compared(shown: Array, wanted: Array) -> Tile:
    return Tile(heat(shown), f"ΔL1 {np.abs(shown - wanted).mean():.3f}")


def changed(image: Array, benign: Array) -> Tile:
    largest = f"at most {255 * np.abs(image - benign).max():.0f}/255"
    return Tile(figures.change(image, benign, AMPLIFIED, KEPT), largest)


def _tile(x: int, y: int, tile: Tile) -> Iterator[str]:
    yield f'<image x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" href="{tile.source}" image-rendering="pixelated"/>'
    yield _text(x, y + SIDE + LINE - 4, tile.caption)


def _text(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
