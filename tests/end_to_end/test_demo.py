"""The demo: a packaged classifier that recognises the packaged scenes, and the one command that shows everything."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from underfire import Classifier, open_run
from underfire.attacks import recipes
from underfire.cli.main import main
from underfire.data.demo import EPS, demo_images
from underfire.interpreters import MASK, registry
from underfire.interpreters.mask.solver import Solver
from underfire.models.demo import demo_classifier
from underfire.training import demo as demo_training


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> partial[str]:
    """Run `underfire demo` with the given options in this process; what it printed."""

    def run(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["underfire", "demo", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert (ended.value.code or 0, said.err) == (0, "")
        return said.out

    return partial(run)


def test_the_packaged_classifier_recognises_the_packaged_scenes() -> None:
    scenes, model = demo_images(), Classifier.load("demo")
    images = torch.stack([scenes.read(i) for i in range(len(scenes))])
    assert len(scenes) == 200
    assert torch.bincount(scenes.labels).tolist() == [20] * 10
    assert (model(images).argmax(1) == scenes.labels).float().mean() > 0.9


def test_scenes_are_the_same_however_many_there_are() -> None:
    assert demo_images(3).ids == demo_images().ids[:3]
    assert torch.equal(demo_images(3).read(2), demo_images().read(2))


@pytest.fixture(params=["short", pytest.param("as it is", marks=pytest.mark.extended)])
def recipe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's recipe and masks, or the same with a third of the steps, for MASK few of a tenth of the iterations."""
    whole = recipes.RECIPES["annealed"]
    if request.param == "short":
        steps = {name: sum(each.efforts["standard"]) // 3 for name, each in whole.map_attacks.items()} | {"mask": 10}
        attacks = {name: replace(each, efforts={"quick": (steps[name],)}) for name, each in whole.map_attacks.items()}
        short = replace(whole, map_attacks=attacks)
        monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
        masks = {"mask": lambda argument: MASK(Solver(steps=30))}
        monkeypatch.setattr(registry, "INTERPRETERS", {**registry.INTERPRETERS, **masks})


@pytest.mark.usefixtures("recipe")
def test_the_demo_leaves_a_run_and_its_report(demo: partial[str], tmp_path: Path) -> None:
    told = demo("--n", 2, "--out", tmp_path / "demo")
    run = open_run(tmp_path / "demo")
    rows = run.outcomes().to_pylist()
    assert {(row["attack"], row["interpreter"]) for row in rows} == {
        (attack, interpreter) for attack in ("pgd", "adv2") for interpreter in ("cam", "grad", "mask", "rts")
    }
    assert all(row["success"] for row in rows)
    assert max(row["linf"] for row in rows) <= EPS + 1e-6
    assert (run.path / "report.html").stat().st_size > 10_000
    assert run.info["classes"][rows[0]["class_true"]].isidentifier()
    assert "2 images as PNG files; means" in told
    assert "Try your own model next:\n  underfire attack --model torchvision:resnet18" in told
    assert demo("--n", 2, "--out", tmp_path / "demo").count("succeeded") == 0


def test_retraining_writes_weights_that_fit(
    demo: partial[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_training, "retrain", partial(demo_training.retrain, steps=2))
    monkeypatch.setattr(demo_training, "MEASURED", 100)
    monkeypatch.setattr(demo_training, "JUDGED", 100)
    told = demo("--retrain", "--out", tmp_path / "new" / "demo")
    weights = tmp_path / "new" / "demo.safetensors"
    assert "Held-out accuracy: 0." in told
    assert f"Weights: {weights}\n" in told
    assert {name: value.shape for name, value in load_file(weights).items()} == {
        name: value.shape for name, value in demo_classifier().state_dict().items()
    }
