"""`underfire train` from end to end: what it leaves, what it says, and how it refuses; then the attack with it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from underfire import open_run
from underfire.training.dataset import demo_training_set

Underfire = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> Underfire:
    """`underfire train rts` on the tiny model and its photos, with other or further options."""

    def run(**replaced: object) -> tuple[int, str, str]:
        given = {"model": tiny_model, "images": tiny_photos, "normalize": "none", "steps": 3, "batch": 4}
        options = {**given, "out": tmp_path / "masker.safetensors", **replaced}
        return underfire("train", "rts", *(part for name in options for part in (f"--{name}", options[name])))

    return run


def test_a_masker_is_trained_told_and_attacked(
    train: Underfire, underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path
) -> None:
    code, out, err = train()
    masker = tmp_path / "masker.safetensors"
    assert (code, err) == (0, "")
    assert "3 steps; means over 1 held-out image:" in out
    assert f"Use it: --interpreter rts:{masker}" in out
    assert "steps = 3\n" in masker.with_suffix(".config.toml").read_text(encoding="utf-8")
    common = ("--model", tiny_model, "--images", tiny_photos, "--normalize", "none", "--n", 2, "--steps", 2)
    code, out, err = underfire("attack", *common, "--interpreter", f"cam,rts:{masker}", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run")
    assert {row["interpreter"] for row in run.outcomes().to_pylist()} == {"cam", "rts"}
    assert run.info["spec"]["interpreters"] == ["cam", f"rts:{masker}"]
    described = [attack["interpreter"] for attack in run.info["recipe"]]
    (digest,) = (each["digest"] for each in described if each["type"] == "RTS")
    assert len(digest) == 32
    assert run.maps("adv2", "rts")[1].shape == (2, 8, 8)


def test_the_same_command_again_trains_nothing(train: Underfire, tmp_path: Path) -> None:
    train()
    before = (tmp_path / "masker.safetensors").read_bytes()
    code, out, err = train()
    assert (code, err) == (0, "")
    assert "trained before" in out
    assert (tmp_path / "masker.safetensors").read_bytes() == before
    code, _, err = train(seed=1)
    assert code == 1
    assert "holds a masker of another training: seed was 0 and is now 1" in err


def test_an_interrupted_training_says_how_to_go_on(
    train: Underfire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("underfire.training.rts.train_masker", interrupted)
    code, _, err = train()
    assert (code, err) == (130, "underfire: interrupted; the same command again goes on from the last checkpoint.\n")


def test_the_demo_trains_on_scenes_of_its_own(
    underfire: Underfire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("underfire.training.dataset.demo_training_set", lambda: demo_training_set(20))
    out = tmp_path / "demo.safetensors"
    code, said, err = underfire("train", "rts", "--model", "demo", "--images", "demo", "--steps", 1, "--out", out)
    assert (code, err) == (0, "")
    assert "boxes that miss the object" in said
    with safe_open(out, "pt") as file:
        manifest = json.loads(file.metadata()["masker"])
    assert manifest["training"]["images"] == "20 scenes of seed 9004"


def test_masks_of_objects_add_the_localisation_error(train: Underfire, tiny_photos: Path, tmp_path: Path) -> None:
    for photo in tiny_photos.rglob("*.png"):
        mask = tmp_path / "masks" / photo.relative_to(tiny_photos)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16), 255, np.uint8)).save(mask)
    assert "boxes that miss the object" in train(masks=tmp_path / "masks")[1]
    mask.unlink()
    code, _, err = train(masks=tmp_path / "masks", out=tmp_path / "other.safetensors")
    assert (code, "lacks 1 of 12 masks, the first is" in err) == (1, True)


def test_another_network_can_be_seen_through(
    train: Underfire, underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path
) -> None:
    """Normalised as in training; it is whoever uses the masker that names it."""
    code, _, err = train(**{"encoder": "demo", "encoder-normalize": ".5,.5,.5/.2,.2,.2"})
    assert (code, err) == (0, "")
    masker = f"rts:{tmp_path}/masker.safetensors"
    common = ("--model", tiny_model, "--images", tiny_photos, "--normalize", "none", "--n", 2, "--steps", 1)
    code, _, err = underfire("attack", *common, "--interpreter", masker, "--out", tmp_path / "run")
    assert code == 1
    assert "sees through another network than its classifier; name that network" in err
    code, _, err = underfire("attack", *common, "--interpreter", f"{masker}@demo", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert open_run(tmp_path / "run").info["spec"]["interpreters"] == [f"{masker}@demo"]
    code, _, err = underfire("attack", *common, "--interpreter", f"{masker}@{tiny_model}", "--out", tmp_path / "other")
    assert code == 1
    assert "trained on the features of another network" in err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"steps": 0}, "--steps 0: Input should be greater than or equal to 1"),
        ({"batch": 0}, "--batch 0: Input should be greater than or equal to 1"),
        ({"lr": "nan"}, "--lr nan: "),
        ({"area": -1}, "--area -1.0: Input should be greater than or equal to 0"),
        ({"model": "demo", "images": "demo", "masks": "nowhere"}, "The demo's scenes bring their own masks"),
        ({"masks": "nowhere"}, "There is no folder nowhere."),
        ({"images": "nowhere"}, "there is no nowhere"),
        ({"encoder": "torchvision:nonet", "encoder-weights": "DEFAULT"}, "torchvision has no model 'nonet'"),
        ({"out": "/proc/masker.safetensors"}, "/proc cannot be written to"),
    ],
)
def test_refused_in_one_sentence(train: Underfire, options: dict[str, object], complaint: str) -> None:
    code, _, err = train(**options)
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err


def test_a_model_that_fails_on_the_images_is_refused_in_one_sentence(train: Underfire, tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
    )
    code, _, err = train(model=f"{tmp_path / 'flat.py'}:build")
    assert (code, err.count("\n")) == (1, 1)
    assert "The model failed on images of 16×16 pixels: " in err


def test_a_masker_of_another_classifier_is_refused_before_anything_is_written(
    train: Underfire, underfire: Underfire, tmp_path: Path
) -> None:
    train()
    masker = tmp_path / "masker.safetensors"
    code, _, err = underfire(
        "attack",
        "--model",
        "demo",
        "--images",
        "demo",
        "--n",
        2,
        "--interpreter",
        f"rts:{masker}",
        "--out",
        tmp_path / "run",
    )
    assert code == 1
    assert "trained for another classifier" in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def defend(train: Underfire, underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> Underfire:
    """`underfire train aid` on a masker of the tiny model, with other or further options."""

    def run(**replaced: object) -> tuple[int, str, str]:
        train()
        given = {"model": tiny_model, "images": tiny_photos, "normalize": "none", "steps": 4, "batch": 4, "pool": 4}
        given |= {"init": tmp_path / "masker.safetensors", "attack-steps": 2, "judge-every": 2}
        options = {**given, "out": tmp_path / "defended.safetensors", **replaced}
        return underfire("train", "aid", *(part for name in options for part in (f"--{name}", options[name])))

    return run


@pytest.mark.parametrize("defence", ["distillation", "augmentation"])
def test_a_masker_is_defended_told_and_attacked(
    defend: Underfire, underfire: Underfire, tiny_model: str, tiny_photos: Path, tmp_path: Path, defence: str
) -> None:
    code, out, err = defend(defence=defence, ratio="1:3")
    defended = tmp_path / "defended.safetensors"
    assert (code, err) == (0, "")
    assert "ΔL1 of attacked images' maps to benign ones" in out
    assert f"Use it: --interpreter rts:{defended}" in out
    assert len((tmp_path / "defended.csv").read_text().splitlines()) == 4
    common = ("--model", tiny_model, "--images", tiny_photos, "--normalize", "none", "--n", 2, "--steps", 2)
    code, _, err = underfire("attack", *common, "--interpreter", f"rts:{defended}", "--out", tmp_path / "run")
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"init": "nowhere"}, "There is no masker nowhere"),
        ({"ratio": "2"}, "--ratio 2 is not a ratio; write it like 1:1"),
        ({"ratio": "1:0"}, "--ratio 1:0 is not a ratio"),
        ({"defence": "hope"}, "--defence hope: Input should be 'distillation' or 'augmentation'"),
        ({"margin": 0}, "--margin 0.0: Input should be greater than 0"),
        ({"attack-steps": 0}, "--attack-steps 0: Input should be greater than or equal to 1"),
        ({"model": "demo"}, "trained for another classifier"),
    ],
)
def test_a_defence_is_refused_in_one_sentence(
    defend: Underfire, tmp_path: Path, options: dict[str, object], complaint: str
) -> None:
    code, _, err = defend(**options)
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err
    assert not list(tmp_path.glob("defended*"))


# ------------------------------------------------------------------ classifiers


@pytest.fixture
def lesions(tmp_path: Path) -> Path:
    """Photos of two kinds of lesions with a table as HAM10000 has it; two photos show one lesion."""
    lines = ["lesion_id,image_id,dx"]
    for i in range(20):
        kind, colour = ("mel", (60, 90, 200)) if i % 4 == 0 else ("nv", (200, 90, 60))
        path = tmp_path / "photos" / f"ISIC_{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (48, 36), colour).save(path)
        lines.append(f"HAM_{i // 8}_{i % 4},ISIC_{i},{kind}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "photos"


@pytest.fixture
def train_classifier(underfire: Underfire, lesions: Path, tmp_path: Path) -> Underfire:
    """`underfire train classifier` on these photos, with other or further options."""

    def run(**replaced: object) -> tuple[int, str, str]:
        given = {"model": "torchvision:squeezenet1_1", "images": lesions, "labels": tmp_path / "metadata.csv"}
        given |= {"split": "train", "resize": 36, "crop": 36, "steps": 2, "judge-every": 1, "batch": 4}
        options = {**given, "out": tmp_path / "lesions.safetensors", **replaced}
        return underfire("train", "classifier", *(part for name in options for part in (f"--{name}", options[name])))

    return run


def test_a_classifier_is_trained_told_and_attacked_on_lesions_it_has_not_seen(
    train_classifier: Underfire, underfire: Underfire, lesions: Path, tmp_path: Path
) -> None:
    code, said, err = train_classifier()
    trained = tmp_path / "lesions.safetensors"
    assert (code, err) == (0, "")
    assert "balanced accuracy" in said
    assert f"Use it: --model torchvision:squeezenet1_1 --weights {trained}" in said
    assert len((tmp_path / "lesions.csv").read_text().splitlines()) == 3
    before = trained.read_bytes()
    assert "trained before" in train_classifier()[1]
    assert trained.read_bytes() == before
    common = ("--model", "torchvision:squeezenet1_1", "--weights", trained, "--images", lesions)
    common = (*common, "--labels", tmp_path / "metadata.csv", "--split", "test", "--n", 1, "--steps", 2)
    code, said, err = underfire("attack", *common, "--interpreter", "cam", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    run = open_run(tmp_path / "run")
    assert f"normalisation: that of {trained}" in said
    assert (run.info["spec"]["split"], run.info["spec"]["crop"]) == ("test", 36)
    assert run.info["classes"] == ["mel", "nv"]
    code, _, err = underfire("attack", *common, "--split", "train", "--interpreter", "cam", "--out", tmp_path / "run")
    assert code == 1
    assert "split was test and is now train" in err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"split": "val"}, "there is no split 'val' of these images: give 'test' or 'train'"),
        ({"model": "demo"}, "'demo' has no head that can be replaced: name a torchvision:NAME"),
        ({"model": "models.py:build"}, "There is no file models.py to take the model builder 'build' from"),
        ({"model": "torchvision:nonet"}, "torchvision has no model 'nonet'"),
        ({"weights": "nowhere.pt"}, "There is no weight file nowhere.pt"),
        ({"images": "demo"}, "The demo's classifier comes trained; give --images a folder or an .npz"),
        ({"steps": 0}, "--steps 0: Input should be greater than or equal to 1"),
        ({"judge-every": 0}, "--judge-every 0: Input should be greater than or equal to 1"),
        ({"crop": 37}, "0 of 15 images can be used"),
        ({"crop": 4}, "The model failed on images of 4×4 pixels"),
    ],
)
def test_a_classifier_is_refused_in_one_sentence(
    train_classifier: Underfire, tmp_path: Path, options: dict[str, object], complaint: str
) -> None:
    code, _, err = train_classifier(**options)
    assert (code, err.count("\n")) == (1, 1)
    assert complaint in err
    assert not (tmp_path / "lesions.safetensors").exists()


@pytest.mark.parametrize("command", ["attack", "train rts"])
def test_the_demo_has_no_parts(underfire: Underfire, tmp_path: Path, command: str) -> None:
    options = ("--model", "demo", "--images", "demo", "--split", "test", "--out", tmp_path / "out")
    code, _, err = underfire(*command.split(), *options)
    assert (code, err) == (1, "underfire: The demo's scenes are not split; leave out --split test.\n")


@pytest.mark.parametrize(
    ("interpreter", "complaint"),
    [
        ("cam:x", "Interpreter 'cam' takes no argument; leave out ':x'."),
        ("rts:nowhere", "There is no masker nowhere; train one with: underfire train rts --out nowhere"),
        ("rts,rts", "Interpreter 'rts' is named twice; name it once."),
    ],
)
def test_interpreters_that_cannot_be_named(
    underfire: Underfire, tmp_path: Path, interpreter: str, complaint: str
) -> None:
    code, _, err = underfire(
        "attack", "--model", "demo", "--images", "demo", "--interpreter", interpreter, "--out", tmp_path / "run"
    )
    assert (code, err.strip()) == (1, f"underfire: {complaint}")
