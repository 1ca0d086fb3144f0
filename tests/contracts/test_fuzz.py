"""Law: whatever bytes a file holds, it is read, or refused in one sentence; nothing else is ever raised.

Files that are right are damaged at random: bytes changed, cut out, repeated, inserted, or the end missing. The fast
tests keep the first few seeds of each kind.
"""

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from underfire.core.errors import UnderfireError
from underfire.data.image_set import object_masks, open_images
from underfire.models.classifier import Classifier
from underfire.models.loading import read_weights
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner, reopen
from underfire.runs.folder import open_run
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute

FAST = 5  # seeds of each kind
T = TypeVar("T")


def seeds(count: int) -> list[object]:
    """So many seeds, all but the first few for the extended tests."""
    return [pytest.param(s, marks=[] if s < FAST else [pytest.mark.extended]) for s in range(count)]


def unless_refused(read: Callable[[], T]) -> T | None:
    """What is read; None where it was refused in a sentence."""
    try:
        return read()
    except UnderfireError as problem:
        if not str(problem):
            raise
        return None


def damaged(data: bytes, seed: int) -> bytes:
    """One to six changes; half of them near the beginning, where formats keep their numbers."""
    dice, changed = random.Random(seed), bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(changed) if dice.random() < 0.5 else min(64, len(changed)))
        length = dice.choice((1, 1, 2, 4, 30))
        match dice.randrange(6):
            case 0:
                changed[at] ^= 1 << dice.randrange(8)
            case 1:
                changed[at : at + length] = dice.randbytes(length)
            case 2:
                changed[at : at + length] = dice.choice((b"\0", b"\xff", b"\x7f")) * length
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                del changed[at : at + length]
            case 5 if dice.random() < 0.3:
                del changed[max(at, 8) :]
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


FORMATS: dict[str, Callable[[Path], None]] = {
    "jpg": lambda path: picture().save(path, exif=_exif(), comment=b"a comment"),
    "png": lambda path: picture().save(path, exif=_exif(), dpi=(72, 72)),
    "grey.png": lambda path: Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(path),
    "palette.png": lambda path: picture().quantize(16).save(path, transparency=3),
    "gif": lambda path: picture().save(path, save_all=True, append_images=[picture().rotate(180)]),
    "webp": lambda path: picture().save(path, exif=_exif()),
    "tif": lambda path: picture().save(path),
    "lzw.tif": lambda path: picture().save(path, compression="tiff_lzw"),
    "bmp": lambda path: picture().save(path),
    "ppm": lambda path: picture().save(path),
}


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    return exif


@pytest.mark.parametrize("seed", seeds(200))
@pytest.mark.parametrize("ending", FORMATS)
def test_images(tmp_path: Path, ending: str, seed: int) -> None:
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    FORMATS[ending](folder / f"a.{ending}")
    (folder / f"a.{ending}").write_bytes(damaged((folder / f"a.{ending}").read_bytes(), seed))
    images = open_images(tmp_path / "photos")
    for each in (images, object_masks(images, folder)):
        read = unless_refused(partial(each.read, 0))
        if read is not None:
            assert read.shape[0] == 3
            assert ((read >= 0) & (read <= 1)).all()


TABLES = (
    'file,class_index,class_name\na.png,0,cat\nb.png,1,"dog, small"\n',
    "lesion_id;image_id;dx\nL1;a;nv\nL2;b;mel\n",
    "image\tMEL\tNV\tsplit\na\t1.0\t0.0\ttrain\nb\t0.0\t1.0\ttest\n",
)


@pytest.mark.parametrize("seed", seeds(200))
@pytest.mark.parametrize("text", TABLES, ids=["own", "ham", "isic"])
def test_label_tables(tmp_path: Path, text: str, seed: int) -> None:
    for name in "ab":
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_bytes(damaged(text.encode(), seed))
    images = unless_refused(partial(open_images, tmp_path, split=None if seed % 2 else "train"))
    if images is not None:
        assert 1 <= len(images) == len(images.labels) <= 2
        assert max(images.labels.tolist()) < len(images.classes)


@pytest.mark.parametrize("seed", seeds(200))
def test_arrays(tmp_path: Path, seed: int) -> None:
    save = np.savez_compressed if seed % 2 else np.savez
    save(tmp_path / "a.npz", images=np.zeros((3, 4, 5, 3), np.uint8), labels=np.arange(3))
    (tmp_path / "a.npz").write_bytes(damaged((tmp_path / "a.npz").read_bytes(), seed))
    images = unless_refused(partial(open_images, tmp_path / "a.npz"))
    assert images is None or len(images) == len(images.labels)


@pytest.mark.parametrize("seed", seeds(100))
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weight_files(tmp_path: Path, ending: str, seed: int) -> None:
    path, state = tmp_path / f"a.{ending}", {"weight": torch.ones(3, 4), "bias": torch.zeros(3)}
    save_file(state, path, {"underfire": "{}"}) if ending == "safetensors" else torch.save(state, path)
    path.write_bytes(damaged(path.read_bytes(), seed))
    found = unless_refused(partial(read_weights, path))
    assert found is None or all(isinstance(value, torch.Tensor) for value in found.tensors.values())


@pytest.fixture(scope="module")
def run_folder(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run that is finished."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    settings = AttackSettings(model=tiny_model, images=str(tiny_photos), n=2, steps=2, normalize="none")
    subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
    execute(settings, subject, out, Manner("underfire"))
    return out


@pytest.mark.parametrize("seed", seeds(100))
def test_run_folders(tmp_path: Path, run_folder: Path, seed: int) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_folder, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    file = random.Random(seed).choice([copy / "run.json", copy / "outcomes.parquet", *files])
    file.write_bytes(damaged(file.read_bytes(), seed))
    run = open_run(copy)
    for read in (lambda: run.info, run.outcomes, run.images, partial(run.maps, "pgd", "cam"), partial(reopen, run)):
        unless_refused(read)
