"""Draw the README's picture, for light and for dark pages: python docs/front.py runs/demo

One image of a run of `underfire demo`, as it is and attacked by PGD and by ADV², with the maps of two interpreters: the
image whose maps move most typically, by factors between their distances and the medians over all images.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import underfire as uf
from underfire.attacks.names import attack_name, interpreter_name

IMAGES = Path(__file__).parent / "images"
INK = {"light": "#1f2328", "dark": "#f0f6fc"}
ATTACKS = ("benign", "pgd", "adv2")
INTERPRETERS = ("cam", "grad")

Rows = dict[tuple[str, str, str], dict[str, Any]]


def main() -> None:
    run = uf.open_run(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else IMAGES
    for name, ink in INK.items():
        path = folder / f"front-{name}.png"
        written = BytesIO()
        front(run, ink).savefig(written, dpi=160, transparent=True)
        Image.open(written).quantize(256, Image.Quantize.FASTOCTREE).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


def front(run: uf.Run, ink: str) -> Figure:
    """A row per interpreter: image and map, benign and under each attack."""
    rows = {(row["id"], row["attack"], row["interpreter"]): row for row in run.outcomes().to_pylist()}
    chosen, classes = typical(rows), run.info["classes"]
    with matplotlib.rc_context({"text.color": ink, "font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(8.4, 3.15), layout="constrained")
        for column, attack in zip(figure.subfigures(1, 3, wspace=0.04), ATTACKS, strict=True):
            column.suptitle("benign" if attack == "benign" else f"attacked by {attack_name(attack)}", fontsize=11)
            for panels, interpreter in zip(column.subplots(2, 2), INTERPRETERS, strict=True):
                image, heat = (
                    dict(zip(*found, strict=True))[chosen]
                    for found in (run.images(attack, interpreter), run.maps(attack, interpreter))
                )
                row = rows[chosen, "pgd" if attack == "benign" else attack, interpreter]
                reported = classes[row["class_true" if attack == "benign" else "class_predicted"]]
                show(panels[0], image.transpose(1, 2, 0), f"“{reported}”")
                moved = "" if attack == "benign" else f": ΔL1 {row['map_l1_png']:.3f}"
                show(panels[1], heat, f"{interpreter_name(interpreter)}{moved}")
        return figure


def typical(rows: Rows) -> str:
    """The image nearest to the median distances, of those that both attacks fooled under both interpreters."""
    cells = [(attack, interpreter) for attack in ATTACKS[1:] for interpreter in INTERPRETERS]
    names = sorted({name for name, _, _ in rows})
    names = [name for name in names if all(rows[name, *cell]["success_png"] for cell in cells)]
    moved = np.log([[rows[name, *cell]["map_l1_png"] for cell in cells] for name in names])
    return names[int(np.abs(moved - np.median(moved, 0)).sum(1).argmin())]


def show(panel: Axes, pixels: Any, title: str) -> None:
    panel.imshow(pixels, cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
    panel.set_title(title, pad=3)
    panel.set_axis_off()


if __name__ == "__main__":
    main()
