"""Where images may be changed: boxes, a picture for all, one for each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data.regions import Box, region_named


def picture(path: Path, rows: slice, side: int = 16) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros((side, side), np.uint8)
    pixels[rows] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_a_box_is_left_top_width_height() -> None:
    region = region_named("2, 5,3,4")
    assert region == Box(2, 5, 3, 4)
    inside = region.inside(["a", "b"], 16, 12)
    assert inside.shape == (2, 16, 12)
    assert torch.equal(inside[0].nonzero().amin(0), torch.tensor([5, 2]))
    assert torch.equal(inside[1].nonzero().amax(0), torch.tensor([8, 4]))
    assert int(inside.sum()) == 2 * 12


def test_a_picture_serves_all_images(tmp_path: Path) -> None:
    region = region_named(str(picture(tmp_path / "sticker.png", slice(0, 4))))
    inside = region.inside(["a", "b"], 16, 16)
    assert inside[:, :4].all()
    assert not inside[:, 4:].any()


def test_a_folder_has_a_picture_for_each_image_cut_as_it_is(tmp_path: Path) -> None:
    for name, rows in {"a": slice(0, 8), "b": slice(8, 16)}.items():
        picture(tmp_path / "masks" / f"{name}.png", rows)
    inside = region_named(str(tmp_path / "masks"), crop=8).inside(["cat/b.jpg", "a.jpg"], 8, 8)
    assert inside[0].any(1).tolist() == [False] * 4 + [True] * 4
    assert inside[1].any(1).tolist() == [True] * 4 + [False] * 4


def test_what_is_drawn_is_what_a_region_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "sticker.png", slice(0, 4))
    region = region_named(str(path))
    moved = picture(tmp_path / "elsewhere" / "sticker.png", slice(0, 4))
    assert region_named(str(moved)) == region
    picture(path, slice(0, 5))
    assert region_named(str(path)) != region


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10,0,4,4", "does not lie within images of 12×12 pixels"),
        ("0,0,0,4", "does not lie within"),
        ("nowhere.png", "There is no region 'nowhere.png'; give left,top,width,height"),
        ("1,2,3", "There is no region '1,2,3'"),
    ],
)
def test_no_region_is_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(UnderfireError, match=reason):
        region_named(text).inside(["a"], 12, 12)


def test_pictures_that_do_not_fit_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match=r"small.png has 8×8 pixels where its image has 16×16"):
        region_named(str(picture(tmp_path / "small.png", slice(0, 2), side=8))).inside(["a"], 16, 16)
    with pytest.raises(UnderfireError, match=r"black.png is empty; draw white what may be changed"):
        region_named(str(picture(tmp_path / "black.png", slice(0, 0)))).inside(["a"], 16, 16)
    picture(tmp_path / "masks" / "a.png", slice(0, 4))
    with pytest.raises(UnderfireError, match=r"lacks 1 of 2 masks, the first is b.png"):
        region_named(str(tmp_path / "masks")).inside(["a", "b"], 16, 16)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UnderfireError, match=r"The region damaged.png cannot be read"):
        region_named(str(damaged)).inside(["a"], 16, 16)
