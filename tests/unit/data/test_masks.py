"""Masks are found as data sets name them, and show their object whatever stands for it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data.image_set import object_masks, open_images
from underfire.data.masks import decode_mask, masks_of
from underfire.data.selection import locate

OBJECT = np.zeros((6, 8), dtype=bool)
OBJECT[1:4, 2:7] = True


def save(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((6, 8, 3), np.uint8) if values is None else values).save(path)


def palette(colours: list[int], values: np.ndarray) -> Image.Image:
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def test_ham10000_as_it_is_distributed(tmp_path: Path) -> None:
    """Photos in two folders, a table without extensions, masks flat and called after the photos, 0 and 1."""
    photos, masks = tmp_path / "ham", tmp_path / "masks"
    for name in ("HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg"):
        save(photos / name)
        save(masks / f"{Path(name).stem}_segmentation.png", OBJECT.astype(np.uint8))
    save(masks / "._ISIC_1_segmentation.png")
    (photos / "HAM10000_metadata").write_text('"lesion_id"\t"image_id"\t"dx"\nL1\tISIC_1\tnv\nL2\tISIC_2\tmel\n')
    images = open_images(photos, photos / "HAM10000_metadata")
    assert images.ids == ("HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg")
    located = locate(images, object_masks(images, masks), n=2, seed=0)
    assert (located.objects.numpy() == OBJECT).all()
    assert located.skipped == ()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "a.PNG"),
        ("a.jpg", "A_Segmentation.png"),
        ("a.jpg", "a_mask.gif"),
        ("a.jpg", "a-mask.bmp"),
        ("a b.jpg", "a b mask.tif"),
        ("x/a.jpg", "x/a.png"),
        ("x/a.jpg", "a_seg.png"),
        ("a.jpg", "y/a_mask.png"),
        ("a.b.jpg", "a.b_mask.png"),
        ("7", "7.png"),
    ],
)
def test_masks_are_found_by_name(tmp_path: Path, image: str, mask: str) -> None:
    (tmp_path / mask).parent.mkdir(exist_ok=True)
    (tmp_path / mask).touch()
    (tmp_path / "another.png").touch()
    assert masks_of((image,), tmp_path) == (mask,)


def test_masks_beside_their_photos(tmp_path: Path) -> None:
    for name in ("a.png", "a_mask.png", "b.png"):
        save(tmp_path / name)
    assert masks_of(("a.png",), tmp_path, tmp_path) == ("a_mask.png",)
    with pytest.raises(UnderfireError, match=r"lacks 1 of 2 masks, the first is b\.png \(or b_segmentation\.png\)"):
        masks_of(("a.png", "b.png"), tmp_path, tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("1/a_mask.png", "2/a_mask.png"):
        save(tmp_path / name)
    with pytest.raises(UnderfireError, match=r"two masks of a\.jpg, 1/a_mask\.png and 2/a_mask\.png: keep one"):
        masks_of(("a.jpg",), tmp_path)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 255), (0, 128), (1, 2), (0, 3), (0, 65535), (0, 257), (254, 255)]
)
def test_two_values(tmp_path: Path, low: int, high: int) -> None:
    values = np.where(OBJECT, high, low).astype(np.uint16 if high > 255 else np.uint8)
    save(tmp_path / "a.png", values)
    assert (decode_mask(tmp_path / "a.png").numpy() == OBJECT).all()


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
def test_one_bit(tmp_path: Path, ending: str) -> None:
    save(tmp_path / f"a.{ending}", OBJECT)
    assert (decode_mask(tmp_path / f"a.{ending}").numpy() == OBJECT).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_deep_tiff(tmp_path: Path, dtype: type) -> None:
    save(tmp_path / "a.tif", OBJECT.astype(dtype))
    assert (decode_mask(tmp_path / "a.tif").numpy() == OBJECT).all()


@pytest.mark.parametrize(
    ("colours", "values"),
    [
        ([0, 0, 0, 128, 0, 0], OBJECT),
        ([255, 255, 255, 0, 0, 0], ~OBJECT),
        ([0, 0, 0, 1, 1, 1], OBJECT),
        ([0, 0, 0, 128, 0, 0, 0, 128, 0], np.where(OBJECT, 1 + (np.arange(8) % 2), 0)),
        ([9, 0, 0, 128, 0, 0, 0, 128, 0], np.where(OBJECT, 1 + (np.arange(8) % 2), 0)),
    ],
)
def test_palettes(tmp_path: Path, colours: list[int], values: np.ndarray) -> None:
    palette(colours, values).save(tmp_path / "a.png")
    assert (decode_mask(tmp_path / "a.png").numpy() == OBJECT).all()


def test_a_colour_on_black_or_on_nothing(tmp_path: Path) -> None:
    red = np.where(OBJECT[..., None], np.array([200, 0, 0]), 0).astype(np.uint8)
    save(tmp_path / "red.png", red)
    white = np.full((6, 8, 4), 255, np.uint8)
    white[..., 3] = 255 * OBJECT
    save(tmp_path / "clear.png", white)
    for name in ("red.png", "clear.png"):
        assert (decode_mask(tmp_path / name).numpy() == OBJECT).all()


def test_grey_is_read_by_its_lightness(tmp_path: Path) -> None:
    values = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)
    save(tmp_path / "a.png", values)
    assert ((decode_mask(tmp_path / "a.png") > 0.5).numpy() == (values > 127)).all()


@pytest.mark.parametrize(("value", "shown"), [(0, 0), (1, 1), (255, 1)])
def test_masks_of_one_value(tmp_path: Path, value: int, shown: int) -> None:
    save(tmp_path / "a.png", np.full((6, 8), value, np.uint8))
    assert (decode_mask(tmp_path / "a.png") == shown).all()
