"""Plots of the studies as the bytes of an SVG, legible on white and on black."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from textwrap import wrap
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

Numbers = npt.NDArray[np.floating]
INK = "#808080"  # reads on white and on black
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "svg.hashsalt": "underfire",  # equal plots have equal bytes
}
COLOURS = ("#8c8c8c", "#4f86b0", "#d9541e", "#6a9a3b", "#9b72c4", "#c9a227", "#3b9a94")
LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)), (0, (9, 2)), (0, (4, 1, 1, 1, 1, 1)))
FRAME = "#d9541e"
HEAT = ListedColormap(matplotlib.colormaps["inferno"](np.linspace(0.2, 0.95, 256)))  # without its near-black
SMALLEST = 1e-3  # of logarithmic axes
LONGEST, NARROW = 48, 24  # characters of a name: at most, and where two fit side by side


def matrix(
    values: Numbers, rows: Sequence[str], columns: Sequence[str], own: npt.NDArray[np.bool_], label: str
) -> bytes:
    """A heat-map with its numbers; cells where `own` holds are framed, those without a number stay empty."""
    with matplotlib.rc_context({**STYLE, "axes.spines.bottom": False}):
        figure, axes = _blank(2.1 + 0.9 * len(columns), 1.0 + 0.42 * len(rows))
        largest = max(float(np.nanmax(values, initial=0)), 1e-9)
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                _cell(axes, i, j, float(value) / largest, f"{value:.3f}", framed=bool(own[i, j]))
        axes.set_xticks(range(len(columns)), [in_lines(name, 12) for name in columns])
        axes.set_yticks(range(len(rows)), [in_lines(name, 24) for name in rows])
        axes.tick_params(length=0)
        axes.set(xlabel="shown by", ylabel="made for", xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set_title(label, loc="left", fontsize=9)
        return svg(figure)


def confusion_matrix(counts: npt.NDArray[np.integer], classes: Sequence[str]) -> Figure:
    """How many images of each class (row) are reported as each class, shaded by their share of the row."""
    with matplotlib.rc_context({**STYLE, "axes.spines.bottom": False}):
        side = 0.62 * len(classes)
        figure, axes = _blank(1.6 + side, 1.2 + side)
        shares = counts / counts.sum(1, keepdims=True).clip(1)
        for (i, j), share in np.ndenumerate(shares):
            _cell(axes, i, j, share, str(counts[i, j]), framed=i == j)
        names = [in_lines(name, 12) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), names)
        axes.tick_params(length=0)
        axes.set(xlabel="reported", ylabel="true", xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5))
        return figure


def bound(points: Mapping[str, tuple[Numbers, Numbers]], bounded: str, bounding: str) -> bytes:
    """One set of (bounded, bounding) values per name above the line on which both are equal; zeros are left out, and
    smaller bounding values than SMALLEST are drawn there.
    """
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure, axes = _blank(4.6, 3.4 + 0.1 * len(points))
        for (x, y), colour in zip(points.values(), np.resize(COLOURS, len(points)), strict=True):
            seen = y > 0
            axes.scatter(x[seen], y[seen].clip(SMALLEST), s=14, color=colour, alpha=0.75, linewidths=0)
        line = np.concatenate([np.geomspace(SMALLEST, 0.01, 50), np.linspace(0.01, 1, 50)])
        axes.plot(line, line, color=INK, linewidth=0.9, linestyle=LINES[1], zorder=0)
        axes.set(xlabel=bounded, ylabel=bounding, yscale="log")
        _legend(figure, [*axes.collections, axes.lines[0]], [*points, "both equal"])
        return svg(figure)


def budgets(found: Mapping[str, tuple[Numbers, Numbers, Numbers, Numbers]], mark: float, x: str, y: str) -> bytes:
    """For each name a share that grows with a budget, in steps, and its band: budgets, shares, low, high.

    A dashed line stands at the budget `mark`, a dotted one where half is reached.
    """
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure, axes = _blank(4.6, 3.2 + 0.17 * len(found))
        for (across, up, low, high), colour in zip(found.values(), np.resize(COLOURS[1:], len(found)), strict=True):
            axes.fill_between(across, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
            axes.step(across, up, where="post", color=colour, linewidth=1.6)
        lines = list(axes.lines)
        axes.axvline(mark, color=INK, linewidth=0.8, linestyle=LINES[1], zorder=0)
        axes.axhline(0.5, color=INK, linewidth=0.8, linestyle=LINES[2], zorder=0)
        axes.set(xlabel=x, ylabel=y, xscale="log", ylim=(-0.02, 1.02))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        ticks = next(iter(found.values()))[0]
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        _legend(figure, lines, list(found))
        return svg(figure)


def curves(points: Mapping[tuple[str, str], tuple[Numbers, Numbers]], mark: float | None, x: str, y: str) -> bytes:
    """One curve of shares per (kind, of what): a colour for each kind, a kind of line for each of what."""
    kinds, others = (list(dict.fromkeys(names)) for names in zip(*points, strict=True))
    with matplotlib.rc_context({**STYLE, "axes.spines.left": True}):
        figure, axes = _blank(3.9, 3.2 + 0.17 * len(points))
        for (kind, other), (across, up) in points.items():
            colour = COLOURS[(1 + kinds.index(kind)) % len(COLOURS)]
            axes.plot(across, up, color=colour, linestyle=LINES[others.index(other) % len(LINES)], linewidth=1.4)
        lines = list(axes.lines)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.6, zorder=0)
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=0.8, linestyle=LINES[1], zorder=0)
        axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        _legend(figure, lines, [" ".join(filter(None, names)) for names in points])
        return svg(figure)


def drawable(name: str) -> str:
    """A name from outside as the font can draw it: no formula, no foreign glyph, no hidden label."""
    known = name.encode("latin-1", "replace").decode("latin-1")
    printable = "".join(each if each.isprintable() else "?" for each in known)
    return printable[:LONGEST].replace("$", r"\$").replace("_", " ", int(printable.startswith("_")))


def in_lines(name: str, width: int) -> str:
    """A name in lines of so many characters."""
    return "\n".join(map(drawable, wrap(name[:LONGEST], width)))


def svg(figure: Figure) -> bytes:
    """The same bytes for the same plot."""
    data = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()


def _blank(width: float, height: float) -> tuple[Figure, Axes]:
    """A transparent figure of this size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure, figure.add_subplot(facecolor="none")


def _cell(axes: Axes, i: int, j: int, share: float, text: str, framed: bool) -> None:
    """One cell of a heat-map, as hot as its share in [0, 1]."""
    frame = {"edgecolor": FRAME, "linewidth": 2} if framed else {"linewidth": 0}
    axes.add_patch(Rectangle((j - 0.47, i - 0.46), 0.94, 0.92, facecolor=HEAT(share), **frame))
    axes.text(j, i, text, ha="center", va="center", color="white" if share < 0.55 else "black")


def _legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Below the plot, so that it hides nothing."""
    labels = [drawable(name) for name in names]
    columns = 2 if max(map(len, labels)) <= NARROW else 1
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)
