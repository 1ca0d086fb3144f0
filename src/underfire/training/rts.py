"""Train RTS's masker on images of its classifier (Eq. 8).

    training_set = read_training_set(open_images("photos", crop=224))
    masker = train_masker(FeatureExtractor(classifier), training_set, MaskerRecipe(steps=1000), Path("x.safetensors"))

Per image, with the class c that the classifier reports and phi(x; m) = m x + (1 - m) background,

    l = w_roughness TV(m) + w_area mean(m) - log p_c(phi(x; m)) + w_removed p_c(phi(x; 1 - m))^power

where the background is, drawn per image and step, a colour, noise, or the strongly blurred image. TV is the mean
squared difference of neighbouring cells. On held-out images the background is the blurred image alone.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from underfire.core import rng
from underfire.core.image_ops import blur, cell_grid, resize
from underfire.core.losses import confidence, mask_terms
from underfire.core.types import Images, Labels, Logits, Maps, Row
from underfire.interpreters.rts import EncoderScale, find_scales
from underfire.metrics.maps import above_mean, boxes, iou
from underfire.models.classifier import Classifier
from underfire.models.files import Encoder, MaskerManifest, write_network
from underfire.models.masker import Masker, MaskerNetwork, Pyramid, read_masker
from underfire.runs.compute import in_one_sentence
from underfire.training.dataset import Batch, TrainingSet, augmented, split
from underfire.training.loop import Checkpoint, HeldOut, check_same_training, fit, initialised, shuffled
from underfire.training.recipes import MaskerRecipe

MEASURED = 256  # images whose features are measured before the training
BLUR = 0.1  # deviation of the blurred background, in image sides

Answers = Float[Tensor, "n _"]  # logits of an encoder, whose classes need not be the classifier's
Scores = dict[str, float | None]


@dataclass(frozen=True)
class FeatureExtractor:
    """A classifier and, where its masker is not to see through the classifier's own features, another network.

    source is that network's reference, weights and normalisation, for the manifest.
    """

    classifier: Classifier
    encoder: Classifier | None = None
    source: tuple[str | None, str | None, str | None] = (None, None, None)

    def __call__(self, x: Images, layers: tuple[str, ...]) -> tuple[Logits, Pyramid, Answers]:
        """The classifier's logits, the encoder's features and logits, without a graph."""
        with torch.no_grad():
            of_encoder, features = (self.encoder or self.classifier).tap(x, layers)
            logits = of_encoder if self.encoder is None else self.classifier(x)
        return logits, [f.float() for f in features], of_encoder

    @property
    def fingerprint(self) -> str | None:
        return None if self.encoder is None else self.encoder.fingerprint()


def train_masker(
    extractor: FeatureExtractor,
    training_set: TrainingSet,
    recipe: MaskerRecipe,
    out: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> Masker:
    """Train, judge and write a masker, going on from its checkpoint; one that is already there is only read.

    UnderfireError if `out` holds another masker, or if there are no features to see through.
    """
    identity = identify(extractor, training_set, recipe)
    if out.exists():
        return finished(out, identity)
    device = extractor.classifier.device
    fitted, judged = split(training_set.ids, recipe.held_out, recipe.seed)
    with in_one_sentence(
        f"The model failed on images of {'×'.join(map(str, training_set.pixels.shape[:1:-1]))} pixels"
    ):
        network, encoder = prepare(extractor, training_set, fitted[:MEASURED], recipe)

    def loss(network: MaskerNetwork, batch: Batch) -> Row:
        return recipe.total(eq8(extractor, encoder, network, batch, recipe))

    def score(network: MaskerNetwork) -> float:
        rows = [loss(network, each) for each in training_set.batches(judged, recipe.batch, device)]
        return torch.cat(rows).mean().item()

    def scores(network: MaskerNetwork) -> Scores:
        return measure(extractor, encoder, network, training_set.batches(judged, recipe.batch, device))

    manifest = MaskerManifest(
        classifier=extractor.classifier.fingerprint(),
        classes=len(network.embedding),
        encoder=encoder,
        width=recipe.width,
        training={**identity, "size": list(training_set.pixels.shape[2:])},
    )
    task = MaskerTask(identity, manifest, moving(training_set, fitted, recipe, device), loss, score, scores)
    return follow(task, network, recipe, out, on_step)


@dataclass(frozen=True)
class MaskerTask:
    """A training of a masker: its identity, what its file says but for the scores, what its steps are given and
    minimise, the number by which networks are compared, and the scores of the one that is kept."""

    identity: Mapping[str, Any]
    manifest: MaskerManifest
    batch: Callable[[int], Any]
    loss: Callable[[MaskerNetwork, Any], Row]
    score: Callable[[MaskerNetwork], float]
    scores: Callable[[MaskerNetwork], Scores]
    memory: Mapping[str, Tensor] = field(default_factory=dict)


def follow(
    task: MaskerTask,
    network: MaskerNetwork,
    recipe: MaskerRecipe,
    out: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> Masker:
    """Train the network, going on from its checkpoint, and write it with its manifest."""
    checkpoint = Checkpoint(out.with_suffix(".checkpoint"), json.dumps(task.identity))
    done = fit(
        network,
        task.batch,
        task.loss,
        steps=recipe.steps,
        lr=recipe.lr,
        on_step=on_step,
        held_out=HeldOut(task.score, recipe.judge_every, recipe.patience),
        checkpoint=checkpoint,
        memory=task.memory,
    )
    training = {**task.manifest.training, "steps_done": done}
    manifest = task.manifest.model_copy(update={"training": training, "scores": task.scores(network)})
    write_network(out, manifest, network)
    checkpoint.path.unlink(missing_ok=True)
    return read_masker(out)


def moving(
    training_set: TrainingSet, fitted: Labels, recipe: MaskerRecipe, device: torch.device
) -> Callable[[int], Batch]:
    """Step -> its images, mirrored and shifted at random."""
    order = shuffled(len(fitted), min(recipe.batch, len(fitted)), recipe.seed)
    return lambda step: augmented(training_set.batch(fitted[order(step)], device), step, recipe.seed)


def identify(extractor: FeatureExtractor, training_set: TrainingSet, recipe: MaskerRecipe) -> dict[str, Any]:
    """What two trainings share that lead to the same masker."""
    models = {"classifier": extractor.classifier.fingerprint(), "encoder": extractor.fingerprint}
    return {**recipe.model_dump(), **models, "images": training_set.digest}


def finished(out: Path, identity: Mapping[str, Any]) -> Masker:
    """The masker that this very training has left; UnderfireError if it is another's."""
    masker = read_masker(out)
    check_same_training(f"{out} holds a masker", masker.manifest.training, identity)
    return masker


