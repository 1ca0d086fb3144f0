"""What a spec means: rows of a stage, computed from those of the stages that it needs.

    for ids, tensors in compute(spec, inputs, context): ...
    for ids, tensors in compute_as_fits(spec, inputs, context): ...      # in smaller batches where memory is short

A pure function of rows: it knows no store, and is the same wherever it is called. What `inputs` are is said by
`underfire.runs.needs`; `underfire.runs.driver` reads them and stores what comes out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import singledispatch
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from underfire.attacks import engine
from underfire.attacks.engine import Progress
from underfire.attacks.suite import random_points
from underfire.attacks.target_classes import check_targets
from underfire.attacks.target_maps import Pool, Wanted
from underfire.core import rng
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import is_constant, to_8bit
from underfire.core.losses import confidence
from underfire.core.types import Goal, Images, Labels, Logits, Samples
from underfire.detection.scores import Seen, Shown, shown
from underfire.interpreters.proposition import both_sides
from underfire.interpreters.protocol import Blind, Explainer, check_maps, explained
from underfire.interpreters.randomize import DEPTHS, randomized, rebind
from underfire.metrics.maps import compare_maps, linf, map_l1
from underfire.models.classifier import Classifier
from underfire.models.noise import Trial, disturbed
from underfire.runs.needs import StageInputs, crafted, left_of
from underfire.runs.specs import (
    Believed,
    Bound,
    CalibratedNoise,
    Craft,
    Detect,
    Explain,
    ExplainElsewhere,
    ExplainRandomised,
    Identified,
    Pictured,
    RandomPoints,
    Repeat,
    Reported,
    Saved,
    SignNoise,
    TargetClasses,
    TargetMaps,
    Vary,
)

Rows = Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]  # some ids and their row tensors, ready to be stored


@dataclass(frozen=True)
class Context:
    """What stages are computed with; batch_size is the number of images worked on at a time.

    `on_step` hears of the progress, `on_pause` how far images are that have no rows yet, and `on_notice` whatever else
    there is to say, in one sentence.
    """

    classifier: Classifier
    batch_size: int
    on_step: Callable[[Progress], None] = lambda progress: None
    on_pause: Callable[[engine.Paused], None] = lambda paused: None
    on_notice: Callable[[str], None] = lambda sentence: None


@contextmanager
def in_one_sentence(beginning: str) -> Iterator[None]:
    """Turn whatever a user's model raises into an UnderfireError that says what was tried."""
    try:
        yield
    except UnderfireError:
        raise
    except Exception as problem:
        raise UnderfireError(f"{beginning}: {problem}") from problem


def targets_of(spec: TargetClasses, batches: Iterable[Samples], classifier: Classifier) -> Labels:
    """The target classes of chosen images; UnderfireError where one is not another class."""
    found = [(each.ids, each.labels, logits_of(classifier, each.images)) for each in batches]
    names, labels_of_each, logits_of_each = zip(*found, strict=True)
    labels, logits = torch.cat(labels_of_each), torch.cat(logits_of_each)
    target = spec.rule.choose(tuple(chain(*names)), labels, logits, spec.seed)
    return check_targets(target, labels, logits.shape[1])


def logits_of(classifier: Classifier, images: Images) -> Logits:
    """From images in memory to logits in memory, without a graph."""
    with torch.no_grad():
        return classifier(images.to(classifier.device)).cpu()


def compute_as_fits(spec: Identified, inputs: StageInputs, context: Context) -> Rows:
    """What `compute` gives; where the device's memory does not hold a batch, what is left goes on with half of it.

    UnderfireError if it holds not even one image.
    """
    left, done = inputs, set[str]()
    while True:
        try:
            for ids, tensors in compute(spec, left, context):
                yield ids, tensors
                done.update(ids)
            return
        except torch.OutOfMemoryError as problem:
            if context.batch_size == 1:
                raise UnderfireError("The device's memory does not hold what a single image takes.") from problem
        torch.cuda.empty_cache()
        half = context.batch_size // 2
        context.on_notice(
            f"Memory does not hold {context.batch_size} images at a time; going on with {half} (--batch)."
        )
        left, context = left_of(spec, inputs, done), replace(context, batch_size=half)


@singledispatch
def compute(spec: Any, inputs: StageInputs, context: Context) -> Rows:
    """The rows of the images at hand, as soon as some are there."""
    raise TypeError(f"{type(spec).__name__} cannot be computed from ids")


@compute.register
def _(spec: TargetClasses, inputs: StageInputs, context: Context) -> Rows:
    batches = (
        Samples(inputs.ids[chunk], inputs["image"][chunk], inputs["label"][chunk])
        for chunk in _chunks(inputs.ids, context.batch_size)
    )
    yield inputs.ids, {"target": targets_of(spec, batches, context.classifier)}


