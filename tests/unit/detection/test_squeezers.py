"""Squeezers: what they make of images, that the median is SciPy's, and how gradients pass them."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.detection.squeezers import BitDepth, Median, NonLocalMeans, Squeezer, squeezer_named

NAMES = ("bits:1", "bits:2", "bits:3", "median:2", "median:3", "median:5", "nlm:11-3-4")


def noise(n: int = 2, height: int = 9, batch_size: int = 7, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, height, batch_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(
        dtype
    )


def grey(values: list[list[float]]) -> Tensor:
    return torch.tensor(values)[None, None].expand(1, 3, -1, -1)


# ------------------------------------------------------------------ every squeezer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_shape_type_and_range_stay(name: str, dtype: torch.dtype) -> None:
    images = noise(dtype=dtype)
    squeezed = squeezer_named(name)(images)
    assert (squeezed.shape, squeezed.dtype) == (images.shape, dtype)
    assert 0 <= squeezed.min() < squeezed.max() <= 1
    assert not torch.equal(squeezed, images)


@pytest.mark.parametrize("name", NAMES)
def test_each_image_is_squeezed_by_itself_and_always_alike(name: str) -> None:
    squeeze, images = squeezer_named(name), noise(4)
    kept = images.clone()
    together = squeeze(images)
    assert torch.equal(images, kept)
    assert torch.equal(together, squeeze(images))
    for image, expected in zip(images, together, strict=True):
        assert torch.equal(squeeze(image[None])[0], expected)


@pytest.mark.parametrize("size", [(5, 6), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_black_and_white_stay_as_they_are(name: str, size: tuple[int, int]) -> None:
    """OpenCV's own colour space makes white up to two levels of 255 darker."""
    for level in (0.0, 1.0):
        plain = torch.full((1, 3, *size), level)
        assert torch.allclose(squeezer_named(name)(plain), plain, atol=2.01 / 255 if "nlm" in name else 0)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_read_back(name: str) -> None:
    squeezer = squeezer_named(name)
    assert squeezer.name == name
    assert isinstance(squeezer, Squeezer)
    assert squeezer == squeezer_named(squeezer.name)
    assert hash(squeezer) == hash(squeezer_named(name))


# ------------------------------------------------------------------ bit depth


@pytest.mark.parametrize(("bits", "expected"), [(1, 0.0), (2, 0.66666667), (3, 0.57142857)])
def test_a_half_is_rounded_to_even(bits: int, expected: float) -> None:
    """Oracle 8."""
    squeezed = BitDepth(bits)(torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64))
    assert squeezed[0, 0, 0, 0].item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_values_are_the_nearest_levels_and_stay_there(bits: int) -> None:
    images, squeeze, steps = noise(dtype=torch.float64), BitDepth(bits), 2**bits - 1
    squeezed = squeeze(images)
    assert (squeezed - images).abs().max() <= 0.5 / steps + 1e-12
    assert torch.allclose(squeezed * steps, (squeezed * steps).round(), atol=1e-9)
    assert torch.equal(squeeze(squeezed), squeezed)


def test_8_bit_images_have_8_bits() -> None:
    images = (noise() * 255).round() / 255
    assert torch.equal(BitDepth(8)(images), images)


# ------------------------------------------------------------------ median


def test_median_of_one_to_nine() -> None:
    """Oracle 8."""
    squeezed = Median(3)(grey([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) / 9)
    assert (9 * squeezed[0, 0]).round().tolist() == [[2, 3, 3], [4, 5, 6], [7, 7, 8]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(9, 7), (1, 8), (2, 3), (16, 16)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7])
