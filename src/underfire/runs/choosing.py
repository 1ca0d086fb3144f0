"""The images of a run: what is chosen before anything is computed from it, and how it is stored.

selection = choose(select, image_set, classifier)
keep(select, selection.chosen, store)
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from underfire.core.rows import in_parts
from underfire.core.types import Images, Labels, Logits, Samples
from underfire.data.image_set import ImageSet
from underfire.data.selection import Encounter, LocatedObjects, Selection, locate, meet, select
from underfire.models.classifier import Classifier
from underfire.runs.compute import in_one_sentence, logits_of
from underfire.runs.needs import SHARD
from underfire.runs.specs import Given, Locate, Meet, Select, describe, key
from underfire.runs.store import Store


def choose(spec: Select, image_set: ImageSet, classifier: Classifier) -> Selection:
    """The images of a run; UnderfireError if the model cannot classify them."""
    return select(partial(_classify, classifier), image_set, spec.n, spec.seed)


def encounter(spec: Meet, image_set: ImageSet, classifier: Classifier) -> Encounter:
    """The images that would be come by; UnderfireError if the model cannot classify them."""
    return meet(partial(_classify, classifier), image_set, spec.n, spec.seed)


def find(spec: Locate, image_set: ImageSet, masks: ImageSet, classifier: Classifier) -> tuple[LocatedObjects, Labels]:
    """The images of a run with their objects, and their classes as the classifier reports them."""
    located = locate(image_set, masks, spec.n, spec.seed)
    batches = in_batches(located.chosen, 16)
    return located, torch.cat([_classify(classifier, samples.images).argmax(1) for samples in batches])


def in_batches(chosen: ImageSet, size: int) -> Iterator[Samples]:
    """The images of a set, so many of them at a time."""
    return (chosen.samples(part) for part in in_parts(tuple(range(len(chosen))), size))


def keep(spec: Select | Meet | Locate | Given, chosen: ImageSet, store: Store, **further: Tensor) -> None:
    """Store the chosen images that the store lacks with their labels and further row tensors, some at a time."""
    held = set(store.done(key(spec)))
    new = tuple(i for i, name in enumerate(chosen.ids) if name not in held)
    store.create(key(spec), describe(spec))
    for part in in_parts(new, SHARD):
        samples, rows = chosen.samples(part), {name: values[list(part)] for name, values in further.items()}
        store.append(key(spec), samples.ids, {"image": samples.images, "label": samples.labels, **rows})


def _classify(classifier: Classifier, images: Images) -> Logits:
    """The logits of a user's images; UnderfireError if the model fails on their size."""
    with in_one_sentence(f"The model failed on images of {'×'.join(map(str, images.shape[:1:-1]))} pixels"):
        return logits_of(classifier, images)