@compute.register
def _(spec: RandomPoints, inputs: StageInputs, context: Context) -> Rows:
    keys = rng.image_keys(inputs.ids)
    yield inputs.ids, {"theta": random_points(spec.perturbation, inputs["image"], keys, spec.seed, spec.start)}


@compute.register
def _(spec: TargetMaps, inputs: StageInputs, context: Context) -> Rows:
    keys = rng.image_keys(inputs.ids)
    pool = Pool(rng.image_keys(inputs.pool or inputs.ids), inputs["label"], inputs["benign"])
    maps, donors = spec.rule.maps(Wanted(keys, inputs["target"], pool), spec.seed)
    yield inputs.ids, {"map": maps, "constant": is_constant(maps), "donor": donors}


@compute.register
def _(spec: Explain, inputs: StageInputs, context: Context) -> Rows:
    yield from _maps(spec.interpreter, context.classifier, _images(spec.of, inputs), spec.draw, inputs, context)


@compute.register
def _(spec: ExplainElsewhere, inputs: StageInputs, context: Context) -> Rows:
    images = _images(spec.of, inputs)
    maps = _maps(spec.interpreter, context.classifier, images, spec.draw, inputs, context)
    for chunk, (part, rows) in zip(_chunks(inputs.ids, context.batch_size), maps, strict=True):
        yield part, {**rows, "predicted": logits_of(context.classifier, images[chunk]).argmax(1)}


@compute.register
def _(spec: Repeat, inputs: StageInputs, context: Context) -> Rows:
    renamed = StageInputs(inputs.ids, {"class": inputs["label"]})
    maps = _maps(spec.of.interpreter, context.classifier, inputs["image"], spec.draw, renamed, context)
    for chunk, (part, rows) in zip(_chunks(inputs.ids, context.batch_size), maps, strict=True):
        yield part, {"map_l1": map_l1(rows["map"].cpu(), inputs["benign"][chunk])}


@compute.register
def _(spec: ExplainRandomised, inputs: StageInputs, context: Context) -> Rows:
    classifier, x = context.classifier, inputs["image"][:1].to(context.classifier.device)
    with suppress(UnderfireError):  # found while the weights still mean something; not every interpreter needs them
        classifier.locate_features(x)
    randomized_model = randomized(classifier, DEPTHS[spec.depth](classifier, x), spec.seed)
    interpreter = rebind(spec.interpreter, randomized_model)
    renamed = StageInputs(inputs.ids, {"class": inputs["label"]})
    yield from _maps(interpreter, randomized_model, inputs["image"], 0, renamed, context)


