"""How long studies will take, found out on one image before they start.

    with stopwatch(classifier, Store(Path("runs/x"))) as watch:
        expected = watch.estimate(experiment, study.plan(request, experiment))
    seconds = sum(each.seconds for each in expected)

Every stage is carried out on one image in a temporary folder, attacks with one step and with three. With T steps in
q quanta, per image that the store does not hold yet:

    attack  q t0 + T t1         t1 = (time of 3 steps - time of 1) / 2,    t0 = time of 1 step - t1
    others  their time on one image; maps that of the benign one

Images that are settled end sooner, and many images at once may take less time each.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from underfire.models.classifier import Classifier
from underfire.runs.compute import Context
from underfire.runs.driver import run_stage
from underfire.runs.execute import Experiment
from underfire.runs.plan import Planned
from underfire.runs.specs import CalibratedNoise, Craft, Explain, Locate, Select, Spec, TargetMaps, key
from underfire.runs.store import Store


@dataclass(frozen=True)
class Expected:
    """One stage: how many images it lacks, and seconds for all of them."""

    label: str
    images: int
    seconds: float


@contextmanager
def stopwatch(classifier: Classifier, held: Store) -> Iterator["Stopwatch"]:
    """What stages cost that `held` lacks; each is counted for the first study that needs it."""
    with TemporaryDirectory(prefix="underfire-") as folder:
        yield Stopwatch(classifier, held, Store(Path(folder)))


class Stopwatch:
    """Times stages on one image, and remembers those that it has timed and counted."""

    def __init__(self, classifier: Classifier, held: Store, scratch: Store) -> None:
        self._context, self._scratch, self._held = Context(classifier, 1), scratch, held
        self._times: dict[str, float] = {}
        self._counted: set[str] = set()
        self._chosen: dict[tuple[str, int], tuple[str, ...]] = {}  # by the stage of the images and how many are asked

    def estimate(self, experiment: Experiment, plan: Iterable[Planned]) -> list[Expected]:
        """The stages of a plan that begins with the experiment's images; nothing is timed where none lacks an image."""
        source, *stages = plan
        images = key(source.spec)
        held = set(self._held.done(images))
        if held and all(held <= set(self._held.done(key(each.spec))) for each in stages):
            return [Expected(each.label, 0, 0.0) for each in stages]
        asked = images, cast(Select | Locate, source.spec).n
        if asked not in self._chosen:
            chosen = experiment.choose()
            chosen.keep(self._scratch)
            self._chosen[asked] = chosen.ids
        return [self._expected(each, source.spec, self._chosen[asked]) for each in stages]

    def _expected(self, planned: Planned, source: Spec, ids: tuple[str, ...]) -> Expected:
        spec, name = planned.spec, key(planned.spec)
        lacking = 0 if name in self._counted else len(set(ids) - set(self._held.done(name)))
        self._counted.add(name)
        of_all = 1 if isinstance(spec, CalibratedNoise) else lacking  # its search looks at all images whoever asks
        return Expected(planned.label, lacking, min(lacking, of_all) * self._seconds(spec, source, ids[:1]))

    def _seconds(self, spec: Spec, source: Spec, ids: tuple[str, ...]) -> float:
        """Of one image."""
        if isinstance(spec, TargetMaps):  # nothing beside an attack
            return 0.0
        if isinstance(spec, Explain):  # a map costs the same, whatever became of the image
            return self._time(Explain(cast(Select | Locate, source), spec.interpreter), ids)
        seconds = self._time(shortened(spec, 1), ids)
        if not isinstance(spec, Craft):
            return seconds
        step = max(0.0, (self._time(shortened(spec, 3), ids) - seconds) / 2)
        quanta = -(-spec.attack.steps // spec.attack.quantum)
        return quanta * max(0.0, seconds - step) + spec.attack.steps * step

    def _time(self, spec: Any, ids: tuple[str, ...]) -> float:
        name = key(spec)
        if name not in self._times:
            begun = time.perf_counter()
            run_stage(spec, ids, self._scratch, self._context)
            self._times[name] = time.perf_counter() - begun
        return self._times[name]


def shortened(spec: Any, steps: int) -> Any:
    """The spec with every attack in it cut to so many steps, and with benign maps for target maps."""
    if isinstance(spec, TargetMaps):
        return spec.benign
    if not is_dataclass(spec) or isinstance(spec, type):
        return spec
    inner = {f.name: shortened(getattr(spec, f.name), steps) for f in fields(spec) if f.init}
    changed = {name: value for name, value in inner.items() if value is not getattr(spec, name)}
    if isinstance(spec, Craft):
        changed["attack"] = replace(spec.attack, rungs=(min(steps, spec.attack.steps),))
    return replace(spec, **changed) if changed else spec
