"""The command line from end to end: what it leaves, what it says, and how it refuses."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from underfire import open_run
from underfire.attacks import recipes
from underfire.cli.main import main
from underfire.data.demo import demo_images

PROGRAM = (sys.executable, "-c", "from underfire.cli.main import main; main()")


@dataclass(frozen=True)
class Told:
    """What a command said."""

    code: int
    out: str
    err: str


Underfire = Callable[..., Told]


@pytest.fixture
def underfire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_plots: None) -> Underfire:
    """Run one command in this process."""

    def run(*arguments: object) -> Told:
        monkeypatch.setattr(sys, "argv", ["underfire", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Told(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(recipes.RECIPES["annealed"], warm_steps=4, plain_steps=30)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})


@pytest.fixture
def attack(underfire: Underfire, short_recipe: None, tiny_model: str, tiny_photos: Path, tmp_path: Path) -> Underfire:
    """`underfire attack` on the tiny model and its photos into tmp_path/run, with further or other options."""

    def run(*options: object, **replaced: object) -> Told:
        given = {"model": tiny_model, "images": tiny_photos, "normalize": "none", "n": 4, "steps": 10}
        named = {"out": tmp_path / "run", **given, **replaced}
        return underfire("attack", *(part for name in named for part in (f"--{name}", named[name])), *options)

    return run


# ------------------------------------------------------------------ what works


def test_attack_leaves_a_run_folder_and_a_report(attack: Underfire, tmp_path: Path) -> None:
    told = attack(interpreter="cam, grad,grad-cam")
    assert (told.code, told.err) == (0, "")
    run = open_run(tmp_path / "run")
    assert run.outcomes().num_rows == 4 * 2 * 3
    assert "<!doctype html>" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8").lower()
    assert run.info["command"].startswith("underfire attack --out ")
    assert f"Run folder: {tmp_path / 'run'}\n" in told.out
    assert f"Report:     {tmp_path / 'run' / 'report.html'}\n" in told.out


def test_photos_without_labels_are_judged_by_what_the_model_reports(
    attack: Underfire, underfire: Underfire, tiny_photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_photos, tmp_path / "flat", copy_function=lambda a, b: shutil.copy(a, tmp_path / "flat"))
    told = attack("--labels", "predicted", images=tmp_path / "flat", interpreter="cam", n=2)
    assert (told.code, told.err) == (0, "")
    by = "labels by what the classifier reports, as the images have none"
    assert by in told.out.splitlines()[0]
    run = open_run(tmp_path / "run")
    assert run.info["labels_by"] in by
    assert "The images have no labels: what the model reports" in (run.path / "report.html").read_text(encoding="utf-8")
    given = ("--model", tiny_model, "--images", tmp_path / "flat", "--labels", "predicted", "--normalize", "none")
    told = underfire("study", "case-study", *given, "--out", tmp_path / "study")
    assert told.code == 1
    assert "asks how often the classifier is right" in told.err


def test_another_solver_bends_the_images(attack: Underfire, tmp_path: Path) -> None:
    told = attack(solver="stadv", interpreter="cam")
    assert (told.code, told.err) == (0, "")
    run = open_run(tmp_path / "run")
    assert run.info["spec"]["solvers"] == ["stadv"]
    rows = run.outcomes().to_pylist()
    assert [row["attack"] for row in rows] == ["stadv"] * 4 + ["adv2-stadv"] * 4
    for row in rows:
        flow = dict(zip(*run.thetas(row["attack"], "cam"), strict=True))[row["id"]]
        assert row["flow_mean"] == pytest.approx(np.hypot(*flow).mean(), rel=1e-5)
        assert row["flow_smoothness"] > 0
    assert "colour wheel of directions" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert [line.split()[1] for line in told.out.splitlines() if line.split()[:1] == ["cam"]] == ["stadv", "adv2-stadv"]


def test_attacks_that_only_ask_stand_beside_those_that_follow_gradients(attack: Underfire, tmp_path: Path) -> None:
    told = attack(solver="pgd,square", interpreter="cam", queries=30, n=2)
    assert (told.code, told.err) == (0, "")
    rows = open_run(tmp_path / "run").outcomes().to_pylist()
    steps = {row["attack"]: row["steps"] for row in rows}
    assert list(steps) == ["pgd", "adv2", "square", "adv2-square"]
    assert (steps["square"], steps["adv2-square"]) == (29, 14)
    assert "ADV² by queries" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_both_solvers_and_attacks_that_evade_share_a_folder(attack: Underfire, tmp_path: Path) -> None:
    told = attack(solver="pgd,stadv", evade="fs:median:3,ensemble", n=2)
    assert (told.code, told.err) == (0, "")
    rows = open_run(tmp_path / "run").outcomes().to_pylist()
    assert list(dict.fromkeys(row["attack"] for row in rows)) == [
        "pgd", "adv2", "adv2-evading-fs:median:3", "adv2-ensemble",
        "stadv", "adv2-stadv", "adv2-stadv-evading-fs:median:3", "adv2-stadv-ensemble",
    ]  # fmt: skip
    assert {row["interpreter"] for row in rows} == {"cam", "grad"}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for title in ("ADV² evading median 3×3", "ADV² on the ensemble", "ADV² on StAdv evading median 3×3"):
        assert title in page
    assert "ADV² on StAdv and the ensemble" in page


def test_the_summary_shows_every_number_whole(attack: Underfire) -> None:
    told = attack()
    lines = [line.split() for line in told.out.splitlines() if line.split()[:1] in (["cam"], ["grad"])]
    assert [line[:2] for line in lines] == [["cam", "pgd"], ["cam", "adv2"], ["grad", "pgd"], ["grad", "adv2"]]
    assert "…" not in told.out
    for line in lines:
        row = re.fullmatch(r"(\d+) % " + 4 * r"(\d\.\d{3}) " + r"(\d) of 4", " ".join(line[2:]))
        assert row is not None
        rate, *means, plausible = map(float, row.groups())
        assert 0 <= rate <= 100
        assert all(0 <= mean <= 1 for mean in means)
        assert 0 <= plausible <= 4


def test_the_same_command_again_changes_no_file(attack: Underfire, tmp_path: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    first, before = attack(), files()
    again = attack()
    assert (first.code, again.code) == (0, 0)
    assert files() == before
    assert again.out.splitlines()[-6:] == first.out.splitlines()[-6:]


def test_the_config_of_a_run_repeats_it_elsewhere(
    underfire: Underfire, attack: Underfire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit: outcomes, stages and the config itself."""
    assert attack("--n", 3, "--batch", 2, "--eps", "12/255", "--interpreter", "cam").code == 0
    first, second = tmp_path / "run", tmp_path / "again"
    monkeypatch.chdir(first)
    assert underfire("attack", "--config", first / "config.toml", "--out", second).code == 0
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.suffix in (".safetensors", ".parquet"))
    assert len(names) > 10
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []
    configs = [(folder / "config.toml").read_text(encoding="utf-8").splitlines()[1:] for folder in (first, second)]
    assert configs[0] == configs[1]
    assert {"batch = 2", 'interpreter = ["cam"]', 'recipe = "annealed"'} <= set(configs[0])


