"""Grids of images and maps as the bytes of a PNG, the same for the same content."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from matplotlib.figure import Figure
from torch import Tensor


@dataclass(frozen=True)
class Panel:
    """An image 3HW or a map hw, in [0, 1], under its title."""

    title: str
    content: Tensor


def grid(rows: Sequence[Sequence[Panel]]) -> bytes:
    """One row of panels after another; the titles stand where they change."""
    columns = max((len(row) for row in rows), default=1)
    figure = Figure(figsize=(1.15 * columns, 1.25 * max(len(rows), 1)), layout="constrained")
    before: list[str] = []
    for number, row in enumerate(rows):
        titles = [panel.title for panel in row]
        for place, panel in enumerate(row):
            axes = figure.add_subplot(len(rows), columns, number * columns + place + 1)
            axes.set_axis_off()
            if panel.content.ndim == 3:
                axes.imshow(panel.content.permute(1, 2, 0).clamp(0, 1).numpy())
            else:
                axes.imshow(panel.content.numpy(), cmap="inferno", vmin=0, vmax=1)
            if titles != before:
                axes.set_title(panel.title, fontsize=5)
        before = titles
    data = BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
