"""Training a classifier: it learns unequal classes, resumes to the same bits, and its file serves every command."""

import csv
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tiny import Tiny
from underfire.core.errors import UnderfireError
from underfire.data.decode import ArraySource
from underfire.data.image_set import ImageSet
from underfire.models.classifier import Classifier
from underfire.models.files import ClassifierManifest, read_manifest
from underfire.models.loading import LoadedNetwork
from underfire.models.new_head import load_with_new_head
from underfire.training import classifier
from underfire.training.classifier import ClassifierRecipe, ClassifierTask, Examples, labelled, train_classifier
from underfire.training.dataset import read_training_set
from underfire.training.loop import Checkpoint, initialised

CPU = torch.device("cpu")
SHORT = ClassifierRecipe(steps=6, batch=6, judge_every=2, held_out=0.25, lr=1e-2)
COLOURS = ("blue", "green", "red")


class Dropping(Tiny):
    """Draws numbers of its own while it is trained."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


def pictures(counts: tuple[int, int, int] = (16, 6, 4)) -> ImageSet:
    """Noise in which one channel is brighter, two pictures of each lesion."""
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    noise = torch.rand(len(labels), 16, 16, 3, generator=torch.Generator().manual_seed(0))
    tint = nn.functional.one_hot(2 - labels, 3)[:, None, None] * 0.25
    pixels = (255 * (0.5 * noise + tint)).byte().numpy()
    ids, lesions = (tuple(f"{name} {i // n}" for i in range(len(labels))) for name, n in (("image", 1), ("lesion", 2)))
    return ImageSet(ids, labels, COLOURS, ArraySource(pixels), groups=lesions)


@pytest.fixture(scope="module")
def examples() -> Examples:
    image_set = pictures()
    return labelled(read_training_set(image_set), image_set)


@pytest.fixture(scope="module")
def start() -> LoadedNetwork:
    return LoadedNetwork(initialised(Dropping, 0), (0.3, 0.3, 0.3), (0.2, 0.2, 0.2), classes=COLOURS)


def test_rare_classes_are_learned_and_the_file_says_so(
    tmp_path: Path, examples: Examples, start: LoadedNetwork
) -> None:
    out, before = tmp_path / "colours.safetensors", [value.clone() for value in start.net.parameters()]
    steps: list[int] = []
    recipe = ClassifierRecipe(steps=60, batch=9, judge_every=20, held_out=0.25, lr=3e-2)
    manifest = train_classifier(start, examples, recipe, out, on_step=lambda step, loss: steps.append(step))
    assert manifest == read_manifest(out, ClassifierManifest)
    assert steps == list(range(60))
    assert manifest.classes == COLOURS
    assert (manifest.mean, manifest.std) == (start.mean, start.std)
    assert manifest.scores["images"] == 8
    assert manifest.scores["balanced_accuracy"] == 1
    assert manifest.training["steps_done"] == 60
    with out.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["20", "40", "60"]
    assert max(float(row["balanced_accuracy"]) for row in rows) == 1
    assert not out.with_suffix(".checkpoint").exists()
    assert all(torch.equal(*pair) for pair in zip(before, start.net.parameters(), strict=True))


def test_scores_are_those_of_the_network_behind_its_normalisation(examples: Examples, start: LoadedNetwork) -> None:
    task, index = ClassifierTask(start, examples, SHORT, CPU), torch.tensor([0, 3, 17, 24, 25])
    network = start.net.eval()
    scores = task.scores(network, index)
    classifier = Classifier(network, start.mean, start.std)
    logits = classifier(examples.images.batch(index, CPU).images).detach()
    right = logits.argmax(1) == examples.labels[index]
    assert scores["accuracy"] == pytest.approx(right.float().mean().item())
    assert scores["balanced_accuracy"] == pytest.approx(
        sum(right[torch.tensor(rows)].float().mean().item() for rows in ([0, 1], [2], [3, 4])) / 3
    )
    expected = nn.functional.cross_entropy(logits, examples.labels[index]).item()
    assert scores["cross_entropy"] == pytest.approx(expected, rel=1e-4)


def test_losses_are_per_image_and_repeat_although_layers_draw(examples: Examples, start: LoadedNetwork) -> None:
    task = ClassifierTask(start, examples, SHORT, CPU)
    batch = task.batches(torch.arange(26))(3)
    network = start.net.train()
    before = torch.get_rng_state()
    losses = task.loss(network, batch)
    assert losses.shape == (6,)
    assert torch.equal(task.loss(network, batch), losses)
    assert not torch.equal(task.loss(network, replace(batch, step=4)), losses)
    assert torch.equal(torch.get_rng_state(), before)
    assert batch.labels.bincount().tolist() == [2, 2, 2]


def test_no_lesion_is_both_learned_and_judged(
    tmp_path: Path, examples: Examples, start: LoadedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Tensor] = {}
    batches, scores = ClassifierTask.batches, ClassifierTask.scores

    def taught(task: ClassifierTask, fitted: Tensor) -> Callable[[int], Any]:
        seen["fitted"] = fitted
        return batches(task, fitted)

    def judged(task: ClassifierTask, network: nn.Module, index: Tensor) -> dict[str, float]:
        seen["judged"] = index
        return scores(task, network, index)

    monkeypatch.setattr(ClassifierTask, "batches", taught)
    monkeypatch.setattr(ClassifierTask, "scores", judged)
    train_classifier(start, examples, SHORT, tmp_path / "out.safetensors")
    sides = {name: {examples.groups[i] for i in index.tolist()} for name, index in seen.items()}
    assert sides["fitted"] | sides["judged"] == set(examples.groups)
    assert not sides["fitted"] & sides["judged"]
    assert {int(label) for label in examples.labels[seen["judged"]]} == {0, 1, 2}


@pytest.mark.parametrize("stops", [[1], [4], [3, 5]])
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, examples: Examples, start: LoadedNetwork, monkeypatch: pytest.MonkeyPatch, stops: list[int]
) -> None:
    monkeypatch.setattr(classifier, "Checkpoint", partial(Checkpoint, every=2))
    whole, out = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    train_classifier(start, examples, SHORT, whole)
    for stop in stops:

        def give_up(step: int, loss: float, at: int = stop) -> None:
            if step == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_classifier(start, examples, SHORT, out, on_step=give_up)
        assert out.with_suffix(".checkpoint").exists()
    train_classifier(start, examples, SHORT, out)
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".csv").read_bytes() == whole.with_suffix(".csv").read_bytes()


def test_a_finished_training_is_only_read_and_another_one_refused(
    tmp_path: Path, examples: Examples, start: LoadedNetwork
) -> None:
    out = tmp_path / "colours.safetensors"
    first = train_classifier(start, examples, SHORT, out)
    steps: list[int] = []
    assert train_classifier(start, examples, SHORT, out, on_step=lambda step, loss: steps.append(step)) == first
    assert steps == []
    other = SHORT.model_copy(update={"lr": 0.02})
    with pytest.raises(UnderfireError, match=r"holds a classifier of another training: lr was 0\.01 and is now 0\.02"):
        train_classifier(start, examples, other, out)
    moved = replace(start, net=initialised(Dropping, 1))
    with pytest.raises(UnderfireError, match=r"holds a classifier of another training: start was"):
        train_classifier(moved, examples, SHORT, out)
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(UnderfireError, match=r"weights\.pt contains no classifier that was trained here"):
        train_classifier(start, examples, SHORT, tmp_path / "weights.pt")


def test_images_from_which_nothing_can_be_learned_are_refused(tmp_path: Path, start: LoadedNetwork) -> None:
    one = pictures((5, 0, 0))
    with pytest.raises(UnderfireError, match="All images that can be used are of one class"):
        labelled(read_training_set(one), one)
    lesions = pictures((2, 2, 2))
    with pytest.raises(UnderfireError, match="No class has two lesions, or two images"):
        train_classifier(start, labelled(read_training_set(lesions), lesions), SHORT, tmp_path / "out.safetensors")


class Answering(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(1)), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda x: (x.mean((2, 3)), x.mean((2, 3))), "does not answer with one logit for each of 3 classes"),
        (lambda x: x.flatten(1), "does not answer with one logit for each of 3 classes"),
        (lambda x: x @ torch.zeros(3, 3), "The model failed on images of 16×16 pixels: "),
    ],
)
def test_networks_that_do_not_fit_the_recipe_are_refused(
    tmp_path: Path, examples: Examples, answer: Callable[[Tensor], Any], complaint: str
) -> None:
    start = LoadedNetwork(Answering(answer), classes=COLOURS)
    with pytest.raises(UnderfireError, match=complaint):
        train_classifier(start, examples, SHORT, tmp_path / "out.safetensors")


def test_what_was_trained_is_what_is_loaded(tmp_path: Path) -> None:
    """A network of torchvision from random weights, on pictures large enough for it."""
    small = pictures((4, 4, 4))
    large = replace(small, source=ArraySource(small.source.images.repeat(3, 1).repeat(3, 2)), resize=48, crop=40)
    start = load_with_new_head("torchvision:squeezenet1_1", None, "none", COLOURS, seed=0)
    out = tmp_path / "colours.safetensors"
    recipe = ClassifierRecipe(steps=1, batch=3, judge_every=1, held_out=0.5)
    manifest = train_classifier(start, labelled(read_training_set(large), large), recipe, out)
    loaded = Classifier.load("torchvision:squeezenet1_1", str(out))
    assert loaded.origin is not None
    assert (loaded.origin.resize, loaded.origin.crop, loaded.origin.classes) == (48, 40, COLOURS)
    assert loaded.mean == (0, 0, 0)
    assert manifest.scores["images"] == 6
