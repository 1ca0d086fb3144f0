"""Plots of the studies as the bytes of an SVG."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from underfire.report.figures import INK, STYLE, svg

Numbers = npt.NDArray[np.floating]
COLOURS = ("#8c8c8c", "#4f86b0", "#d9541e", "#6a9a3b", "#8a5fb0", "#c9a227", "#3b9a94")


def matrix(
    values: Numbers, rows: Sequence[str], columns: Sequence[str], own: npt.NDArray[np.bool_], label: str
) -> bytes:
    """A heat-map with its numbers; cells where `own` holds are framed, those without a number stay empty."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.8 + 0.9 * len(columns), 0.9 + 0.42 * len(rows)), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot(facecolor="none")
        image = axes.imshow(values, cmap="inferno", vmin=0, aspect="auto")
        figure.colorbar(image, label=label)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < 0.6 * np.nanmax(values) else "black"
                axes.text(j, i, f"{value:.3f}", ha="center", va="center", color=colour)
            if own[i, j]:
                axes.plot([j - 0.5, j + 0.5, j + 0.5, j - 0.5, j - 0.5], [i - 0.5] * 2 + [i + 0.5] * 2 + [i - 0.5], "w")
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set(xlabel="shown by", ylabel="made for", xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        return svg(figure)


def bound(points: Mapping[str, tuple[Numbers, Numbers]], bounded: str, bounding: str) -> bytes:
    """One set of (bounded, bounding) values per name above the line on which both are equal; zeros are left out."""
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot(facecolor="none")
        for (name, (x, y)), colour in zip(points.items(), np.resize(COLOURS, len(points)), strict=True):
            seen = y > 0
            axes.scatter(x[seen], y[seen], s=14, color=colour, alpha=0.75, linewidths=0, label=name)
        line = np.concatenate([np.geomspace(1e-6, 0.01, 50), np.linspace(0.01, 1, 50)])
        axes.plot(line, line, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0, label="bound")
        axes.set(xlabel=bounded, ylabel=bounding, yscale="log")
        axes.legend(frameon=False, fontsize=8)
        return svg(figure)
