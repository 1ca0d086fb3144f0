"""The examples run as they stand and say what the text around them claims."""

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2

from underfire import Classifier, open_run
from underfire.attacks import recipes
from underfire.data.demo import EPS, demo_images
from underfire.interpreters import Rollout
from underfire.models.new_head import load_with_new_head
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute

EXAMPLES = Path(__file__).parents[2] / "examples"

Run = Callable[..., list[str]]


def halved(recipe: recipes.Recipe) -> recipes.Recipe:
    efforts = {name: {"standard": (sum(each.efforts["standard"]) // 2,)} for name, each in recipe.map_attacks.items()}
    attacks = {name: replace(each, efforts=efforts[name]) for name, each in recipe.map_attacks.items()}
    return replace(recipe, warm_steps=30, plain_steps=50, map_attacks=attacks)


@pytest.fixture(params=["short", pytest.param("as it is", marks=pytest.mark.extended)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The lines that an example prints, by attacks of half the steps or of all."""
    if request.param == "short":
        monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": halved(recipes.RECIPES["annealed"])})

    def script(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return script


def test_a_model_of_ones_own(run: Run) -> None:
    lines = run("own_model.py")
    shape = re.compile(r"fooled +\S+ as \S+ +p = ([01]\.\d+)  map distance = (0\.\d+)")
    found = [shape.fullmatch(line) for line in lines]
    assert len(found) == 4
    numbers = [(float(each[1]), float(each[2])) for each in found if each]
    assert len(numbers) == 4, lines
    assert min(p for p, _ in numbers) > 0.9
    assert sum(distance for _, distance in numbers) / 4 < 0.15


def test_an_interpreter_of_ones_own(run: Run) -> None:
    plain, dual = (
        re.fullmatch(r"\S+ +fooled (\d) of 4  map distance (0\.\d+)", line) for line in run("own_interpreter.py")
    )
    assert plain
    assert dual
    assert plain[1] == dual[1] == "4"
    assert float(dual[2]) < float(plain[2]) / 2


def test_an_interpreter_of_ones_own_keeps_the_laws() -> None:
    """What docs/own-interpreter.md asks before a number is believed, of the one that CONTRIBUTING.md adds."""
    mine = runpy.run_path(str(EXAMPLES / "own_interpreter.py"))["InputTimesGradient"]()
    model, scenes = Classifier.load("demo"), demo_images(3)
    x, y = torch.stack([scenes.read(i) for i in range(3)]).requires_grad_(), scenes.labels
    maps, read = mine.explain(model, x, y), mine.read(model, mine.begin(model, x, y, y), x, y)
    assert not maps.requires_grad
    assert read.maps.requires_grad
    torch.testing.assert_close(read.maps[:, 0].detach(), maps)
    torch.testing.assert_close(mine.explain(model, x[1:2], y[1:2]), maps[1:2])


@pytest.mark.extended
def test_interpreters_compared(run: Run) -> None:
    header, *lines = run("compare_interpreters.py")
    assert header.split()[0] == "interpreter"
    assert [line.split()[0] for line in lines] == ["cam", "grad-cam", "grad"]
    for line in lines:
        pgd, adv2 = map(float, line.split()[1:3])
        assert adv2 < pgd, line
        assert line.endswith("of 4")


def test_a_map_led_elsewhere(run: Run) -> None:
    _, *lines = run("lead_the_map.py")
    assert [line.split()[0] for line in lines] == ["cam", "rts"]
    for line in lines:
        wanted, benign = map(float, line.split()[1:3])
        assert wanted < benign, line
        assert line.endswith("4 of 4")


def test_a_detector_evaded(run: Run) -> None:
    about, _, basic, evading = run("evade_a_detector.py")
    assert float(about.split()[1]) > 0
    numbers = [re.fullmatch(r"ADV2.*? (\d) of 4 +(\d\.\d+) +(\d) of 4", line) for line in (basic, evading)]
    (fooled, score, flagged), (still, lower, fewer) = (map(float, each.groups()) for each in numbers if each)
    assert fooled == still == 4
    assert lower < score / 2
    assert fewer <= flagged


def test_a_run_read(run: Run, tmp_path: Path) -> None:
    settings = AttackSettings(model="demo", images="demo", n=2, eps=EPS, steps=20)
    execute(settings, Subject(Classifier.load("demo"), demo_images()), tmp_path / "demo", Manner("test"))
    about, *means, closest = run("read_run.py", tmp_path / "demo")
    assert about.startswith("demo, seed 0, underfire ")
    assert [line.split()[:2] for line in means] == [
        [interpreter, attack] for interpreter in ("cam", "grad") for attack in ("pgd", "adv2")
    ]
    rows = open_run(tmp_path / "demo").outcomes().to_pylist()
    for line in means:
        chosen = [row for row in rows if [row["interpreter"], row["attack"]] == line.split()[:2]]
        assert f"fooled {sum(row['success'] for row in chosen)} of 2" in line
        assert line.endswith(f"map distance {sum(row['map_l1'] for row in chosen) / 2:.3f}")
    best = min((row for row in rows if row["attack"] == "adv2"), key=lambda row: row["map_l1"])
    assert closest == f"closest map: {best['id']} on {best['interpreter']}, largest change {255 * best['linf']:.1f}/255"


def test_a_transformer_to_train(run: Run) -> None:
    assert run("compact_transformer.py") == []
    start = load_with_new_head(f"{EXAMPLES / 'compact_transformer.py'}:build", None, "none", ("cat", "dog"), seed=0)
    x, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    model = Classifier(start.net)
    assert model(x).shape == (2, 2)
    assert Rollout().explain(model, x, y, y).shape == (2, 8, 8)


def test_an_attack_of_torchattacks_judged(run: Run, tmp_path: Path) -> None:
    cam, grad, report = run("evaluate_torchattacks.py", tmp_path / "run")
    for line, name in ((cam, "CAM"), (grad, "GRAD")):
        assert line.startswith(name)
        assert "PGD-20 fooled the classifier on 7 of 7 images" in line
    assert Path(report).is_file()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SciPy, whose old names foolbox takes
def test_an_attack_of_foolbox_judged(run: Run, tmp_path: Path) -> None:
    lines = run("evaluate_foolbox.py", tmp_path / "run")
    rows = open_run(tmp_path / "run").outcomes().to_pylist()
    assert [line.split()[0] for line in lines] == [row["id"] for row in rows]
    assert all(row["class_target"] == (row["class_true"] + 1) % 10 for row in rows)
    assert sum(row["success"] for row in rows) >= 5


def test_an_image_explained(run: Run, tmp_path: Path) -> None:
    v2.functional.to_pil_image(demo_images(1).read(0)).save(tmp_path / "photo.png")
    cam, grad = run("explain_one_image.py", tmp_path / "photo.png", tmp_path / "maps.png")
    assert cam.startswith("cam   8 × 8 cells, ")
    assert grad.startswith("grad  16 × 16 cells, ")
    assert (tmp_path / "maps.png").stat().st_size > 3000


def test_every_example_is_tested() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'run("{path.name}"' not in here] == []
