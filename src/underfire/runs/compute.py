"""What a spec means: the rows of a stage, computed from those of the stages it names.

`run_stage(spec, ids, context)` computes and stores the rows that the store does not hold yet; every worker
calls this one function. Only the choice of the images comes before: `choose` and `keep`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial, singledispatch
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
from underfire.core.image_ops import is_constant
from underfire.core.losses import confidence
from underfire.core.types import Goal, Images, Keys, Labels, Logits, Samples
from underfire.data.image_set import ImageSet
from underfire.data.selection import Encounter, LocatedObjects, Selection, locate, meet, select
from underfire.detection.scores import Seen, Shown, shown
from underfire.interpreters.proposition import both_sides
from underfire.interpreters.protocol import Blind, Explainer, check_maps, explained
from underfire.interpreters.randomize import DEPTHS, randomized, rebind
from underfire.metrics.maps import compare_maps, linf
from underfire.models.classifier import Classifier
from underfire.models.noise import Trial, disturbed
from underfire.runs.specs import (
    Bound,
    CalibratedNoise,
    Craft,
    Detect,
    Explain,
    ExplainElsewhere,
    ExplainRandomised,
    Locate,
    Meet,
    Pictured,
    RandomPoints,
    Reported,
    Saved,
    Select,
    SignNoise,
    Spec,
    TargetClasses,
    TargetMaps,
    Vary,
    describe,
    key,
)
from underfire.runs.store import Store

Rows = Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]  # some ids and their row tensors, ready to be stored


@dataclass(frozen=True)
class Context:
    """What stages are computed with and where they go; batch_size is the number of images worked on at a time."""

    classifier: Classifier
    store: Store
    batch_size: int
    on_step: Callable[[Progress], None] = lambda progress: None


@contextmanager
def in_one_sentence(beginning: str) -> Iterator[None]:
    """Turn whatever a user's model raises into an UnderfireError that says what was tried."""
    try:
        yield
    except UnderfireError:
        raise
    except Exception as problem:
        raise UnderfireError(f"{beginning}: {problem}") from problem


def choose(spec: Select, image_set: ImageSet, classifier: Classifier) -> Selection:
    """The images of a run; UnderfireError if the model cannot classify them."""
    return select(partial(_classify, classifier), image_set, spec.n, spec.seed)


def encounter(spec: Meet, image_set: ImageSet, classifier: Classifier) -> Encounter:
    """The images that would be come by; UnderfireError if the model cannot classify them."""
    return meet(partial(_classify, classifier), image_set, spec.n, spec.seed)


def find(spec: Locate, image_set: ImageSet, masks: ImageSet, classifier: Classifier) -> tuple[LocatedObjects, Labels]:
    """The images of a run with their objects, and their classes as the classifier reports them."""
    located = locate(image_set, masks, spec.n, spec.seed)
    predicted = [_classify(classifier, chunk).argmax(1) for chunk in torch.split(located.samples.images, 16)]
    return located, torch.cat(predicted)


def keep(spec: Select | Meet | Locate, samples: Samples, store: Store, **further: Tensor) -> None:
    """Store the chosen images that the store lacks with their labels and further row tensors."""
    held = set(store.done(key(spec)))
    new = [i for i, name in enumerate(samples.ids) if name not in held]
    if new:
        rows = {"image": samples.images, "label": samples.labels, **further}
        store.create(key(spec), describe(spec))
        store.append(key(spec), [samples.ids[i] for i in new], {name: values[new] for name, values in rows.items()})


def targets_of(spec: TargetClasses, samples: Samples, classifier: Classifier, batch_size: int) -> Labels:
    """The target classes of chosen images; UnderfireError where one is not another class."""
    chunks = _chunks(samples.ids, batch_size)
    logits = torch.cat([_logits(classifier, samples.images[chunk]) for chunk in chunks])
    target = spec.rule.choose(samples.ids, samples.labels, logits, spec.seed)
    return check_targets(target, samples.labels, logits.shape[1])


