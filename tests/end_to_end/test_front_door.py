"""What the README and the tutorials tell people to type works as it stands, on a small network and few steps."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tiny import build
from underfire import Classifier
from underfire.attacks import recipes

ROOT = Path(__file__).parents[2]
Underfire = Callable[..., tuple[int, str, str]]

DOWNLOADED = "torchvision:resnet50 --weights DEFAULT"
OWN = "my_model.py:build"
# what test_package, test_demo and test_examples do
ELSEWHERE = ("pip install .", "underfire demo", "python examples/own_interpreter.py")


def blocks(page: Path, language: str = "") -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def lines(page: Path) -> Iterator[str]:
    for block in blocks(page):
        yield from block.replace("\\\n", "").splitlines()


def small(line: str) -> str:
    """The same command on a model that needs neither a download nor normalised images, and on two images at most."""
    line = re.sub(r" --n \d+", "", line.replace(DOWNLOADED, OWN)).replace(OWN, f"{OWN} --normalize none")
    return f"{line} --n 2" if re.match(r"underfire (audit|attack) --model", line) else line


@pytest.fixture
def there(tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with photos and a model, as the README supposes."""
    for again in range(5):  # studies that calibrate detectors take more than twelve
        for photo in tiny_photos.rglob("*.png"):
            place = tmp_path / "photos" / photo.parent.name / f"{again}-{photo.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, place)
    shutil.copy(Path(__file__).parents[1] / "tiny.py", tmp_path / "my_model.py")
    annealed = recipes.RECIPES["annealed"]
    rows = {name: replace(row, efforts=dict.fromkeys(row.efforts, (3,))) for name, row in annealed.map_attacks.items()}
    short = replace(annealed, warm_steps=2, plain_steps=3, map_attacks=rows)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/first-audit.md", "docs/my-explainer.md"])
def test_commands_work_as_they_stand(page: str, underfire: Underfire, there: Path) -> None:
    for block in blocks(ROOT / page, "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (there / name[1]).write_text(block)
    typed = 0
    for line in lines(ROOT / page):
        if line in ELSEWHERE:
            continue
        program, *arguments = shlex.split(small(line))
        assert program == "underfire", line
        code, _, said = underfire(*arguments)
        assert said == "", line
        assert code in ((0, 3) if "--fail-under" in line else (0,)), line
        typed += 1
    assert typed >= 2


@pytest.mark.parametrize("page", ["README.md", "docs/my-explainer.md"])
def test_python_works_as_it_stands(page: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, calling = blocks(ROOT / page, "python")
    (there / "mine.py").write_text(mine)
    monkeypatch.syspath_prepend(there)
    monkeypatch.setattr(Classifier, "load", lambda *_, **__: Classifier(build(), (0, 0, 0), (1, 1, 1)))
    said: dict[str, Any] = {"images": torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    exec(compile(calling, page, "exec"), said)
    sys.modules.pop("mine", None)
    assert said["result"].maps.shape[0] == 2


def test_the_readme_fits_on_two_screens_and_shows_its_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90
    shown = re.findall(r'(?:srcset|src)="([^"]+)"', text)
    assert [Path(name).name for name in shown] == ["front-dark.png", "front-light.png"]
    assert [name for name in shown if not (ROOT / name).is_file()] == []


@pytest.mark.extended
def test_the_picture_of_the_readme_is_made_from_a_run_of_the_demo(underfire: Underfire, tmp_path: Path) -> None:
    demo = ("--model", "demo", "--images", "demo", "--interpreter", "cam,grad", "--eps", "16/255", "--n", 2)
    code, _, said = underfire("attack", *demo, "--steps", 30, "--out", tmp_path / "run")
    assert (code, said) == (0, "")
    drawing = [sys.executable, ROOT / "docs" / "front.py", tmp_path / "run", tmp_path]
    assert subprocess.run(drawing, capture_output=True, check=True).stderr == b""
    with Image.open(tmp_path / "front-dark.png") as made, Image.open(ROOT / "docs/images/front-dark.png") as shown:
        assert made.size == shown.size
