"""Synthetic scenes: one shape of ten classes on a textured ground, with its exact mask.

    batch = scenes(20, seed=7)
    batch.samples.images, batch.samples.labels, batch.masks      # (20, 3, 64, 64), (20,), (20, 64, 64)

Scene i is a function of (seed, i) and of nothing else; it is painted in double precision, so that
rounding hides what vectorised functions change with the batch. Shapes are signed distances (negative
inside), so that edges are antialiased and masks are exact; colours are drawn in Oklch (Ottosson
2020, "A perceptual color space for image processing"), where equal steps look equal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys, uniform
from underfire.core.types import Images, Keys, Labels, Samples

SIZE = 64  # pixels on a side
SMALLEST, LARGEST = 22.0, 40.0  # diameter in pixels of the circle around a shape
CHUNK = 128  # scenes painted at a time, bounding memory

Plane = Float[Tensor, "n h w"]
Scalar = Float[Tensor, "n 1 1"]
Colour = Float[Tensor, "n 3 1 1"]
Masks = Bool[Tensor, "n h w"]


@dataclass(frozen=True)
class Scenes:
    """N scenes and the pixels of their shapes."""

    samples: Samples
    masks: Masks


def scenes(count: int, seed: int, first: int = 0) -> Scenes:
    """Scenes first … first + count - 1 of a seed; scene i shows class i mod 10."""
    if count < 1 or first < 0:
        raise UnderfireError(f"Scenes need count ≥ 1 and first ≥ 0, not count={count} and first={first}.")
    ids = tuple(f"scene-{seed}-{index:06d}" for index in range(first, first + count))
    labels = torch.arange(first, first + count) % len(CLASSES)
    chunks = zip(torch.split(image_keys(ids), CHUNK), torch.split(labels, CHUNK), strict=True)
    images, masks = zip(*(_paint(_Dice(seed, keys), chunk) for keys, chunk in chunks), strict=True)
    return Scenes(Samples(ids, torch.cat(images), labels), torch.cat(masks))


@dataclass(frozen=True)
class _Dice:
    """Random numbers of each scene, told apart by what they are for."""

    seed: int
    keys: Keys

    def planes(self, purpose: str, count: int) -> Float[Tensor, "n c h w"]:
        step = torch.zeros_like(self.keys)
        return uniform(self.seed, purpose, self.keys, step, count * SIZE**2).view(-1, count, SIZE, SIZE)

    def between(self, purpose: str, low: float, high: float) -> Scalar:
        number = uniform(self.seed, purpose, self.keys, torch.zeros_like(self.keys), 1)
        return (low + (high - low) * number)[:, :, None]

    def choice(self, purpose: str, options: int) -> Labels:
        return self.between(purpose, 0.0, float(options)).long().clamp_max(options - 1).flatten()


def _paint(dice: _Dice, labels: Labels) -> tuple[Images, Masks]:
    """Ground, blobs, contact shadow, shape and sensor noise, in this order."""
    dark = dice.between("dark ground", 0.0, 1.0) < 0.5
    lightness = torch.where(dark, dice.between("dark", 0.24, 0.46), dice.between("light", 0.70, 0.92))
    contrast = torch.where(dark, 1, -1) * dice.between("contrast", 0.16, 0.34)
    picture = _textured(dice, "ground", lightness, (0.02, 0.09), 0.13)
    for name, share in (("first blob", 1.0), ("second blob", 0.5)):
        colour = _colour(dice, name, lightness + contrast, (0.05, 0.15))
        picture = torch.lerp(picture, colour, _coverage(_blob(dice, name, share))[:, None])
    distance = _shape(dice, labels)
    picture = picture * (1 - 0.5 * _shadow(_coverage(distance)))[:, None]
    fill = _textured(dice, "fill", lightness + contrast, (0.10, 0.18), 0.08)
    picture = torch.lerp(picture, fill, _coverage(distance)[:, None])
    noise = 0.015 * torch.special.ndtri(dice.planes("noise", 3))
    return (picture + noise).clamp(0, 1).float(), distance < 0


def _coverage(distance: Plane) -> Plane:
    """The share of a pixel that lies inside an edge at a signed distance in pixels."""
    return (0.5 - distance).clamp(0, 1)


def _shadow(coverage: Plane) -> Plane:
    """The coverage, blurred by two boxes and moved two pixels down and to the right."""
    shadow = F.pad(coverage, (8, 4, 8, 4))
    for box in ((1, 7), (7, 1), (1, 7), (7, 1)):
        shadow = F.avg_pool2d(shadow, box, stride=1)
    return shadow


# --- where things are -------------------------------------------------------------------------


def _view(column: Scalar, row: Scalar, turn: Scalar) -> tuple[Plane, Plane]:
    """Pixel coordinates seen from a point, turned by an angle in radians."""
    axis = torch.arange(SIZE, dtype=torch.float64) + 0.5
    x, y = axis[None, None, :] - column, axis[None, :, None] - row
    return x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()


def _shape(dice: _Dice, labels: Labels) -> Plane:
    """Signed distance in pixels, to first order, to the main shape: inside the picture, seen at a slant."""
    radius = dice.between("size", SMALLEST / 2, LARGEST / 2)
    room = SIZE / 2 - 1 - radius
    column, row = (SIZE / 2 + room * dice.between(axis, -1.0, 1.0) for axis in ("column", "row"))
    x, y = _view(column, row, dice.between("turn", -math.pi, math.pi))
    x, y = x / (radius * dice.between("slant", 0.65, 1.0)), y / radius
    return radius * _each(list(_SHAPES.values()), labels, x, y)


def _blob(dice: _Dice, name: str, share: float) -> Plane:
    """Signed distance in pixels, to first order, to a small oval that a share of the scenes has."""
    column, row = (dice.between(f"{name} {axis}", 3.0, SIZE - 3.0) for axis in ("column", "row"))
    x, y = _view(column, row, dice.between(f"{name} turn", 0.0, math.pi))
    oval = torch.hypot(x, y / dice.between(f"{name} flatness", 0.4, 0.6))
    present = dice.between(f"{name} presence", 0.0, 1.0) < share
    return torch.where(present, oval - dice.between(f"{name} extent", 3.0, 5.5), torch.inf)


def _each(functions: Sequence[Callable[[Plane, Plane], Plane]], choice: Labels, x: Plane, y: Plane) -> Plane:
    """Each scene's own function of its coordinates."""
    result = torch.empty_like(x)
    for index, function in enumerate(functions):
        rows = choice == index
        result[rows] = function(x[rows], y[rows])
    return result