def test_report_is_written_anew_from_the_folder(underfire: Underfire, attack: Underfire, tmp_path: Path) -> None:
    attack()
    report = tmp_path / "run" / "report.html"
    text = report.read_text(encoding="utf-8")
    report.unlink()
    told = underfire("report", tmp_path / "run")
    assert (told.code, told.out) == (0, f"Report: {report}\n")
    assert report.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "options",
    [
        ("--target-class", "least-likely"),
        ("--target-class", "{folder}/wanted.csv"),
        ("--target-map", "random-class"),
        ("--target-map", "{folder}/wanted.png"),
        pytest.param(("--target-class", "next"), marks=pytest.mark.extended),
        pytest.param(("--target-class", "0"), marks=pytest.mark.extended),
        pytest.param(("--target-map", "patch"), marks=pytest.mark.extended),
    ],
)
def test_targets_of_every_kind_on_the_demo(
    underfire: Underfire, short_recipe: None, tmp_path: Path, options: tuple[str, str]
) -> None:
    scenes = demo_images()
    lines = [f"{name},{(label + 1) % 2}" for name, label in zip(scenes.ids, scenes.labels.tolist(), strict=True)]
    (tmp_path / "wanted.csv").write_text("\n".join(["file,target", *lines[:40]]))
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "wanted.png")
    given = [option.format(folder=tmp_path) for option in options]
    common = ("attack", "--model", "demo", "--images", "demo", "--interpreter", "cam", "--n", 3, "--steps", 2)
    told = underfire(*common, "--out", tmp_path / "run", *given)
    assert (told.code, told.err) == (0, "")
    rows = open_run(tmp_path / "run").outcomes().to_pylist()
    assert len(rows) == 6
    assert all(row["class_true"] != row["class_target"] for row in rows)
    assert told.out.count("ΔL1 to") == (2 if options[0] == "--target-map" else 1)
    assert ("passed over" in told.out) == (options[1] in ("0", "{folder}/wanted.csv"))


