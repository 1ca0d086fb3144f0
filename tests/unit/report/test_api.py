"""The whole path in Python leaves what the command line leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

import underfire as uf
from underfire.attacks import recipes
from underfire.core.errors import UnderfireError
from underfire.data.image_set import ImageSet, open_images
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.studies import effectiveness
from underfire.studies.base import Subject


@pytest.fixture(autouse=True)
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    annealed = recipes.RECIPES["annealed"]
    few = {name: replace(row, efforts={**row.efforts, "quick": (4,)}) for name, row in annealed.map_attacks.items()}
    short = replace(annealed, warm_steps=4, plain_steps=5, map_attacks=few)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})


@pytest.fixture
def model(tiny_model: str) -> Classifier:
    return Classifier.load(tiny_model, None, "none")


@pytest.fixture
def photos(tiny_photos: Path) -> ImageSet:
    return open_images(tiny_photos)


def pixels(photos: ImageSet) -> torch.Tensor:
    return torch.stack([photos.read(i) for i in range(len(photos))])


def test_a_run_has_the_outcomes_of_the_command(
    model: Classifier, photos: ImageSet, tiny_photos: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"n": 3, "steps": 4, "eps": 0.03}
    run = uf.run(model, tiny_photos, ["cam", uf.GradCAM()], out=tmp_path / "here", **given)
    wanted = AttackSettings(model="tiny", images="photos", interpreters="cam,grad-cam", **given)
    expected = effectiveness.execute(wanted, Subject(model, photos), tmp_path / "there", Manner("test"))
    assert run.outcomes().equals(expected.outcomes())
    assert (tmp_path / "here" / "report.html").is_file()
    assert [each.interpreter for each in uf.verdict(run)] == ["cam", "grad-cam"]
    assert run.info["model"]["name"] == "Tiny in memory"
    grown = uf.run(model, tiny_photos, [uf.CAM(), uf.GradCAM(), uf.GRAD()], out=tmp_path / "here", **given)
    assert grown.outcomes().num_rows == 3 * 3 * 2


def test_objects_stand_for_themselves(model: Classifier, photos: ImageSet, tmp_path: Path) -> None:
    dataset, mine = TensorDataset(pixels(photos), photos.labels), uf.explainer(lambda net, x, y: x.mean(1))
    run = uf.run(model, dataset, [mine], out=tmp_path / "run", n=2, steps=2)
    assert {row["interpreter"] for row in run.outcomes().to_pylist()} == {mine.name}
    assert run.info["spec"]["images"] == "TensorDataset in memory"
    again = uf.run(model, dataset, [mine], out=tmp_path / "run", n=2, steps=2)
    assert again.outcomes().equals(run.outcomes())


def test_given_tensors_are_evaluated(model: Classifier, photos: ImageSet, tmp_path: Path) -> None:
    x = pixels(photos)
    run = uf.evaluate(model, x, x.flip(1), ["cam"], labels=photos.labels, out=tmp_path / "run", name="swap")
    rows = run.outcomes().to_pylist()
    assert len(rows) == 12
    assert {row["id"] for row in rows if row["success"]} == {str(i) for i in range(12) if photos.labels[i] != 1}
    unlabelled = uf.evaluate(model, x, x.flip(1), ["cam"], labels="predicted", out=tmp_path / "other")
    names = ("id", "class_true", "success", "map_l1")
    assert unlabelled.outcomes().select(names).equals(run.outcomes().select(names))
    assert "reports" in unlabelled.info["labels_by"]


def test_classes_that_others_were_after_are_given_as_in_adv2(
    model: Classifier, photos: ImageSet, tmp_path: Path
) -> None:
    x, target = pixels(photos), (photos.labels + 1) % 3
    given = {"interpreters": ["cam"], "labels": photos.labels}
    run = uf.evaluate(model, x, x.flip(1), target=target, out=tmp_path / "run", **given)
    rows = run.outcomes().to_pylist()
    assert [row["class_target"] for row in rows] == target[[int(row["id"]) for row in rows]].tolist()
    by_rule = uf.evaluate(model, x, x.flip(1), target_class="next", out=tmp_path / "rule", **given)
    assert by_rule.outcomes().equals(run.outcomes())
    with pytest.raises(uf.UnderfireError, match="other settings: target_class was given"):
        uf.evaluate(model, x, x.flip(1), target=(target + 1) % 3, out=tmp_path / "run", **given)
    for wrong, sentence in (
        ({"target": target[:2]}, "one integer target class per"),
        ({"target_class": "next"}, "give one"),
    ):
        with pytest.raises(uf.UnderfireError, match=sentence):
            uf.evaluate(model, x, x.flip(1), out=tmp_path / "run", **{"target": target, **wrong, **given})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"interpreters": []}, "Give one interpreter or several of different names, not none"),
        ({"interpreters": ["cam", uf.CAM()]}, "of different names, not cam, cam"),
        ({"weights": "DEFAULT"}, "weights= is that of a model that is loaded"),
        ({"n": 0}, "n=0: "),
        ({"nonsense": 1}, "nonsense=1: "),
        ({"labels": None}, "The images have no labels"),
    ],
)
def test_what_does_not_fit_is_said(
    model: Classifier, photos: ImageSet, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    given = {"interpreters": ["cam"], "labels": photos.labels, "out": tmp_path / "run", **options}
    with pytest.raises(UnderfireError, match=sentence):
        uf.run(model, pixels(photos), **given)
    assert not (tmp_path / "run").exists()


def test_a_bare_network_is_to_be_wrapped(
    model: Classifier, photos: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # which would be first to complain
    network: Any = model.network
    with pytest.raises(UnderfireError, match=r"wrap it: underfire\.Classifier"):
        uf.run(network, pixels(photos), ["cam"], labels=photos.labels, out=tmp_path / "run")


def test_an_audit_in_memory_finds_what_one_of_files_finds(
    model: Classifier, photos: ImageSet, tiny_photos: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"n": 2, "suite": "quick", "eps": 0.03}
    here = uf.audit(model, "cam", tiny_photos, out=tmp_path / "here", **given)
    there = uf.audit(model, uf.CAM(), tiny_photos, **given)
    assert (tmp_path / "here" / "report.html").is_file()
    assert here == there
    mine = uf.explainer(lambda net, x, y: x.mean(1))
    dataset = TensorDataset(pixels(photos), photos.labels)
    assert [each.interpreter for each in uf.audit(model, mine, dataset, **given).interpreters] == [mine.name]