# --- shapes: signed distance to a shape inside the unit circle, y pointing down ---------------


def _half_planes(x: Plane, y: Plane, sides: int, apothem: float) -> Float[Tensor, "s n h w"]:
    angles = (math.tau * k / sides for k in range(sides))
    return torch.stack([x * math.sin(a) + y * math.cos(a) - apothem for a in angles])


def _disc(x: Plane, y: Plane) -> Plane:
    return torch.hypot(x, y) - 0.95


def _ring(x: Plane, y: Plane) -> Plane:
    return (torch.hypot(x, y) - 0.74).abs() - 0.25


def _square(x: Plane, y: Plane) -> Plane:
    return torch.maximum(x.abs(), y.abs()) - math.sqrt(0.5)


def _triangle(x: Plane, y: Plane) -> Plane:
    return _half_planes(x, y, 3, 0.5).amax(0)


def _star(x: Plane, y: Plane) -> Plane:
    """A pentagram: inside at least four of five half planes."""
    return _half_planes(x, y, 5, math.cos(math.tau / 5)).topk(2, dim=0).values[1]


def _cross(x: Plane, y: Plane) -> Plane:
    long, short = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return torch.maximum(long - 0.94, short - 0.3)


def _crescent(x: Plane, y: Plane) -> Plane:
    return torch.maximum(torch.hypot(x, y) - 1, 0.8 - torch.hypot(x - 0.5, y))