def test_list_names_what_attack_takes(underfire: Underfire) -> None:
    told = underfire("list")
    assert told.code == 0
    assert told.out.splitlines() == [
        "interpreters  cam, grad, grad-cam, grad-rollout, ig, mask, rollout, rts, smooth",
        "              captum:METHOD, gradcam:METHOD, zennit:COMPOSITE, path/file.py:function",
        "solvers       pgd, pgd-l2, stadv, square",
        "attacks       pgd, pgd-l2, stadv, square, adv2, adv2-l2, adv2-stadv, adv2-square",
        "recipes       paper, paper-densenet, paper-isic, annealed, patch",
        "target class  random, least-likely, next, N, CSV",
        "target map    benign, patch, random-class, FILE",
        "detectors     fs, fs:SQUEEZER+…, consistency, consistency:INTERPRETER[:CHANGE]+…, ensemble, "
        "ensemble:INTERPRETER+…, fs+consistency",
        "squeezers     bits:2, median:3, nlm:11-3-4",
        "changes       noise, jpeg, blur, crop",
        "models        torchvision:NAME, timm:NAME, hf:ID-or-folder, path/file.py:builder, demo",
    ]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ((), ("attack", "demo", "detect", "report", "list")),
        (("attack",), ("--model", "--images", "--interpreter", "--eps", "--seed", "--device", "--out")),
        (("demo",), ("--n", "--seed", "--device", "--out", "--retrain")),
        (("detect",), ("run", "--detector", "--attack", "--benign", "--fpr", "--seed", "--device", "--batch")),
        (("report",), ("run",)),
        (("list",), ()),
    ],
)
def test_every_command_has_help(
    underfire: Underfire, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    told = underfire(*command, "--help")
    assert told.code == 0
    assert "Usage" in told.out
    assert [word for word in words if word not in told.out] == []


def test_a_seed_chooses_other_images_and_targets(attack: Underfire, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert attack(seed=seed, interpreter="cam", out=tmp_path / name).code == 0
    a, b, c = (open_run(tmp_path / name).outcomes() for name in "abc")
    assert a == b
    assert a["class_target"] != c["class_target"] or a["id"] != c["id"]


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("1e-2", 0.01)])
def test_eps_may_be_a_fraction(attack: Underfire, tmp_path: Path, text: str, value: float) -> None:
    assert attack(eps=text, interpreter="cam", n=2).code == 0
    run = open_run(tmp_path / "run")
    assert run.info["spec"]["eps"] == pytest.approx(value)
    assert max(run.outcomes()["linf"].to_pylist()) == pytest.approx(value, abs=1e-6)


def test_the_named_layer_is_the_one_that_is_explained(attack: Underfire, tmp_path: Path) -> None:
    assert attack(features="features.0", interpreter="grad-cam").code == 0
    assert open_run(tmp_path / "run").info["model"]["features"] == "features.0"


def test_a_table_of_labels_and_a_crop(attack: Underfire, tiny_photos: Path, tmp_path: Path) -> None:
    names = {"blue": 0, "green": 1, "red": 2}
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["file", "class_index", "class_name"])
        writer.writerows([f"{name}/{name}-{i}.png", names[name], name.title()] for name in names for i in range(3))
    told = attack(labels=table, crop=12, n=9, interpreter="grad")
    assert told.code == 0
    run = open_run(tmp_path / "run")
    assert run.info["classes"] == ["Blue", "Green", "Red"]
    assert run.images("benign")[1].shape[2:] == (12, 12)
    assert run.maps("adv2", "grad")[1].shape[1:] == (6, 6)


