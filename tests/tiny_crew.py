"""Workers in this process, so that what is dispatched can be watched without Ray."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from underfire.models.classifier import Classifier
from underfire.runs.dispatch import Event
from underfire.runs.needs import StageInputs
from underfire.runs.reference import Reference
from underfire.runs.specs import Spec
from underfire.runs.workers import Worker


@dataclass(frozen=True)
class Loaded(Reference):
    """A classifier that is there already."""

    classifier: Classifier | None = None

    def load(self, device: torch.device) -> Classifier:
        assert self.classifier is not None
        return self.classifier


class Staff:
    """So many workers in this process; whoever began last is heard first. `change` alters what each piece gave."""

    def __init__(
        self, count: int, classifier: Classifier, change: Callable[[list[Event]], list[Event]] = lambda events: events
    ) -> None:
        self.places, self._change = range(count), change
        self._reference, self._worker = Loaded({}, "tiny", "", classifier), Worker("cpu", threads=1)
        self._at_work: dict[int, tuple[Any, ...]] = {}
        self.begun, self.most = list[str](), 0

    def begin(self, place: int, spec: Spec, inputs: StageInputs, batch_size: int) -> None:
        assert place not in self._at_work
        self._at_work[place] = spec, inputs, self._reference, batch_size
        self.begun.append(type(spec).__name__)
        self.most = max(self.most, len(self._at_work))

    def heard(self) -> Iterator[tuple[int, Event]]:
        place, given = self._at_work.popitem()
        yield from ((place, event) for event in self._change(self._worker.whole(*given)))

    def drop(self) -> None:
        self._at_work.clear()