def run_stage(spec: Spec, ids: tuple[str, ...], context: Context) -> bool:
    """Compute and store the rows of these ids that the store lacks; False if it lacks none."""
    name = key(spec)
    missing = set(ids) - set(context.store.done(name))
    if missing:
        context.store.create(name, describe(spec))
        for chunk, tensors in _compute(spec, tuple(i for i in ids if i in missing), context):
            context.store.append(name, chunk, tensors)
    return bool(missing)


@singledispatch
def _compute(spec: Any, ids: tuple[str, ...], context: Context) -> Rows:
    raise TypeError(f"{type(spec).__name__} cannot be computed from ids")


@_compute.register
def _(spec: TargetClasses, ids: tuple[str, ...], context: Context) -> Rows:
    image, label = (context.store.read(key(spec.of), name, ids) for name in ("image", "label"))
    yield ids, {"target": targets_of(spec, Samples(ids, image, label), context.classifier, context.batch_size)}


@_compute.register
def _(spec: RandomPoints, ids: tuple[str, ...], context: Context) -> Rows:
    image = context.store.read(key(spec.of), "image", ids)
    yield ids, {"theta": random_points(spec.perturbation, image, rng.image_keys(ids), spec.seed, spec.start)}


@_compute.register
def _(spec: TargetMaps, ids: tuple[str, ...], context: Context) -> Rows:
    chosen = context.store.done(key(spec.of.of))[: spec.among]
    labels = context.store.read(key(spec.of.of), "label", chosen)
    benign = context.store.read(key(spec.benign), "map", chosen)
    target = context.store.read(key(spec.of), "target", ids)
    wanted = Wanted(rng.image_keys(ids), target, Pool(rng.image_keys(chosen), labels, benign))
    maps, donors = spec.rule.maps(wanted, spec.seed)
    yield ids, {"map": maps, "constant": is_constant(maps), "donor": donors}


@_compute.register
def _(spec: Explain, ids: tuple[str, ...], context: Context) -> Rows:
    images, classes = _images(spec.of, ids, context.store), _explained(spec.of, ids, context.store)
    drawn = rng.image_keys(ids, spec.draw)
    yield from _maps(spec.interpreter, context.classifier, ids, images, classes, drawn, context)


@_compute.register
def _(spec: Vary, ids: tuple[str, ...], context: Context) -> Rows:
    images, labels = (context.store.read(key(spec.of.of), name, ids) for name in ("image", "label"))
    benign = context.store.read(key(spec.of), "map", ids)
    drawn, classifier = rng.image_keys(ids), context.classifier

    def compute(chunk: slice) -> Mapping[str, Tensor]:
        y, keys = (rows[chunk].to(classifier.device) for rows in (labels, drawn))
        found = []
        for change in spec.changes:
            x = change(images[chunk], drawn[chunk]).to(classifier.device)
            maps = spec.of.interpreter.explain(classifier, x, y, keys).float().cpu()
            found.append(compare_maps(maps, change.moved(benign[chunk])))
        return {name: torch.stack([each[name] for each in found], dim=1) for name in ("map_l1", "iou_mean")}

    yield from _by_chunks(ids, context, compute)


@_compute.register
def _(spec: ExplainElsewhere, ids: tuple[str, ...], context: Context) -> Rows:
    images, classes = _images(spec.of, ids, context.store), _explained(spec.of, ids, context.store)
    drawn = rng.image_keys(ids, spec.draw)
    maps = _maps(spec.interpreter, context.classifier, ids, images, classes, drawn, context)
    for chunk, (part, rows) in zip(_chunks(ids, context.batch_size), maps, strict=True):
        yield part, {**rows, "predicted": _logits(context.classifier, images[chunk]).argmax(1)}