def test_damaged_and_misclassified_images_are_counted(attack: Underfire, tiny_photos: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(tiny_photos, tmp_path / "photos")
    (photos / "blue" / "broken.png").write_bytes((photos / "blue" / "blue-0.png").read_bytes()[:200])
    (photos / "red" / "text.jpg").write_text("no picture")
    Image.fromarray(np.full((16, 16, 3), (200, 100, 100), np.uint8)).save(photos / "blue" / "red-in-truth.png")
    told = attack(images=photos, n=100, interpreter="cam", steps=1)
    assert told.code == 0
    assert "12 images as PNG files; means" in told.out
    assert "2 files could not be used; run.json lists them with the reasons.\n" in told.out
    assert "No more than 12 images were found: of 13 examined, 1 were misclassified.\n" in told.out
    skipped = open_run(tmp_path / "run").info["skipped"]
    assert {entry["id"] for entry in skipped} == {"blue/broken.png", "red/text.jpg"}
    assert all(entry["reason"] for entry in skipped)


def test_an_interrupt_says_how_to_go_on(tiny_model: str, tiny_photos: Path, tmp_path: Path) -> None:
    options = [
        "--normalize",
        "none",
        "--n",
        "4",
        "--steps",
        "100000",
        "--interpreter",
        "cam",
        "--out",
        tmp_path / "run",
    ]
    process = subprocess.Popen(
        [*PROGRAM, "attack", "--model", tiny_model, "--images", str(tiny_photos), *map(str, options)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    before_adv2 = 8  # images, targets, benign maps, natural variation; warm start, PGD, its 8 bits, its maps
    while len(list(tmp_path.glob("run/stages/*/shard-*"))) < before_adv2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert said == "underfire: interrupted; the same command again goes on from here.\n"
    assert process.returncode == 130


# ------------------------------------------------------------------ what is refused

NETWORKS = """
import torch
from torch import nn


class Returns(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(x)


def a_dict():
    return Returns(lambda x: {"scores": x.mean((2, 3))})


def a_number():
    return 3


def needs_an_argument(depth):
    return nn.Identity()


def colours():
    return Returns(lambda x: x.flip(1).mean((2, 3)))


def for_64_pixels():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))


def flattening():
    convolution, linear = nn.Conv2d(3, 3, 1, bias=False), nn.Linear(3 * 16 * 16, 3, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(torch.eye(3).flip(0)[..., None, None])
        linear.weight.copy_(torch.eye(3).repeat_interleave(16 * 16, 1))
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear)
"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    path = tmp_path / "networks.py"
    path.write_text(NETWORKS)
    return path


def refused(told: Told, sentence: str, tmp_path: Path) -> None:
    """One sentence on stderr, exit code 1, nothing written."""
    assert told.code == 1
    assert told.err.startswith("underfire: ")
    assert told.err.count("\n") == 1
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"model": "resnet18"},
            "'resnet18' does not name a model; use torchvision:NAME, timm:NAME, "
            "hf:ID-or-folder, path/file.py:builder, or demo.",
        ),
        ({"model": "torchvision:resnet17", "weights": "DEFAULT"}, "torchvision has no model 'resnet17'"),
        ({"model": "torchvision:resnet18"}, "torchvision:resnet18 needs weights"),
        ({"model": "torchvision:resnet18", "weights": "WORST"}, "torchvision:resnet18 has no weights 'WORST'"),
        ({"weights": "absent.safetensors"}, "There is no weight file absent.safetensors."),
        ({"images": "absent"}, "there is no absent: give a folder of images or an .npz file"),
        ({"labels": "absent.csv"}, "absent.csv cannot be read"),
        (
            {"interpreter": "cam,lime"},
            "There is no interpreter 'lime'; there are cam, grad, grad-cam, grad-rollout, ig, mask, rollout, rts, "
            "smooth.",
        ),
        ({"interpreter": ""}, "There is no interpreter ''"),
        ({"interpreter": "cam,cam"}, "Interpreter 'cam' is named twice"),
        (
            {"recipe": "burnt"},
            "--recipe burnt: Input should be 'annealed', 'patch', 'paper', 'paper-densenet' or 'paper-isic'.",
        ),
        ({"eps": "eight"}, "--eps eight is not a number; write it like 8/255 or 0.031."),
        ({"eps": "8/0"}, "--eps 8/0 is not a number"),
        ({"eps": "0"}, "--eps 0.0: Input should be greater than 0."),
        ({"eps": "8"}, "eps is 8; it must be at least 0 and at most 1; did you mean eps=8/255?"),
        ({"eps": "nan"}, "--eps nan"),
        (
            {"solver": "stadv", "eps": "8/255"},
            "Solver 'stadv' moves pixels in place of changing them; leave out --eps.",
        ),
        ({"solver": "cw"}, "There is no solver 'cw'; there are pgd, pgd-l2, stadv, square."),
        ({"evade": "gauss"}, "There is no detector 'gauss'; there are fs, fs:SQUEEZER+…, consistency, "),
        ({"n": "0"}, "--n 0: Input should be greater than or equal to 1."),
        ({"batch": "0"}, "--batch 0: Input should be greater than or equal to 1."),
        ({"workers": "0"}, "--workers 0: Input should be greater than or equal to 1."),
        ({"steps": "0"}, "--steps 0: Input should be greater than or equal to 1."),
        ({"normalize": "1,2,3"}, "'1,2,3' is not a normalisation"),
        ({"device": "cuda:7"}, "The device 'cuda:7' cannot be used: "),
        ({"device": "abacus"}, "The device 'abacus' cannot be used: "),
        ({"device": "meta"}, "The device 'meta' cannot be used"),
        ({"features": "layer4"}, "The model has no layer 'layer4'; its top layers are: features, pool, head."),
        ({"crop": "64"}, "its 16×16 pixels are fewer than the crop of 64×64"),
        ({"crop": "0"}, "crop is 0"),
    ],
)
def test_bad_options_are_one_sentence(
    attack: Underfire, tmp_path: Path, options: dict[str, str], sentence: str
) -> None:
    refused(attack(**options), sentence, tmp_path)


@pytest.mark.parametrize(
    ("builder", "options", "sentence"),
    [
        ("absent", {}, "defines no function 'absent' that builds a model."),
        ("a_number", {}, "a_number in {file} returned a int, not a torch.nn.Module."),
        ("needs_an_argument", {}, "needs_an_argument in {file} must be callable without arguments."),
        ("a_dict", {}, "The model returned a dict for 12 images; underfire needs logits of shape (N, K), as a tensor"),
        ("for_64_pixels", {}, "The model failed on images of 16×16 pixels: "),
        ("flattening", {"interpreter": "cam", "features": "1"}, "CAM needs global average pooling"),
        ("colours", {"interpreter": "grad-cam"}, "No layer of the model shows what it computes"),
    ],
)
def test_bad_models_are_one_sentence(
    attack: Underfire, networks: Path, tmp_path: Path, builder: str, options: dict[str, str], sentence: str
) -> None:
    told = attack(model=f"{networks}:{builder}", **options)
    refused(told, sentence.format(file=networks), tmp_path)


def test_a_file_that_cannot_be_imported_is_one_sentence(attack: Underfire, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def build(:\n")
    refused(attack(model=f"{broken}:build"), f"{broken} could not be imported: SyntaxError", tmp_path)
    refused(attack(model=f"{tmp_path / 'absent.py'}:build"), "There is no file", tmp_path)


def test_weights_that_do_not_fit_are_one_sentence(attack: Underfire, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\0" * 100)
    refused(attack(weights=damaged), f"{damaged} cannot be read as weights", tmp_path)


def test_labels_beyond_the_classes_are_one_sentence(attack: Underfire, tiny_photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,class_index\nblue/blue-0.png,0\nred/red-0.png,7\n")
    refused(attack(labels=table), "the labels go up to 7, but the classifier knows classes 0 to 2", tmp_path)


def test_labels_that_the_model_never_gets_right_are_one_sentence(attack: Underfire, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,class_index\nblue/blue-0.png,1\nred/red-0.png,0\n")
    refused(attack(labels=table), "the classifier got none of 2 images right", tmp_path)


def test_images_of_several_sizes_are_one_sentence(attack: Underfire, tiny_photos: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(tiny_photos, tmp_path / "photos")
    Image.fromarray(np.full((24, 20, 3), (100, 100, 120), np.uint8)).save(photos / "blue" / "larger.png")
    refused(attack(images=photos, n=100), "blue/larger.png has 20×24 pixels: give all images one size", tmp_path)


def test_other_settings_in_the_same_folder_are_refused(attack: Underfire, tmp_path: Path) -> None:
    assert attack(interpreter="cam").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    told = attack(interpreter="cam", n=3)
    assert told.code == 1
    assert "holds a run with other settings: n was 4 and is now 3. Choose another --out.\n" in told.err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_foreign_folder_and_a_file_are_refused(attack: Underfire, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    refused(attack(out=tmp_path / "thesis"), "thesis is not empty and contains no run; choose another --out.", tmp_path)
    chapter = tmp_path / "thesis" / "chapter.txt"
    refused(attack(out=chapter), "chapter.txt cannot be written to: File exists.", tmp_path)
    refused(attack(out=chapter / "run"), "cannot be written to: Not a directory.", tmp_path)
    assert chapter.read_text() == "years of work"


def test_report_on_no_run_is_one_sentence(underfire: Underfire, tmp_path: Path) -> None:
    refused(underfire("report", tmp_path), f"{tmp_path} contains no run (no run.json)", tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("attack",),
        ("attack", "--model", "demo"),
        ("fire",),
        ("attack", "--n", "x"),
        ("report",),
    ],
)
def test_usage_errors_say_how_to_get_help(underfire: Underfire, arguments: tuple[str, ...]) -> None:
    told = underfire(*arguments)
    assert told.code == 2
    assert "--help" in told.err
