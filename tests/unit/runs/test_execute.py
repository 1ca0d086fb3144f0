"""What studies share: a run folder opened again finds its classifier and its images, or says what has changed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from underfire.core.errors import UnderfireError
from underfire.core.io import write_json
from underfire.data.demo import demo_images
from underfire.data.image_set import open_images
from underfire.models.classifier import Classifier
from underfire.runs.execute import reopen
from underfire.runs.folder import Run


@pytest.fixture
def photos(tiny_photos: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_photos, tmp_path / "photos")


@pytest.fixture
def model(tiny_model: str, tmp_path: Path) -> str:
    return f"{shutil.copy(tiny_model.removesuffix(':build'), tmp_path)}:build"


@pytest.fixture
def run(model: str, photos: Path, tmp_path: Path) -> Run:
    """A run folder as far as `reopen` reads it."""
    digests = {
        "model_fingerprint": Classifier.load(model, None, "none").fingerprint(),
        "images_digest": open_images(photos, crop=12).digest,
    }
    spec = {"model": model, "normalize": "none", "images": str(photos), "crop": 12, "steps": 3, **digests}
    return run_with(spec, tmp_path)


def run_with(spec: Any, folder: Path) -> Run:
    write_json(folder / "run" / "run.json", {"spec": spec})
    return Run(folder / "run")


def changed(run: Run, **changes: Any) -> Run:
    return run_with({**run.info["spec"], **changes}, run.path.parent)


def test_a_run_is_opened_again_with_its_classifier_and_images(run: Run, model: str, photos: Path) -> None:
    classifier, image_set = reopen(run)
    expected = open_images(photos, crop=12)
    x = torch.stack([image_set.read(i) for i in range(3)])
    assert x.shape == (3, 3, 12, 12)
    assert image_set.ids == expected.ids
    assert torch.equal(classifier(x), Classifier.load(model, None, "none")(x))


def test_all_images_come_back_where_some_had_no_target(run: Run, photos: Path) -> None:
    others = open_images(photos, crop=12).take(range(4, 12))
    _, image_set = reopen(changed(run, target_class="0", images_digest=others.digest))
    assert len(image_set) == 12


def test_the_demo_is_opened_again(tmp_path: Path) -> None:
    scenes = demo_images()
    digests = {"model_fingerprint": Classifier.load("demo").fingerprint(), "images_digest": scenes.digest}
    _, image_set = reopen(run_with({"model": "demo", "images": "demo", **digests}, tmp_path))
    assert image_set.ids == scenes.ids


@pytest.mark.parametrize("spec", [None, [], {}, {"images": "demo"}, {"model": 5, "images": "demo"}, {"model": ["a"]}])
def test_a_run_that_does_not_say_its_model_is_refused(spec: Any, tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match=r"run\.json in .* does not say which model it was made with"):
        reopen(run_with(spec, tmp_path))


@pytest.mark.parametrize("crop", ["wide", 1.5, [3]])
def test_a_run_whose_sizes_are_none_is_refused(run: Run, crop: Any) -> None:
    with pytest.raises(UnderfireError, match="does not say which crop"):
        reopen(changed(run, crop=crop))


def test_images_that_moved_are_named(run: Run, photos: Path) -> None:
    photos.rename(photos.parent / "elsewhere")
    with pytest.raises(UnderfireError, match=r"What .*run was made with cannot be opened again: there is no .*photos"):
        reopen(run)


def test_a_model_that_moved_is_named(run: Run, model: str) -> None:
    Path(model.removesuffix(":build")).unlink()
    with pytest.raises(UnderfireError, match=r"cannot be opened again: There is no file .*tiny\.py"):
        reopen(run)


def test_other_images_are_refused(run: Run, photos: Path) -> None:
    (photos / "red" / "red-0.png").unlink()
    with pytest.raises(UnderfireError, match=r"The images at .*photos are not those that .*run was made with"):
        reopen(run)


def test_a_run_on_a_part_finds_that_part_again_or_says_that_it_is_another(run: Run, photos: Path) -> None:
    part = open_images(photos, crop=12, split="train")
    on_train = changed(run, split="train", images_digest=part.digest)
    assert reopen(on_train)[1].ids == part.ids
    with pytest.raises(UnderfireError, match=r"are not those that .*run was made with"):
        reopen(changed(on_train, split="test"))
    with pytest.raises(UnderfireError, match="cannot be opened again: there is no split 'val'"):
        reopen(changed(on_train, split="val"))


def test_a_table_whose_split_has_changed_since_is_refused(run: Run, photos: Path) -> None:
    names, table = (
        [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))],
        photos / "labels.csv",
    )

    def write(tested: int) -> None:
        rows = [f"{name},0,{'test' if i < tested else 'train'}" for i, name in enumerate(names)]
        table.write_text("\n".join(("file,class_index,split", *rows)))

    write(tested=4)
    on_test = changed(run, split="test", images_digest=open_images(photos, crop=12, split="test").digest)
    assert len(reopen(on_test)[1]) == 4
    write(tested=5)
    with pytest.raises(UnderfireError, match=r"are not those that .*run was made with"):
        reopen(on_test)


def test_the_demo_has_no_parts(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="The demo's scenes are not split; leave out --split test"):
        reopen(run_with({"model": "demo", "images": "demo", "split": "test"}, tmp_path))


@pytest.mark.parametrize("change", [{"normalize": "imagenet"}, {"model_fingerprint": None}])
def test_another_model_is_refused(run: Run, change: dict[str, Any]) -> None:
    with pytest.raises(UnderfireError, match=r"The model .*tiny\.py:build is not the one that .*run was made with"):
        reopen(changed(run, **change))


def test_a_damaged_run_is_refused(run: Run) -> None:
    (run.path / "run.json").write_text(json.dumps(run.info)[:-9])
    with pytest.raises(UnderfireError, match="cannot be read"):
        reopen(run)