@compute.register
def _(spec: Vary, inputs: StageInputs, context: Context) -> Rows:
    drawn, classifier = rng.image_keys(inputs.ids), context.classifier

    def of(chunk: slice) -> Mapping[str, Tensor]:
        y, keys = (rows[chunk].to(classifier.device) for rows in (inputs["label"], drawn))
        found = []
        for change in spec.changes:
            x = change(inputs["image"][chunk], drawn[chunk]).to(classifier.device)
            maps = spec.of.interpreter.explain(classifier, x, y, keys).float().cpu()
            found.append(compare_maps(maps, change.moved(inputs["benign"][chunk])))
        return {name: torch.stack([each[name] for each in found], dim=1) for name in ("map_l1", "iou_mean")}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Believed, inputs: StageInputs, context: Context) -> Rows:
    attack, classifier = crafted(spec.of).attack, context.classifier
    drawn = rng.derived(rng.image_keys(inputs.ids), "belief", torch.zeros(len(inputs.ids), dtype=torch.int64))

    def of(chunk: slice) -> Mapping[str, Tensor]:
        x, y, keys = (rows[chunk].to(classifier.device) for rows in (inputs["image"], inputs["target"], drawn))
        belief = attack.interpreter.begin(classifier, x, y, keys)
        for _ in range(attack.quantum):
            belief = attack.interpreter.advance(classifier, belief, x, y)
        with torch.enable_grad():
            maps = attack.interpreter.read(classifier, belief, x.requires_grad_(), y).maps.detach().mean(1)
        return {"map_l1": map_l1(maps.cpu(), inputs["map"][chunk])}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: SignNoise, inputs: StageInputs, context: Context) -> Rows:
    benign, crafted = inputs["benign"], inputs["image"]
    keys, shape = rng.image_keys(inputs.ids), benign.shape[1:]
    draws = rng.uniform(spec.seed, "noise", keys, torch.zeros_like(keys), shape.numel())
    signs = (draws - 0.5).sign().view(-1, *shape).to(benign.dtype)
    noisy = (benign + linf(crafted, benign).view(-1, 1, 1, 1) * signs).clamp(0, 1)

    def of(chunk: slice) -> Mapping[str, Tensor]:
        return {"image": noisy[chunk], "predicted": logits_of(context.classifier, noisy[chunk]).argmax(1)}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: CalibratedNoise, inputs: StageInputs, context: Context) -> Rows:
    among, labels, pool = inputs.on_demand["pool's image"], inputs["pool's label"], rng.image_keys(inputs.pool)
    trial = Trial(context.classifier, among.__getitem__, labels, pool, spec.kind, spec.seed, context.batch_size)
    sigma = trial.calibrate(spec.level)
    images, keys = inputs.on_demand["image"], rng.image_keys(inputs.ids)

    def of(chunk: slice) -> Mapping[str, Tensor]:
        noisy = disturbed(images[chunk], spec.kind, keys[chunk], sigma, spec.seed)
        deviation = torch.full((len(noisy),), sigma, dtype=torch.float64)
        return {"image": noisy, "predicted": logits_of(context.classifier, noisy).argmax(1), "sigma": deviation}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Bound, inputs: StageInputs, context: Context) -> Rows:
    parts = [inputs[name] for name in ("image", "benign", "target")]

    def of(chunk: slice) -> Mapping[str, Tensor]:
        x, x0, target = (rows[chunk].to(context.classifier.device) for rows in parts)
        return vars(both_sides(context.classifier, x, x0, target, spec.quadrature))

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Saved, inputs: StageInputs, context: Context) -> Rows:
    images = _images(spec, inputs)

    def of(chunk: slice) -> Mapping[str, Tensor]:
        logits = logits_of(context.classifier, images[chunk])
        predicted = logits.argmax(1)
        wanted = inputs["target"][chunk] if "target" in inputs.tensors else predicted
        return {"predicted": predicted, "confidence": confidence(logits, wanted)}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Reported, inputs: StageInputs, context: Context) -> Rows:
    keys, images = rng.image_keys(inputs.ids), to_8bit(inputs["image"])

    def of(chunk: slice) -> Mapping[str, Tensor]:
        found = shown(spec.interpreter, context.classifier, images[chunk], keys[chunk])
        return {"map": found.maps.float(), "constant": is_constant(found.maps), "predicted": found.reported}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Detect, inputs: StageInputs, context: Context) -> Rows:
    keys, images, count = rng.image_keys(inputs.ids), to_8bit(inputs["image"]), len(spec.scorer.interpreters)
    maps = [(inputs[f"predicted {i}"], inputs[f"map {i}"]) for i in range(count)]

    def of(chunk: slice) -> Mapping[str, Tensor]:
        seen = Seen(images[chunk], keys[chunk], tuple(Shown(y[chunk], m[chunk]) for y, m in maps))
        return {"score": spec.scorer.scores(context.classifier, seen)}

    yield from _by_chunks(inputs.ids, context, of)


@compute.register
def _(spec: Craft, inputs: StageInputs, context: Context) -> Rows:
    keys, image, target = rng.image_keys(inputs.ids), inputs["image"], inputs["target"]
    goal_map = Blind().explain(context.classifier, image, target, keys) if spec.goal is None else inputs["goal"]
    given = {name: inputs.tensors.get(name) for name in ("anchor", "noise")}
    region = None if spec.region is None else spec.region.inside(inputs.ids, *image.shape[2:])
    goal = Goal(keys, image, target, goal_map, region=region, **given)
    running = (spec.attack, context.classifier, goal, context.batch_size, context.on_step, inputs.tensors.get("start"))
    for index, outcome in engine.stream(*running, inputs.paused, context.on_pause):
        yield tuple(inputs.ids[i] for i in index.tolist()), vars(outcome)


def _images(of: Pictured, inputs: StageInputs) -> Images:
    """The images at hand; those that were saved as their file gives them back."""
    return of.form(inputs["image"], rng.image_keys(inputs.ids)) if isinstance(of, Saved) else inputs["image"]


def _maps(
    interpreter: Explainer, classifier: Classifier, images: Images, draw: int, inputs: StageInputs, context: Context
) -> Rows:
    drawn, ids = rng.image_keys(inputs.ids, draw), inputs.ids

    def of(chunk: slice) -> Mapping[str, Tensor]:
        x, y, keys = (rows[chunk].to(classifier.device) for rows in (images, inputs["class"], drawn))
        maps = check_maps(interpreter.name, explained(interpreter, classifier, x, y, keys), ids[chunk])
        return {"map": maps.float(), "constant": is_constant(maps)}

    yield from _by_chunks(ids, context, of)


def _by_chunks(ids: tuple[str, ...], context: Context, of: Callable[[slice], Mapping[str, Tensor]]) -> Rows:
    """The rows of each batch as soon as they are there, reporting how many are done."""
    for chunk in _chunks(ids, context.batch_size):
        yield ids[chunk], of(chunk)
        context.on_step(Progress(chunk.stop, 0, chunk.stop, len(ids)))


def _chunks(ids: tuple[str, ...], batch_size: int) -> Iterator[slice]:
    return (slice(start, min(start + batch_size, len(ids))) for start in range(0, len(ids), batch_size))