@_compute.register
def _(spec: SignNoise, ids: tuple[str, ...], context: Context) -> Rows:
    benign, crafted = (context.store.read(key(of), "image", ids) for of in (spec.of.of.of, spec.of))
    keys, shape = rng.image_keys(ids), benign.shape[1:]
    draws = rng.uniform(spec.seed, "noise", keys, torch.zeros_like(keys), shape.numel())
    signs = (draws - 0.5).sign().view(-1, *shape).to(benign.dtype)
    noisy = (benign + linf(crafted, benign).view(-1, 1, 1, 1) * signs).clamp(0, 1)
    for chunk in _chunks(ids, context.batch_size):
        yield ids[chunk], {"image": noisy[chunk], "predicted": _logits(context.classifier, noisy[chunk]).argmax(1)}


@_compute.register
def _(spec: CalibratedNoise, ids: tuple[str, ...], context: Context) -> Rows:
    chosen = context.store.done(key(spec.of))[: spec.among]
    images, labels = (context.store.read(key(spec.of), name, chosen) for name in ("image", "label"))
    drawn = (rng.image_keys(chosen), spec.kind, spec.seed)
    sigma = Trial(context.classifier, images, labels, *drawn, context.batch_size).calibrate(spec.level)
    images = context.store.read(key(spec.of), "image", ids)
    noisy = disturbed(images, spec.kind, rng.image_keys(ids), sigma, spec.seed)
    for chunk in _chunks(ids, context.batch_size):
        rows = {"image": noisy[chunk], "predicted": _logits(context.classifier, noisy[chunk]).argmax(1)}
        yield ids[chunk], {**rows, "sigma": torch.full((len(noisy[chunk]),), sigma, dtype=torch.float64)}


@_compute.register
def _(spec: Bound, ids: tuple[str, ...], context: Context) -> Rows:
    x, x0 = (context.store.read(key(of), "image", ids) for of in (spec.of, spec.targets.of))
    target = context.store.read(key(spec.targets), "target", ids)

    def compute(chunk: slice) -> Mapping[str, Tensor]:
        at, origin, y = (rows[chunk].to(context.classifier.device) for rows in (x, x0, target))
        return vars(both_sides(context.classifier, at, origin, y, spec.quadrature))

    yield from _by_chunks(ids, context, compute)


@_compute.register
def _(spec: ExplainRandomised, ids: tuple[str, ...], context: Context) -> Rows:
    images, labels = (context.store.read(key(spec.of), name, ids) for name in ("image", "label"))
    classifier, x = context.classifier, images[:1].to(context.classifier.device)
    with suppress(UnderfireError):  # found while the weights still mean something; not every interpreter needs them
        classifier.locate_features(x)
    randomized_model = randomized(classifier, DEPTHS[spec.depth](classifier, x), spec.seed)
    interpreter = rebind(spec.interpreter, randomized_model)
    yield from _maps(interpreter, randomized_model, ids, images, labels, rng.image_keys(ids), context)


@_compute.register
def _(spec: Saved, ids: tuple[str, ...], context: Context) -> Rows:
    images, target = _images(spec, ids, context.store), context.store.read(key(spec.of.of), "target", ids)

    def compute(chunk: slice) -> Mapping[str, Tensor]:
        logits = _logits(context.classifier, images[chunk])
        return {"predicted": logits.argmax(1), "confidence": confidence(logits, target[chunk])}

    yield from _by_chunks(ids, context, compute)


@_compute.register
def _(spec: Reported, ids: tuple[str, ...], context: Context) -> Rows:
    images, keys = context.store.read(spec.of, "image", ids), rng.image_keys(ids)

    def compute(chunk: slice) -> Mapping[str, Tensor]:
        found = shown(spec.interpreter, context.classifier, images[chunk], keys[chunk])
        return {"map": found.maps.float(), "constant": is_constant(found.maps), "predicted": found.reported}

    yield from _by_chunks(ids, context, compute)


@_compute.register
def _(spec: Detect, ids: tuple[str, ...], context: Context) -> Rows:
    images, keys = context.store.read(spec.of, "image", ids), rng.image_keys(ids)
    held = [key(Reported(spec.of, each)) for each in spec.scorer.interpreters]
    maps = [tuple(context.store.read(each, name, ids) for name in ("predicted", "map")) for each in held]

    def compute(chunk: slice) -> Mapping[str, Tensor]:
        seen = Seen(images[chunk], keys[chunk], tuple(Shown(classes[chunk], m[chunk]) for classes, m in maps))
        return {"score": spec.scorer.scores(context.classifier, seen)}

    yield from _by_chunks(ids, context, compute)


