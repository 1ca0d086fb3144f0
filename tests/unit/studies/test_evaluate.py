"""Given images are measured like those of our own attacks, and nothing else is claimed of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny_crew import Staff
from underfire.core.errors import UnderfireError
from underfire.models.classifier import Classifier
from underfire.report.verdict import judge
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.outcomes import ON_FILE, quoted
from underfire.runs.study_settings import EvaluateSettings
from underfire.studies.evaluate import execute, opened

SAME = ("class_true", "class_target", "class_predicted", "confidence", "success", "map_l1", "map_l2", "iou_mean")
SAME += ("judgement", "benign_l1", "natural_l1", "unrelated_l1", "mean_map_l1", "linf", "l2")
SAME += tuple(f"{name}_{form}" for name in ON_FILE for form in ("png", "jpeg95", "jpeg75"))


def evaluated(classifier: Classifier, out: Path, crew: Staff | None = None, **given: Any) -> Run:
    wanted = EvaluateSettings(**{"model": "tiny", "normalize": "none", **given})
    settings, pairs = opened(wanted, classifier)
    return execute(settings, classifier, pairs, out, Manner("test", batch_size=2, crew=crew))


@pytest.fixture
def photos(tiny_photos: Path, tmp_path: Path) -> Path:
    """Pictures of three classes, and beside them others brighter by a level, blue ones turned red."""
    shutil.copytree(tiny_photos, tmp_path / "benign")
    for file in sorted((tmp_path / "benign").rglob("*.png")):
        with Image.open(file) as picture:
            pixels = np.asarray(picture) + 1
        theirs = tmp_path / "theirs" / file.relative_to(tmp_path / "benign")
        theirs.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., ::-1] if "blue" in file.name else pixels).save(theirs)
    return tmp_path


def test_images_of_our_own_attack_have_the_numbers_of_its_run(
    attack: Callable[..., Run], classifier: Classifier, tmp_path: Path
) -> None:
    ours = attack(tmp_path / "ours")
    for made, interpreter in (("pgd", "grad"), ("adv2", "cam")):
        named = f"{ours.path}:{made}" if made == "pgd" else f"{ours.path}:{made}:{interpreter}"
        given = {"images": str(ours.path), "attacked": named, "target_class": "random", "interpreters": "cam,grad"}
        rows = evaluated(classifier, tmp_path / made, **given).outcomes().to_pylist()
        key = interpreter, made
        expected = {r["id"]: r for r in ours.outcomes().to_pylist() if (r["interpreter"], r["attack"]) == key}
        found = {r["id"]: r for r in rows if r["interpreter"] == interpreter}
        assert set(found) == set(expected)
        # partners are drawn from the same names, and batches are alike: not a bit differs
        assert [{n: found[i][n] for n in SAME} for i in found] == [{n: expected[i][n] for n in SAME} for i in found]
        assert {(r["attack"], r["solver"], r["map_aware"], r["steps"]) for r in rows} == {
            ("attacked", None, None, None)
        }


def test_without_targets_any_other_class_is_a_success(photos: Path, classifier: Classifier, tmp_path: Path) -> None:
    given = {
        "images": str(photos / "benign"),
        "attacked": str(photos / "theirs"),
        "name": "swap",
        "interpreters": "cam",
    }
    run = evaluated(classifier, tmp_path / "run", **given)
    rows = run.outcomes().to_pylist()
    assert len(rows) == 12
    for row in rows:
        assert row["success"] == row["success_png"] == row["id"].startswith("blue")
        assert row["class_target"] is None
        assert row["confidence"] > 1 / 3  # of the class that is reported
        assert row["map_l1"] == row["map_l1_png"]  # files hold 8 bits already
    unmoved = [row for row in rows if not row["success"]]
    assert all(row["linf"] == pytest.approx(1 / 255, rel=1e-4) for row in unmoved)
    assert all(row["l2"] == pytest.approx((3 * 16 * 16) ** 0.5 / 255, rel=1e-5) for row in unmoved)
    (verdict,) = judge(quoted(run.outcomes()))
    assert verdict.sentences[0].startswith("swap fooled the classifier on 4 of 12 images")
    assert any("was made elsewhere" in caution for caution in verdict.cautions)
    assert run.info["selection"] == {"requested": 12, "examined": 12, "misclassified": 0, "pairs": 12}


def test_a_run_grows_and_is_refused_when_a_picture_changes(
    photos: Path, classifier: Classifier, tmp_path: Path
) -> None:
    given = {"images": str(photos / "benign"), "attacked": str(photos / "theirs")}
    small = evaluated(classifier, tmp_path / "run", **given, n=2, interpreters="cam").outcomes()
    grown = evaluated(classifier, tmp_path / "run", **given, n=4, interpreters="cam,grad-cam").outcomes()
    whole = evaluated(classifier, tmp_path / "whole", **given, n=4, interpreters="cam,grad-cam").outcomes()
    assert (small.num_rows, grown.num_rows) == (2, 8)
    assert grown.equals(whole)
    Image.new("RGB", (16, 16)).save(photos / "theirs" / "blue" / "blue-0.png")
    with pytest.raises(UnderfireError, match="attacked_digest was"):
        evaluated(classifier, tmp_path / "run", **given, n=4, interpreters="cam,grad-cam")


def test_benign_images_of_another_size_are_cut_as_asked_for(
    photos: Path, classifier: Classifier, tmp_path: Path
) -> None:
    for file in (photos / "benign").rglob("*.png"):
        with Image.open(file) as picture:
            larger = picture.resize((20, 20))
        larger.save(file)
    given = {"images": str(photos / "benign"), "attacked": str(photos / "theirs"), "interpreters": "cam", "n": 2}
    with pytest.raises(UnderfireError, match="20×20 pixels benign and 16×16 attacked"):
        evaluated(classifier, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
    assert evaluated(classifier, tmp_path / "run", **given, crop=16).outcomes().num_rows == 2


@pytest.mark.parametrize("name", ["pgd", "adv2-stadv", "benign"])
def test_names_of_ours_are_not_given_to_others(name: str) -> None:
    with pytest.raises(UnderfireError, match=f"'{name}' is what underfire calls something of its own"):
        EvaluateSettings(model="tiny", images="a", attacked="b", name=name)


def test_a_run_of_several_attacks_is_asked_which(
    attack: Callable[..., Run], classifier: Classifier, tmp_path: Path
) -> None:
    ours = attack(tmp_path / "ours").path
    with pytest.raises(UnderfireError, match=f"names 3 attacks of that run: give one of {ours}:pgd, {ours}:adv2:cam"):
        evaluated(classifier, tmp_path / "run", images=str(ours), attacked=str(ours))
    with pytest.raises(UnderfireError, match="There is no nowhere: give a folder of images"):
        evaluated(classifier, tmp_path / "run", images=str(ours), attacked="nowhere")
    with pytest.raises(UnderfireError, match="leave out --split"):
        evaluated(classifier, tmp_path / "run", images=str(ours), attacked=f"{ours}:pgd", split="test")


def test_workers_give_the_same_table(photos: Path, classifier: Classifier, tmp_path: Path) -> None:
    given = {"images": str(photos / "benign"), "attacked": str(photos / "theirs"), "interpreters": "cam", "n": 5}
    alone = evaluated(classifier, tmp_path / "alone", **given)
    staff = Staff(2, classifier)
    together = evaluated(classifier, tmp_path / "together", staff, **given)
    assert together.outcomes().equals(alone.outcomes())
    assert set(staff.begun) == {"Explain", "Saved", "Vary"}
