"""Harmless changes: each does what it says, to each image by itself, and nothing else."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import blur
from underfire.core.rng import image_keys
from underfire.data.corruptions import (
    CHANGES,
    HARMLESS,
    JPEG,
    Blur,
    Brightness,
    Corruption,
    Crop,
    Noise,
    Shift,
    change_named,
)

KEYS = image_keys(["a", "b", "c"])
every_change = pytest.mark.parametrize("change", [*CHANGES.values(), *HARMLESS], ids=str)


def pictures(n: int = 3, side: int = 12, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=dtype)


@every_change
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_changed_images_are_images_of_the_same_kind(change: Corruption, dtype: torch.dtype) -> None:
    x = pictures(dtype=dtype)
    before, changed = x.clone(), change(x, KEYS)
    assert isinstance(change, Corruption)
    assert (changed.shape, changed.dtype) == (x.shape, dtype)
    assert torch.equal(x, before)
    assert not torch.equal(changed, x)
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


@every_change
def test_each_image_is_changed_by_itself(change: Corruption) -> None:
    x = pictures()
    order = torch.tensor([2, 0, 1])
    assert torch.equal(change(x, KEYS)[order], change(x[order], KEYS[order]))
    alone = torch.cat([change(x[i : i + 1], KEYS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(change(x, KEYS), alone, atol=1e-6, rtol=0)


def test_noise_is_normal_and_an_images_own() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5, dtype=torch.float64)
    added = (Noise(0.02)(grey, KEYS[:2]) - grey) / 0.02
    assert float(added.mean()) == pytest.approx(0, abs=0.03)
    assert float(added.std()) == pytest.approx(1, abs=0.03)
    assert float((added.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.02)
    assert not torch.equal(added[0], added[1])
    assert torch.equal(Noise(0.02)(grey, KEYS[[0, 0]])[0], Noise(0.02)(grey, KEYS[[0, 0]])[1])


def test_no_noise_changes_nothing() -> None:
    assert torch.equal(Noise(0.0)(pictures(), KEYS), pictures())


def test_jpeg_is_what_a_file_would_hold() -> None:
    x = pictures()
    pixels = (x[1] * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=65, subsampling="4:4:4")
    held = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    assert torch.equal(JPEG(65)(x, KEYS)[1], held)
    coarse, fine = ((JPEG(quality)(x, KEYS) - x).abs().mean() for quality in (20, 95))
    assert fine < coarse


def test_blur_is_the_gaussian_average() -> None:
    assert torch.equal(Blur(0.7)(pictures(), KEYS), blur(pictures(), 0.7))


def test_a_crop_of_everything_changes_nothing() -> None:
    assert torch.equal(Crop(1.0)(pictures(), KEYS), pictures())
    assert torch.equal(Crop(1.0).moved(pictures()[:, 0]), pictures()[:, 0])


def test_images_and_maps_are_cropped_alike() -> None:
    """On a ramp in pixels, whose value is the place: the centre stays, and everything else moves towards it."""
    ramp = torch.arange(20, dtype=torch.float64).expand(1, 3, 20, 20) / 20
    cropped = Crop(0.8)(ramp, KEYS[:1])
    expected = (2 + (torch.arange(20, dtype=torch.float64) + 0.5) * 0.8 - 0.5) / 20
    torch.testing.assert_close(cropped, expected.expand(1, 3, 20, 20))
    torch.testing.assert_close(Crop(0.8).moved(ramp[:, 0]), expected.expand(1, 20, 20))
    coarse = (torch.arange(5, dtype=torch.float64) * 4 + 1.5).expand(1, 5, 5) / 20  # of the same ramp
    torch.testing.assert_close(Crop(0.8).moved(coarse)[..., 1:4], (2 + coarse * 20 * 0.8 - 0.1)[..., 1:4] / 20)


@pytest.mark.parametrize("change", [Noise(), JPEG(), Blur(), Shift(), Brightness(1.02)])
def test_the_others_leave_maps_where_they_are(change: Corruption) -> None:
    maps = pictures()[:, 0]
    assert change.moved(maps) is maps


def test_a_shift_moves_to_the_right_and_repeats_the_edge() -> None:
    x = pictures()
    moved = Shift(2)(x, KEYS)
    assert torch.equal(moved[..., 2:], x[..., :-2])
    assert torch.equal(moved[..., :2], x[..., :1].expand(-1, -1, -1, 2))


def test_brightness_is_a_factor_that_is_cut_at_white() -> None:
    x = torch.tensor([0.0, 0.5, 0.99]).view(1, 1, 1, 3).expand(3, 3, 2, 3)
    assert Brightness(1.02)(x, KEYS)[0, 0, 0].tolist() == pytest.approx([0, 0.51, 1])


def test_names() -> None:
    assert list(CHANGES) == ["noise", "jpeg", "blur", "crop"]
    assert change_named("crop") == Crop()
    with pytest.raises(UnderfireError, match=r"no harmless change 'flip'; there are noise, jpeg, blur, crop"):
        change_named("flip")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Noise, -0.1),
        (Noise, float("nan")),
        (JPEG, 0),
        (JPEG, 101),
        (Blur, 0.0),
        (Crop, 0.0),
        (Crop, 1.1),
        (Brightness, 0.0),
    ],
)
def test_changes_that_cannot_be_are_refused(kind: type, value: float) -> None:
    with pytest.raises(UnderfireError, match=r"cannot .*; give another"):
        kind(value)
