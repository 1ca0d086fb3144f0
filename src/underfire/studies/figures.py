"""Figures in the paper's composition: galleries of images and maps, and bars with the paper's values beside ours.

figure = Figure("figure-5", "Fig. 5. …", bars(("CAM", "GRAD"), [Series("PGD", (…), (0.22, 0.10))], "ΔL1"))
write(figure, Path("runs/x/figures"))                   # figure-5.svg and figure-5.png
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from underfire.core.io import write_bytes
from underfire.core.plots import COLOURS, INK, LINES, STYLE, drawable, in_lines, svg
from underfire.metrics.intervals import Estimate

Drawing = matplotlib.figure.Figure
DOTS = 130  # per inch, of a PNG


@dataclass(frozen=True)
class Figure:
    """`name` is the file's; what it shows is drawn when it is asked for."""

    name: str
    title: str
    draw: Callable[[], Drawing]


def papers(number: int, text: str, draw: Callable[[], Drawing]) -> Figure:
    """One that takes the place of the paper's figure of this number."""
    return Figure(f"figure-{number}", f"Fig. {number}. {text}", draw)


def write(figure: Figure, folder: Path) -> None:
    """The figure as NAME.svg and NAME.png."""
    drawing = figure.draw()
    for suffix, content in ((".svg", svg(drawing)), (".png", png(drawing))):
        write_bytes(folder / f"{figure.name}{suffix}", content)


def png(drawing: Drawing) -> bytes:
    """The same bytes for the same drawing."""
    data = BytesIO()
    drawing.savefig(data, format="png", dpi=DOTS, metadata={"Software": None})
    return data.getvalue()


@dataclass(frozen=True)
class Series:
    """One bar per group, and the paper's value for each where it has one."""

    name: str
    ours: Sequence[Estimate | None]
    paper: Sequence[float | None] = ()


Bars = tuple[str, Sequence[Series]]  # a panel: what is measured, and its bars


def bars(groups: Sequence[str], panels: Sequence[Bars]) -> Drawing:
    """Panels side by side: bars with their 95 % intervals; a diamond is the paper's value."""
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure = Drawing(figsize=(0.8 + len(panels) * (0.9 + 0.75 * len(groups)), 2.9), layout="constrained")
        figure.patch.set_alpha(0)
        for place, (label, series) in enumerate(panels, 1):
            axes = figure.add_subplot(1, len(panels), place, facecolor="none")
            _bars(axes, groups, series)
            axes.set_ylabel(label)
        found = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
        legend = {name: handle for pairs in found for handle, name in pairs}
        figure.legend(legend.values(), legend.keys(), loc="outside lower left", ncols=4, frameon=False, fontsize=8)
        return figure


def _bars(axes: Axes, groups: Sequence[str], series: Sequence[Series]) -> None:
    width = 0.8 / len(series)
    anchored = False
    for number, each in enumerate(series):
        x = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        heights = np.array([np.nan if e is None or not e.n else e.value for e in each.ours])
        reach = np.array([(0, 0) if e is None or not e.n else (e.value - e.low, e.high - e.value) for e in each.ours])
        colour = COLOURS[(1 + number) % len(COLOURS)]
        axes.bar(x, heights, 0.92 * width, color=colour, label=drawable(each.name))
        axes.errorbar(x, heights, yerr=reach.T.clip(0), fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
        known = [(at, value) for at, value in zip(x, each.paper, strict=False) if value is not None]
        if known:
            label = None if anchored else "the paper's"
            anchored = True
            places, values = zip(*known, strict=True)
            axes.scatter(
                places,
                values,
                20,
                facecolors="white",
                edgecolors="black",
                linewidths=0.8,
                marker="D",
                label=label,
                zorder=3,
            )
    axes.set_xticks(range(len(groups)), [in_lines(name, 14) for name in groups])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)
    axes.set_ylim(bottom=0)


@dataclass(frozen=True)
class Level:
    """A share that is reached at a cost; at any cost where it is None."""

    name: str
    cost: int | None
    share: Estimate


def growing(panels: Mapping[str, Sequence[Level]], x: str, y: str) -> Drawing:
    """Panels side by side: shares by cost with their 95 % intervals; dashed lines are those that cost nothing of it."""
    names = dict.fromkeys(each.name for levels in panels.values() for each in levels)
    colours = dict(zip(names, np.resize(COLOURS, len(names)), strict=True))
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure = Drawing(figsize=(1.0 + 2.5 * len(panels), 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        for place, (title, levels) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place, facecolor="none")
            axes.set_title(drawable(title), fontsize=9)
            axes.set(xlabel=x, ylabel=y if place == 1 else "", xscale="log", ylim=(-0.02, 1.02))
            _growing(axes, levels, colours)
        found = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
        legend = {name: handle for pairs in found for handle, name in pairs}
        figure.legend(legend.values(), legend.keys(), loc="outside lower left", ncols=3, frameon=False, fontsize=8)
        return figure


def _growing(axes: Axes, levels: Sequence[Level], colours: Mapping[str, str]) -> None:
    if every := sorted({each.cost for each in levels if each.cost}):
        axes.set_xlim(every[0] / 1.4, every[-1] * 1.4)
        axes.set_xticks(every, [f"{each:,}" for each in every])
        axes.minorticks_off()
    costing = [name for name in colours if any(each.cost for each in levels if each.name == name)]
    for name in dict.fromkeys(each.name for each in levels):
        own, colour, label = [each for each in levels if each.name == name], colours[name], drawable(name)
        shares = [each.share.value for each in own]
        if name not in costing:
            axes.axhline(shares[0], color=colour, linestyle=LINES[1], linewidth=1.3, label=label)
            continue
        apart = 1.06 ** costing.index(name)  # so that intervals do not hide one another
        reach = np.array([(each.share.value - each.share.low, each.share.high - each.share.value) for each in own])
        costs = [apart * each.cost for each in own if each.cost]
        axes.errorbar(costs, shares, reach.T.clip(0), color=colour, marker="o", ms=4, capsize=2, label=label)


Panel = Tensor | None  # an image 3HW or a map hw in [0, 1]; None leaves its place empty


def gallery(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Panel]]]) -> Drawing:
    """Rows of panels under their columns' titles; a row's name stands on its left."""
    with matplotlib.rc_context(STYLE):
        figure = Drawing(figsize=(0.6 + 1.05 * len(columns), 0.3 + 1.08 * max(len(rows), 1)), layout="constrained")
        figure.patch.set_alpha(0)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)  # type: ignore[union-attr, call-arg]
        for number, (name, panels) in enumerate(rows):
            for place, panel in enumerate(panels):
                axes = figure.add_subplot(len(rows), len(columns), number * len(columns) + place + 1)
                _show(axes, panel)
                if number == 0:
                    axes.set_title(in_lines(columns[place], 14), fontsize=8)
                if place == 0:
                    axes.set_ylabel(in_lines(name, 16), fontsize=7)
        return figure


def _show(axes: Axes, panel: Panel) -> None:
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    if panel is None:
        axes.set_facecolor("none")
        return
    if panel.ndim == 3:
        axes.imshow(panel.permute(1, 2, 0).clamp(0, 1).numpy())
    else:
        axes.imshow(panel.numpy(), cmap="inferno", vmin=0, vmax=1)
