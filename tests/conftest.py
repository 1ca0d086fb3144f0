"""What every test shares: one torch thread, checked array shapes, a tiny classifier, and the folder of real photos.

Shapes and types are checked at every call of a function of underfire, unless JAXTYPING_DISABLE=1: that costs seconds
at import and doubles the time of the laws.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config as shape_checks
from jaxtyping import install_import_hook
from PIL import Image

torch.set_num_threads(1)
if not shape_checks.jaxtyping_disable:
    install_import_hook("underfire", "beartype.beartype")


@pytest.fixture(scope="session")
def testbed() -> Path:
    """The folder of real photos and pretrained networks; tests that need it are skipped without it."""
    beside = Path(__file__).parents[2] / "shared" / "testbed"
    folder = Path(os.environ.get("UNDERFIRE_TESTBED", beside))
    if not folder.is_dir():
        pytest.skip("set UNDERFIRE_TESTBED to the test bed's folder to run the tests on real photos")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> str:
    """The network of tiny.py, by the name that the command line understands."""
    return f"{Path(__file__).parent / 'tiny.py'}:build"


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures that this network recognises, one subfolder per class."""
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0)
    for name, channel in {"blue": 2, "green": 1, "red": 0}.items():
        (folder / name).mkdir()
        for number in range(4):
            pixels = noise.integers(80, 160, (16, 16, 3), dtype=np.uint8)
            pixels[..., channel] += 10
            Image.fromarray(pixels).save(folder / name / f"{name}-{number}.png")
    return folder