# --- before the first step --------------------------------------------------------------------


def prepare(
    extractor: FeatureExtractor, training_set: TrainingSet, index: Labels, recipe: MaskerRecipe
) -> tuple[MaskerNetwork, Encoder]:
    """A network of random weights that has measured its features on some images, and where those come from."""
    device = extractor.classifier.device
    scales = find_scales(extractor.encoder or extractor.classifier, training_set.batch(index[:1], device).images)
    layers, channels = tuple(s.layer for s in scales), tuple(s.channels for s in scales)
    logits, features, of_encoder = _measured(extractor, scales, training_set.batches(index, recipe.batch, device))
    y, classes = logits.argmax(1), logits.shape[1]
    agreeing = of_encoder.shape == logits.shape and (of_encoder.argmax(1) == y).float().mean().item() > 0.5
    network = initialised(lambda: MaskerNetwork(channels, classes, recipe.width, not agreeing), recipe.seed)
    network.measure(features)
    if network.prototypes is not None:
        pooled = network.pool(features[0])
        known = [pooled[y == c].mean(0) if bool((y == c).any()) else pooled.mean(0) for c in range(classes)]
        network.prototypes.copy_(torch.stack(known))
    reference, weights, normalize = extractor.source
    encoder = Encoder(
        layers=layers,
        channels=channels,
        fingerprint=extractor.fingerprint,
        reference=reference,
        weights=weights,
        normalize=normalize,
        shares_classes=agreeing,
    )
    if device.type == "cpu":
        network = network.to(memory_format=torch.channels_last)
    return network.to(device), encoder


