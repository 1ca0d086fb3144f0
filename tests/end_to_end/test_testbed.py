"""Real photos and pretrained networks: the attack works on them, and the command line takes them as they come."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import underfire as uf
from underfire.attacks import recipes
from underfire.cli.main import main
from underfire.data.image_set import open_images
from underfire.data.selection import select


def test_cam_of_resnet20_is_deceived_on_cifar(testbed: Path) -> None:
    mean, std = "0.4914,0.4822,0.4465", "0.2470,0.2435,0.2616"
    model = uf.Classifier.load(f"{testbed / 'models.py'}:resnet20_cifar", normalize=f"{mean}/{std}")
    photos = open_images(testbed / "cifar10" / "cifar10-test.npz")
    images = select(model, photos, n=2, seed=0).chosen.samples().images
    plain = uf.pgd(model, uf.CAM())(images)
    dual = uf.adv2(model, uf.CAM())(images, target=plain.target)
    assert bool(plain.success.all())
    assert bool(dual.success.all())
    assert dual.map_l1.mean() < 0.5 * plain.map_l1.mean()
    assert torch.equal(dual.target_map, plain.target_map)
    assert model.features_layer is not None


@pytest.fixture
def run(testbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> uf.Run:
    """A photo of ImageNet against SqueezeNet, with fewer steps than the recipe's."""
    command = [
        *("attack", "--model", f"{testbed / 'models.py'}:squeezenet1_1_imagenet", "--images", testbed / "imagenet"),
        *("--crop", 224, "--n", 1, "--steps", 20, "--batch", 1, "--out", tmp_path / "run"),
    ]
    short = replace(recipes.RECIPES["annealed"], warm_steps=10, plain_steps=20)
    monkeypatch.setattr(recipes, "RECIPES", {"annealed": short})
    monkeypatch.setattr(sys, "argv", ["underfire", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    return uf.open_run(tmp_path / "run")


def test_photos_of_imagenet_from_the_command_line(run: uf.Run) -> None:
    rows = run.outcomes().to_pylist()
    assert len(rows) == 2 * 2
    assert all(row["success"] for row in rows)
    assert len(run.info["classes"]) == 1000
    assert run.info["model"]["features"].startswith("classifier")
    ids, benign = run.images("benign")
    assert benign.shape == (1, 3, 224, 224)
    assert run.maps("adv2", "cam")[1].shape == (1, 13, 13)
    assert run.maps("adv2", "grad")[1].shape == (1, 56, 56)
    for attack, interpreter in (("pgd", None), ("adv2", "cam"), ("adv2", "grad")):
        shown, images = run.images(attack, interpreter)
        assert shown == ids
        assert 0 < abs(images - benign).max() <= 8 / 255 + 1e-6
    by = {(row["id"], row["attack"], row["interpreter"]): row["map_l1"] for row in rows}
    assert all(by[id, "adv2", "cam"] < by[id, "pgd", "cam"] for id in ids)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert all(run.info["classes"][row["class_true"]] in page for row in rows)
