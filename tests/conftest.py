"""What every test shares: one torch thread, checked array shapes, a tiny classifier, and the folder of real photos.

Shapes and types are checked at every call of a function in the rooms that compute, unless JAXTYPING_DISABLE=1: that
costs seconds at import and doubles the time of the laws. What the other rooms pass on is checked where it arrives.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import config as shape_checks
from jaxtyping import install_import_hook
from PIL import Image

COMPUTE = ("core", "models", "data", "metrics", "interpreters", "detection", "attacks", "training")

torch.set_num_threads(1)
if not shape_checks.jaxtyping_disable:
    install_import_hook([f"underfire.{room}" for room in COMPUTE], "beartype.beartype")


@pytest.fixture(scope="session", autouse=True)
def _a_disk_that_nobody_waits_for() -> Iterator[None]:
    """No test cuts the power; `tests/unit/runs/test_store.py` sees what is flushed and when."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their plots, which take half the time; `tests/unit/report/test_page.py` draws them."""
    from underfire.report.figures import Plot
    from underfire.report.sections import distances

    monkeypatch.setattr(distances, "strips", lambda *points: Plot("data:,", 1, 1))


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