def _heart(x: Plane, y: Plane) -> Plane:
    """A square on its corner with a disc on each upper side."""
    x, y = x.abs(), y - 0.1
    square = (x + y.abs()) / math.sqrt(2) - 0.52
    disc = torch.hypot(x - 0.52 / math.sqrt(2), y + 0.52 / math.sqrt(2)) - 0.52
    return torch.minimum(square, disc)


def _arrow(x: Plane, y: Plane) -> Plane:
    head = torch.maximum(-x, (0.8 * x + y.abs() - 0.8) / math.hypot(0.8, 1))
    shaft = torch.maximum((x + 0.42).abs() - 0.5, y.abs() - 0.24)
    return torch.minimum(head, shaft)


def _flower(x: Plane, y: Plane) -> Plane:
    """Six round petals about a round heart."""
    angles = (math.tau * k / 6 for k in range(6))
    petals = [torch.hypot(x - 0.66 * math.cos(a), y - 0.66 * math.sin(a)) - 0.33 for a in angles]
    return torch.stack([*petals, torch.hypot(x, y) - 0.5]).amin(0)


_SHAPES = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
    "flower": _flower,
}
CLASSES: tuple[str, ...] = tuple(_SHAPES)


# --- textures: a blend in [0, 1] of two colours, over coordinates in radians ------------------


def _clouds(x: Plane, y: Plane) -> Plane:
    return 0.5 + 0.25 * (torch.sin(x + 1.7 * torch.sin(0.8 * y)) + torch.sin(1.3 * y + 1.9 * torch.sin(0.7 * x)))


def _stripes(x: Plane, y: Plane) -> Plane:
    return torch.sigmoid(6 * torch.sin(x))


def _checks(x: Plane, y: Plane) -> Plane:
    return torch.sigmoid(8 * torch.sin(x) * torch.sin(y))


def _gradient(x: Plane, y: Plane) -> Plane:
    return 0.5 + 0.5 * torch.sin(x / 4)


_TEXTURES = (_clouds, _stripes, _checks, _gradient)


def _textured(dice: _Dice, name: str, lightness: Scalar, chroma: tuple[float, float], depth: float) -> Images:
    """Two related colours, `depth` apart in lightness, blended by a texture."""
    first = _colour(dice, name, lightness - depth / 2, chroma)
    second = _colour(dice, name, lightness + depth / 2, chroma, dice.between(f"{name} drift", -0.8, 0.8))
    period = dice.between(f"{name} period", 8.0, 18.0) / math.tau
    column, row = (dice.between(f"{name} {axis}", -200.0, 200.0) for axis in ("column", "row"))
    x, y = _view(column, row, dice.between(f"{name} turn", -math.pi, math.pi))
    blend = _each(_TEXTURES, dice.choice(f"{name} texture", len(_TEXTURES)), x / period, y / period)
    return torch.lerp(first, second, blend[:, None])


def _colour(
    dice: _Dice, name: str, lightness: Scalar, chroma: tuple[float, float], drift: Scalar | float = 0.0
) -> Colour:
    """An sRGB colour of a given Oklch lightness; `drift` in radians turns the hue."""
    strength = dice.between(f"{name} chroma", *chroma)
    hue = dice.between(f"{name} hue", -math.pi, math.pi) + drift
    lab = torch.stack([lightness, strength * hue.cos(), strength * hue.sin()], dim=1)
    linear = _transform(_CONE_TO_RGB, _transform(_LAB_TO_CONE, lab) ** 3).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _transform(matrix: Sequence[Sequence[float]], colour: Colour) -> Colour:
    first, second, third = colour[:, :1], colour[:, 1:2], colour[:, 2:]
    return torch.cat([a * first + b * second + c * third for a, b, c in matrix], dim=1)


_LAB_TO_CONE = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)
_CONE_TO_RGB = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
