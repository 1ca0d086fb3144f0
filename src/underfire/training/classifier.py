"""Train a classifier on classes of one's own, however unequal in size, such as kinds of skin lesions.

    examples = labelled(read_training_set(photos), photos)
    start = load_with_new_head("torchvision:squeezenet1_1", "DEFAULT", None, photos.classes, seed=0)
    trained = train_classifier(start, examples, ClassifierRecipe(), Path("classifier.safetensors"))

Cross-entropy, minimised by AdamW under a one-cycle schedule, on batches in which every class comes up equally often and
every image is varied anew. A part of the images that shares no group with the others is held out: the network of the
best balanced accuracy on it is kept. One row of numbers per check goes to a CSV file beside the classifier.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.core.losses import cross_entropy, log_prob
from underfire.core.types import Images, Labels, Logits, Row
from underfire.data.augment import varied
from underfire.data.image_set import ImageSet
from underfire.data.splits import apart
from underfire.metrics.classification import accuracy, balanced_accuracy, confusion
from underfire.models.files import ClassifierManifest, read_manifest, write_network
from underfire.models.loading import LoadedNetwork
from underfire.runs.compute import in_one_sentence
from underfire.training.dataset import Batch, TrainingSet, augmented
from underfire.training.log import Curves
from underfire.training.loop import Checkpoint, HeldOut, balanced, check_same_training, fit, seeded
from underfire.training.recipes import ClassifierRecipe

AUGMENTATIONS: Mapping[str, Callable[[Batch, int, int], Images]] = MappingProxyType(
    {
        "turned": lambda batch, step, seed: varied(batch.images, batch.keys, step, seed),
        "upright": lambda batch, step, seed: augmented(batch, step, seed).images,
    }
)
CURVES = ("step", "cross_entropy", "accuracy", "balanced_accuracy")


@dataclass(frozen=True)
class Examples:
    """Images with their classes; those of one group show the same thing."""

    images: TrainingSet
    labels: Labels
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    resize: int | None = None
    crop: int | None = None


@dataclass(frozen=True)
class ClassifierBatch:
    """The images of a step, varied, and their classes."""

    images: Images
    labels: Labels
    step: int


def labelled(images: TrainingSet, image_set: ImageSet) -> Examples:
    """The images of a training with what the set that they were read from says of them.

    UnderfireError if they are of fewer than two classes.
    """
    place = {name: i for i, name in enumerate(image_set.ids)}
    index = [place[name] for name in images.ids]
    labels, groups = image_set.labels[index], image_set.groups or image_set.ids
    if len(set(labels.tolist())) < 2:
        raise UnderfireError("All images that can be used are of one class; a classifier needs two or more.")
    return Examples(
        images, labels, tuple(groups[i] for i in index), image_set.classes, image_set.resize, image_set.crop
    )


def train_classifier(
    start: LoadedNetwork,
    examples: Examples,
    recipe: ClassifierRecipe,
    out: Path,
    device: torch.device | str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> ClassifierManifest:
    """Train, judge and write a classifier, going on from its checkpoint; one that is already there is only read.

    UnderfireError if `out` holds another classifier, or if no image can be held out.
    """
    identity = _identify(start, examples, recipe)
    if out.exists():
        return _finished(out, identity)
    judged = apart(examples.groups, examples.labels.tolist(), recipe.held_out, recipe.seed, "held out")
    if not judged.any() or judged.all():
        raise UnderfireError("No class has two lesions, or two images, of which one could be held out; give more.")
    device = torch.device(device)
    task = ClassifierTask(start, examples, recipe, device)
    curves = Curves(CURVES, recipe.steps // recipe.judge_every + 1, out.with_suffix(".csv"))
    network = copy.deepcopy(start.net).to(device).to(memory_format=torch.channels_last).requires_grad_(True)
    index = judged.nonzero()[:, 0]

    def score(network: nn.Module) -> float:
        scores = task.scores(network, index)
        curves.note(min((len(curves) + 1) * recipe.judge_every, recipe.steps), scores)
        return 1 - scores["balanced_accuracy"]

    checkpoint = Checkpoint(out.with_suffix(".checkpoint"), json.dumps(identity))
    height, width = examples.images.pixels.shape[2:]
    with in_one_sentence(f"The model failed on images of {width}×{height} pixels"):
        done = fit(
            network,
            task.batches((~judged).nonzero()[:, 0]),
            task.loss,
            steps=recipe.steps,
            lr=recipe.lr,
            on_step=on_step,
            held_out=HeldOut(score, recipe.judge_every, recipe.patience),
            checkpoint=checkpoint,
            memory={"curves": curves.rows},
        )
    manifest = ClassifierManifest(
        classes=examples.classes,
        mean=start.mean,
        std=start.std,
        resize=examples.resize,
        crop=examples.crop,
        training={**identity, "steps_done": done},
        scores={"images": float(len(index)), **task.scores(network, index)},
    )
    write_network(out, manifest, network)
    checkpoint.path.unlink(missing_ok=True)
    return manifest


@dataclass(frozen=True)
class ClassifierTask:
    """What a step is given and minimises, and how a network is judged."""

    start: LoadedNetwork
    examples: Examples
    recipe: ClassifierRecipe
    device: torch.device

    def batches(self, fitted: Labels) -> Callable[[int], ClassifierBatch]:
        """Step -> its images, every class alike, varied at random."""
        labels, recipe = self.examples.labels, self.recipe
        vary = AUGMENTATIONS[recipe.augment]
        order = balanced(labels[fitted], recipe.batch, recipe.seed)

        def batch(step: int) -> ClassifierBatch:
            index = fitted[order(step)]
            read = self.examples.images.batch(index, self.device)
            return ClassifierBatch(vary(read, step, recipe.seed), labels[index].to(self.device), step)

        return batch

    def loss(self, network: nn.Module, batch: ClassifierBatch) -> Row:
        """Cross-entropy, per image."""
        with seeded(self.recipe.seed, batch.step, self.device):
            logits = self.logits(network, batch.images)
        return cross_entropy(log_prob(logits, batch.labels))

    def scores(self, network: nn.Module, index: Labels) -> dict[str, float]:
        """What the network makes of images as they are."""
        labels, found = self.examples.labels[index], list[Tensor]()
        with torch.no_grad():
            for batch in self.examples.images.batches(index, self.recipe.batch, self.device):
                found.append(self.logits(network, batch.images).float().cpu())
        logits = torch.cat(found)
        counts = confusion(labels, logits.argmax(1), len(self.examples.classes))
        return {
            "cross_entropy": cross_entropy(log_prob(logits, labels)).mean().item(),
            "accuracy": accuracy(counts).value,
            "balanced_accuracy": balanced_accuracy(counts).value,
        }

    def logits(self, network: nn.Module, images: Images) -> Logits:
        """UnderfireError where the network answers with more than logits, or with those of other classes."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.start.mean, self.start.std))
        output: Any = network(((images - mean) / std).contiguous(memory_format=torch.channels_last))
        if not isinstance(output, Tensor) or output.shape != (len(images), len(self.examples.classes)):
            raise UnderfireError(
                f"This network does not answer with one logit for each of {len(self.examples.classes)} classes; choose "
                "another, or let the function that builds it take num_classes."
            )
        return output


def _identify(start: LoadedNetwork, examples: Examples, recipe: ClassifierRecipe) -> dict[str, Any]:
    """What two trainings share that lead to the same classifier."""
    weights = hashlib.blake2b(f"{type(start.net).__name__}{start.mean}{start.std}".encode(), digest_size=8)
    for name, value in start.net.state_dict().items():
        weights.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    held = {"start": weights.hexdigest(), "images": examples.images.digest, "classes": list(examples.classes)}
    return {**recipe.model_dump(), **held}


def _finished(out: Path, identity: dict[str, Any]) -> ClassifierManifest:
    """The classifier that this very training has left; UnderfireError if it is another's."""
    manifest = read_manifest(out, ClassifierManifest)
    if manifest is None:
        raise UnderfireError(f"{out} contains no classifier that was trained here; choose another --out.")
    check_same_training(f"{out} holds a classifier", manifest.training, identity)
    return manifest