def test_median_is_that_of_scipy(side: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Also where the window is larger than the image, and among many equal values."""
    for images in (noise(2, *shape, dtype), (3 * noise(2, *shape, dtype)).round() / 3):
        expected = median_filter(images.numpy(), size=(1, 1, side, side), mode="reflect")
        assert np.array_equal(Median(side)(images).numpy(), expected)


# ------------------------------------------------------------------ non-local means


def test_noise_is_averaged_out_and_edges_stay() -> None:
    clean = torch.full((1, 3, 24, 24), 0.3)
    clean[..., 12:] = 0.7
    noisy = (clean + 0.02 * (noise(1, 24, 24) - 0.5)).clamp(0, 1)
    squeezed = NonLocalMeans(11, 3, 4.0)(noisy)
    assert (squeezed - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert (squeezed[..., 12] - squeezed[..., 11]).min() > 0.35


def test_arguments_reach_opencv_by_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = pytest.importorskip("cv2")
    seen: dict[str, object] = {}

    def recorded(image: np.ndarray, _target: None, **named: object) -> np.ndarray:
        seen.update(named, first_pixel=image[0, 0].tolist())
        return image

    monkeypatch.setattr(cv2, "fastNlMeansDenoisingColored", recorded)
    images = torch.tensor([0.2, 0.4, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    squeezed = NonLocalMeans(11, 3, 4.0)(images)
    assert seen == {
        "h": 4,
        "hColor": 4,
        "templateWindowSize": 3,
        "searchWindowSize": 11,
        "first_pixel": [255, 102, 51],  # OpenCV wants blue first
    }
    assert torch.allclose(squeezed, images)


def test_missing_opencv_is_said_before_anything_is_squeezed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UnderfireError, match=r"needs OpenCV, which is not installed: pip install .*without nlm"):
        squeezer_named("nlm:11-3-4")
    assert squeezer_named("median:3").name == "median:3"


# ------------------------------------------------------------------ gradients


def gradient(change: Callable[[Tensor], Tensor], images: Tensor, weight: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad((weight * change(leaf)).sum(), leaf)
    return found


@pytest.mark.parametrize("name", ["bits:1", "bits:3", "nlm:11-3-4"])
def test_gradients_pass_straight_through_what_has_none(name: str) -> None:
    images, weight = noise(), noise(2).flip(0)
    squeeze = squeezer_named(name)
    assert torch.equal(gradient(squeeze, images, weight), gradient(lambda x: x.clone(), images, weight))
    assert torch.equal(gradient(lambda x: squeeze(x**2), images, weight), 2 * images * weight)


def test_second_derivatives_pass_too() -> None:
    """Interpreters that differentiate twice can stand behind a squeezer: of sum s^3 with ds/dx = 1 it is 6 s."""
    images, squeeze = noise().requires_grad_(), BitDepth(2)
    (first,) = torch.autograd.grad(squeeze(images).pow(3).sum(), images, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), images)
    assert torch.allclose(second, 6 * squeeze(images.detach()))


@pytest.mark.parametrize("name", NAMES)
def test_values_are_the_same_with_and_without_a_gradient(name: str) -> None:
    squeeze, images = squeezer_named(name), noise()
    assert torch.equal(squeeze(images.clone().requires_grad_()).detach(), squeeze(images))
    with torch.inference_mode():
        assert torch.equal(squeeze(images), squeezer_named(name)(images))


@pytest.mark.parametrize("side", [2, 3, 5])
def test_the_gradient_of_the_median_is_its_own(side: int) -> None:
    images = noise(1, 5, 4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(Median(side), images)


def test_of_equal_pixels_one_gets_the_gradient() -> None:
    images = torch.full((1, 3, 4, 4), 0.5)
    found = gradient(Median(3), images, torch.ones_like(images))
    assert found.sum() == images.numel()
    assert torch.equal(found, gradient(Median(3), images, torch.ones_like(images)))


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("text", ["", "jpeg:80", "Bits:2", "2"])
def test_unknown_squeezers_are_refused(text: str) -> None:
    with pytest.raises(UnderfireError, match=r"There is no squeezer .*; write them like bits:2, median:3, nlm:11-3-4"):
        squeezer_named(text)


@pytest.mark.parametrize(
    "text", ["bits", "bits:", "bits:two", "median:3x3", "nlm", "nlm:11", "nlm:11-3-4-5", "nlm:a-b-c"]
)
def test_squeezers_without_their_numbers_are_refused(text: str) -> None:
    with pytest.raises(UnderfireError, match=f"Squeezer '{text}' lacks the numbers it needs; write it like"):
        squeezer_named(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bits:0", "1 to 16 bits"),
        ("bits:17", "1 to 16 bits"),
        ("median:0", "1 pixel or more"),
        ("median:-3", "1 pixel or more"),
        ("nlm:10-3-4", "an odd window"),
        ("nlm:11-2-4", "an odd patch"),
        ("nlm:11-3-0", "a positive strength"),
        ("nlm:11-3-nan", "a positive strength"),
        ("nlm:11-3-inf", "a positive strength"),
    ],
)
def test_squeezers_that_cannot_be_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UnderfireError, match=reason):
        squeezer_named(text)
