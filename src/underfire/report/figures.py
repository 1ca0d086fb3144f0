"""Arrays as pictures and plots, each returned as a data URI that the page embeds."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image

from underfire.attacks.names import ENSEMBLE
from underfire.core.plots import HEAT, INK, STYLE, in_lines, svg
from underfire.report.view import Array
from underfire.studies.figures import DOTS

UNSEEN, SEEN = 0.1, 0.65  # up to the one a map is see-through, from the other on it hides the picture


class Points(NamedTuple):
    """An attack's values, where it succeeded, and its colour."""

    values: npt.NDArray[np.floating]
    success: npt.NDArray[np.bool_]
    colour: str


@dataclass(frozen=True)
class Encoding:
    """How much of a picture is kept: photos are shrunk to the side, maps and noise to half of it.

    Pictures that are not larger than `lossless` stay as they are: JPEG would show its blocks.
    """

    side: int = 224
    lossless: int = 96


def photo(image: Array, encoding: Encoding) -> str:
    """An image (3, H, W) in [0, 1]."""
    return _encode(_picture(image), encoding.side, encoding.lossless, Image.Resampling.LANCZOS)


def change(image: Array, benign: Array, factor: int, encoding: Encoding) -> str:
    """The difference of two images, amplified around mid-grey; shrunk without averaging the noise away."""
    noise = _picture(0.5 + factor * (image - benign))
    return _encode(noise, encoding.side // 2, encoding.lossless, Image.Resampling.NEAREST)


def flow(field: Array, reach: float, encoding: Encoding) -> str:
    """A flow (2, H, W): hue by direction, as on the wheel, and saturation by length, full from `reach` pixels on."""
    colours = Image.fromarray(_directions(field / reach))
    return _encode(colours, encoding.side, encoding.lossless, Image.Resampling.LANCZOS)


def wheel(side: int = 64) -> str:
    """The colour of every direction, of lengths from 0 at the centre to `reach` on the rim."""
    place = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    inside = 255 * (np.hypot(*place) <= 1)
    colours = Image.fromarray(np.dstack([_directions(place), inside.astype(np.uint8)]))
    return _encode(colours, side, side, Image.Resampling.NEAREST)


def heat(values: Array, encoding: Encoding) -> str:
    """A map (h, w) in [0, 1] interpolated bilinearly, then coloured; see-through where it is low."""
    side = encoding.side // 2
    size = (side, round(side * values.shape[0] / values.shape[1]))
    smooth = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    colours = HEAT(smooth, bytes=True)
    colours[..., 3] = np.rint(255 * ((smooth - UNSEEN) / (SEEN - UNSEEN)).clip(0, 1))
    data = BytesIO()
    Image.fromarray(colours).save(data, "WEBP", quality=70, alpha_quality=60, method=4)
    return _uri("image/webp", data.getvalue())


def strips(parts: Mapping[str, Points], label: str, mark: float | None, most: float | None) -> "Plot":
    """One strip of points per part with its median; hollow where the classifier was not fooled.

    The axis ends at `most`, so that plots of several interpreters can be compared; a dashed line at `mark`.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 0.7 + 0.42 * max(1, len(parts))), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot(facecolor="none")
        for height, points in enumerate(reversed(list(parts.values()))):
            _strip(axes, height, points)
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axes.set(xlabel=label, ylim=(-0.5, max(1, len(parts)) - 0.5), xlim=(-0.02 * (most or 1), most and 1.02 * most))
        axes.set_yticks(range(len(parts)), [in_lines(name, 20) for name in reversed(list(parts))])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=INK, alpha=0.2, linewidth=0.6)
        return embedded(svg(figure))


class Plot(NamedTuple):
    """A data URI and its size in pixels."""

    source: str
    width: int
    height: int


def embedded(picture: bytes) -> Plot:
    """An SVG that matplotlib wrote, whose size is in points."""
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture)
    assert size is not None
    width, height = (int(float(points) * 4 / 3) for points in size.groups())
    return Plot(_uri("image/svg+xml", picture), width, height)


def photograph(picture: bytes) -> Plot:
    """A PNG of a study, in the size that it would have on paper."""
    with Image.open(BytesIO(picture)) as opened:
        width, height = (round(side * 96 / DOTS) for side in opened.size)
    return Plot(_uri("image/png", picture), width, height)


def colour_of(map_aware: bool | None, evades: str | None) -> str:
    """Alike for all solvers: on the ensemble, evading, map-aware, plain; grey if the attack is not one of ours."""
    if map_aware is None:
        return "#8c8c8c"
    if evades is not None:
        return "#6a9a3b" if evades == ENSEMBLE else "#9b72c4"
    return "#d9541e" if map_aware else "#4f86b0"


def _strip(axes: Axes, height: int, points: Points) -> None:
    """Points spread vertically by a fixed jitter, and a bar at their median."""
    values, success, colour = points
    y = height + np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    for chosen, face in ((success, colour), (~success, "none")):
        axes.scatter(values[chosen], y[chosen], s=16, facecolors=face, edgecolors=colour, linewidths=0.9, alpha=0.75)
    axes.vlines(np.median(values), height - 0.36, height + 0.36, color=colour, linewidth=2.4)


def _directions(field: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """White where the field (2, H, W) is 0, and a pure colour from length 1 on: RGB (H, W, 3)."""
    hue = np.arctan2(*field) / (2 * np.pi) % 1
    saturation = np.hypot(*field).clip(0, 1)
    colours = hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], -1))
    rounded: npt.NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
    return rounded


def _picture(image: Array) -> Image.Image:
    return Image.fromarray(np.rint(255 * image.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0))


def _encode(picture: Image.Image, side: int, lossless: int, resample: Image.Resampling) -> str:
    """Compress: pictures that are small by nature as PNG, others shrunk to the side as JPEG."""
    data = BytesIO()
    if max(picture.size) <= lossless:
        picture.save(data, "PNG", optimize=True)
        return _uri("image/png", data.getvalue())
    picture.thumbnail((side, side), resample)
    picture.save(data, "JPEG", quality=82, optimize=True)
    return _uri("image/jpeg", data.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"