@_compute.register
def _(spec: Craft, ids: tuple[str, ...], context: Context) -> Rows:
    image = context.store.read(key(spec.of.of), "image", ids)
    target = context.store.read(key(spec.of), "target", ids)
    keys = rng.image_keys(ids)
    goal_map = (
        Blind().explain(context.classifier, image, target, keys)
        if spec.goal is None
        else context.store.read(key(spec.goal), "map", ids)
    )
    anchor = None if spec.anchor is None else context.store.read(key(spec.anchor), "probabilities", ids)
    goal = Goal(keys, image, target, goal_map, anchor)
    start = None if spec.start is None else context.store.read(key(spec.start), "theta", ids)
    paused, held = context.store.paused(key(spec))
    here = [place for place, name in enumerate(paused) if name in ids]
    resume = engine.Paused(
        tuple(ids.index(paused[place]) for place in here), {name: leaf[here] for name, leaf in held.items()}
    )

    def pause(at_work: engine.Paused) -> None:
        context.store.pause(key(spec), [ids[i] for i in at_work.index], at_work.rows)

    running = (spec.attack, context.classifier, goal, context.batch_size, context.on_step, start)
    for index, outcome in engine.stream(*running, resume, pause):
        yield tuple(ids[i] for i in index.tolist()), vars(outcome)
    context.store.forget(key(spec))


def _images(of: Pictured, ids: tuple[str, ...], store: Store) -> Images:
    """The images of a stage; those that were saved as their file gives them back."""
    if isinstance(of, Saved):
        return of.form(_images(of.of, ids, store), rng.image_keys(ids))
    return store.read(key(of), "image", ids)


def _explained(of: Pictured, ids: tuple[str, ...], store: Store) -> Labels:
    """The classes that maps of these images explain."""
    if isinstance(of, Select):
        return store.read(key(of), "label", ids)
    if isinstance(of, SignNoise):
        return _explained(of.of.of.of, ids, store)
    return store.read(key(of), "predicted", ids)


def _maps(
    interpreter: Explainer,
    classifier: Classifier,
    ids: tuple[str, ...],
    images: Images,
    classes: Labels,
    drawn: Keys,
    context: Context,
) -> Rows:
    def compute(chunk: slice) -> Mapping[str, Tensor]:
        x, y, keys = (rows[chunk].to(classifier.device) for rows in (images, classes, drawn))
        maps = check_maps(interpreter.name, explained(interpreter, classifier, x, y, keys), ids[chunk])
        return {"map": maps.float(), "constant": is_constant(maps)}

    yield from _by_chunks(ids, context, compute)


def _by_chunks(ids: tuple[str, ...], context: Context, compute: Callable[[slice], Mapping[str, Tensor]]) -> Rows:
    """The rows of each batch as soon as they are there, reporting how many are done."""
    for chunk in _chunks(ids, context.batch_size):
        yield ids[chunk], compute(chunk)
        context.on_step(Progress(chunk.stop, 0, chunk.stop, len(ids)))


def _chunks(ids: tuple[str, ...], batch_size: int) -> Iterator[slice]:
    return (slice(start, min(start + batch_size, len(ids))) for start in range(0, len(ids), batch_size))


def _classify(classifier: Classifier, images: Images) -> Logits:
    """The same of a user's images; UnderfireError if the model fails on their size."""
    with in_one_sentence(f"The model failed on images of {'×'.join(map(str, images.shape[:1:-1]))} pixels"):
        return _logits(classifier, images)


def _logits(classifier: Classifier, images: Images) -> Logits:
    """From images in memory to logits in memory, without a graph."""
    with torch.no_grad():
        return classifier(images.to(classifier.device)).cpu()