def _measured(
    extractor: FeatureExtractor, scales: tuple[EncoderScale, ...], batches: Iterator[Batch]
) -> tuple[Logits, Pyramid, Answers]:
    """Logits, features and the encoder's logits of some images, in memory."""
    seen = [extractor(batch.images, tuple(s.layer for s in scales)) for batch in batches]
    logits, features, of_encoder = zip(*seen, strict=True)
    gathered = [torch.cat([f.cpu() for f in each]) for each in zip(*features, strict=True)]
    return torch.cat(logits).cpu(), gathered, torch.cat(of_encoder).cpu()


# --- one look at some images ------------------------------------------------------------------


def eq8(
    extractor: FeatureExtractor, encoder: Encoder, network: MaskerNetwork, batch: Batch, recipe: MaskerRecipe
) -> dict[str, Row]:
    """The terms of Eq. 8; kept and removed part take one forward pass together."""
    logits, features, _ = extractor(batch.images, encoder.layers)
    y = logits.argmax(1)
    masks = masks_of(network, features, y, batch.images)
    parts = torch.cat(blended(batch.images, masks, background(batch, recipe.seed)))
    kept, removed = extractor.classifier(parts).chunk(2)
    return mask_terms(masks, kept, removed, y, recipe.power)


def masks_of(network: MaskerNetwork, features: Pyramid, y: Labels, x: Images) -> Maps:
    masks: Tensor = network(features, y, *cell_grid(x))
    return masks


def blended(x: Images, masks: Maps, background: Images) -> tuple[Images, Images]:
    """phi(x; m) and phi(x; 1 - m)."""
    full = resize(masks[:, None], x.shape[2], x.shape[3])
    return torch.lerp(background, x, full), torch.lerp(x, background, full)


def background(batch: Batch, seed: int) -> Images:
    """The strongly blurred image; while training also, one time in four each, a colour or a noisy colour."""
    x = batch.images
    blurred = blur(x, BLUR * min(x.shape[2:])).clamp(0, 1)
    if batch.step is None:
        return blurred
    step = torch.full_like(batch.keys, batch.step)
    kind = rng.integers(seed, "background", batch.keys, step, 1, 4)[:, :, None, None]
    colour = rng.uniform(seed, "colour", batch.keys, step, 3).to(x.dtype)[:, :, None, None].expand_as(x)
    noise = rng.uniform(seed, "noise", batch.keys, step, x[0].numel()).to(x.dtype).view_as(x) - 0.5
    noisy = (colour + 0.4 * noise).clamp(0, 1)
    return torch.where(kind == 0, colour, torch.where(kind == 1, noisy, blurred))


# --- held-out score ---------------------------------------------------------------------------


def measure(extractor: FeatureExtractor, encoder: Encoder, network: MaskerNetwork, batches: Iterator[Batch]) -> Scores:
    """Means over images: mask area; confidence of the whole image, of what the mask keeps, of what is left without
    that, and of the blurred image; where objects are known the share of boxes around masks that miss them."""
    rows: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, values in _scored(extractor, encoder, network, batch):
            rows.setdefault(name, []).append(values.double().cpu())
    joined = {name: torch.cat(values) for name, values in rows.items()}
    return {"images": float(len(joined["area"])), **{name: row.mean().item() for name, row in joined.items()}}


def _scored(
    extractor: FeatureExtractor, encoder: Encoder, network: MaskerNetwork, batch: Batch
) -> Iterator[tuple[str, Row]]:
    x, blurred = batch.images, background(batch, seed=0)
    with torch.no_grad():
        logits, features, _ = extractor(x, encoder.layers)
        y = logits.argmax(1)
        masks = masks_of(network, features, y, x)
        kept, removed = blended(x, masks, blurred)
        yield "area", masks.mean((1, 2))
        yield "whole", confidence(logits, y)
        for name, images in {"kept": kept, "removed": removed, "blurred": blurred}.items():
            yield name, confidence(extractor.classifier(images), y)
    if batch.objects is not None:
        found = above_mean(resize(masks[:, None], x.shape[2], x.shape[3])[:, 0])
        yield "localisation_error", (iou(boxes(found), boxes(batch.objects)) <= 0.5).float()
