"""Execute what a run consists of, in a folder that holds it, resumes and grows."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pydantic import ValidationError

from underfire.attacks.engine import Progress
from underfire.attacks.target_classes import target_class_named
from underfire.core.errors import UnderfireError
from underfire.core.io import read_json, write_json, write_row_groups
from underfire.core.rng import image_keys
from underfire.core.types import Samples
from underfire.data.class_names import for_classifier
from underfire.data.image_set import ImageSet
from underfire.interpreters.protocol import Explainer, check_maps, explained
from underfire.models.classifier import Classifier
from underfire.runs.compute import Context, in_one_sentence
from underfire.runs.config import CONFIG, write_config
from underfire.runs.dispatch import Crew, dispatch
from underfire.runs.driver import run_stage
from underfire.runs.folder import CHOSEN, SHARED, Run, open_run
from underfire.runs.lock import locked
from underfire.runs.paths import found, spelled_alike
from underfire.runs.plan import Planned
from underfire.runs.settings import Inputs, Settings, Source
from underfire.runs.specs import key
from underfire.runs.store import Store

TOGETHER = "all stages"  # the label of what workers do
VERSIONED = ("underfire", "torch", "torchvision", "numpy", "safetensors", "pyarrow")


Report = Callable[[Planned, Progress], None]


@dataclass(frozen=True)
class Manner:
    """How a command does its work: as it was typed, so many images at a time, and by a crew if not in this process.

    `on_notice` hears how images were found before anything is computed, and where batches had to be smaller.
    """

    command: str
    batch_size: int = 16
    on_notice: Callable[[str], None] = lambda sentence: None
    on_progress: Report = lambda planned, progress: None
    crew: Crew | None = None

    def context(self, classifier: Classifier, n: int) -> Context:
        """What stages of n images are computed with by this classifier."""
        return Context(classifier, _even_batch_size(n, self.batch_size), on_notice=self.on_notice)


Perform = Callable[[Iterable[Planned], tuple[str, ...], Context, Run, Manner], bool]


def _begins_anew(held: Mapping[str, Any]) -> tuple[Planned, ...] | None:
    return None


@dataclass(frozen=True)
class Experiment:
    """What a run consists of: its stages, the first of which holds its images, and the table that they fill.

    `spec` is what two runs must share to be the same run. `choose` finds the images, and whatever cannot be done with
    them, before anything is written. `continues` gives the stages of a smaller run that this one goes on with, by that
    run's spec; None if it is not such a run. `perform` computes what the plan lacks; False if it lacked nothing.
    `asked` is written as the folder's config.toml; None where another command is what repeats it.
    """

    spec: Mapping[str, Any]
    choose: Callable[[], "Chosen"]
    plan: tuple[Planned, ...]
    table: str  # the file's name
    columns: pa.Schema
    tabulate: Callable[[tuple[str, ...], Store], Iterable[pa.Table]]  # in parts, of which one is in memory at a time
    image_set: ImageSet
    continues: Callable[[Mapping[str, Any]], tuple[Planned, ...] | None] = _begins_anew
    perform: "Perform" = field(default_factory=lambda: perform)
    asked: Settings | None = None


@dataclass(frozen=True)
class Chosen:
    """The images of a run before anything is written: what run.json says of them, and how they are stored.

    `sentence` says how they were found.
    """

    description: Mapping[str, Any]
    ids: tuple[str, ...]
    keep: Callable[[Store], None]
    sentence: str


def execute(experiment: Experiment, out: Path, classifier: Classifier, manner: Manner, *, shared: bool = False) -> Run:
    """Compute what the folder `out` does not hold yet; UnderfireError if it holds a run with other settings.

    Shared stages are those of all runs in the folder around `out`.
    """
    begun = time.perf_counter()
    chosen = None if _is_complete(out, experiment) else experiment.choose()
    seconds = round(time.perf_counter() - begun, 2)
    with locked(out.parent if shared else out):
        begins = not _is_complete(out, experiment)
        if begins:
            chosen = chosen or experiment.choose()
            manner.on_notice(chosen.sentence)
            _write_start(experiment, chosen, out, manner.command, shared, seconds)
        if experiment.asked is not None and (begins or not (out / CONFIG).exists()):
            write_config(out / CONFIG, experiment.asked, batch=manner.batch_size)
        run = open_run(out)
        ids, images = tuple(run.info[CHOSEN]), key(experiment.plan[0].spec)
        check_contents(run, experiment.image_set)
        if set(ids) - set(run.store.done(images)):
            (chosen or experiment.choose()).keep(run.store)
        chosen = None  # its images are in the store
        computed = experiment.perform(experiment.plan, ids, manner.context(classifier, len(ids)), run, manner)
        if computed or not (out / experiment.table).exists():
            write_row_groups(out / experiment.table, experiment.columns, experiment.tabulate(ids, run.store))
    return run


def perform(stages: Iterable[Planned], ids: tuple[str, ...], context: Context, run: Run, manner: Manner) -> bool:
    """Compute what stages lack and add each one's time to run.json; False if they lacked nothing."""
    stages = tuple(stages)
    if manner.crew is None:
        computed = _one_by_one(stages, ids, context, run.store, manner.on_progress)
    else:
        together = replace(stages[0], label=TOGETHER, kind="step")
        tracked = replace(context, on_step=partial(manner.on_progress, together))
        computed = dispatch(stages, ids, run.store, tracked, manner.crew)
    info = run.info
    spent, any_computed = dict(info.get("wall_seconds", {})), False
    try:
        for planned, seconds in computed:
            spent[planned.label] = round(spent.get(planned.label, 0.0) + seconds, 2)
            any_computed = True
    finally:
        if any_computed:
            write_json(run.path / "run.json", {**info, "wall_seconds": spent})
    return any_computed


def _one_by_one(
    stages: Iterable[Planned], ids: tuple[str, ...], context: Context, store: Store, on_progress: Report
) -> Iterator[tuple[Planned, float]]:
    """The stages that lacked something, each with the seconds that it took."""
    for planned in stages:
        begun = time.perf_counter()
        if run_stage(planned.spec, ids, store, replace(context, on_step=partial(on_progress, planned))):
            yield planned, time.perf_counter() - begun


@contextmanager
def adding_to(run: Run) -> Iterator[None]:
    """Keep others out of a run, or of all that share its stages, while something is added to it."""
    with locked(run.store.root):
        yield


def preflight(interpreters: Iterable[Explainer], classifier: Classifier, samples: Samples) -> None:
    """One map of each interpreter, so that whatever cannot be explained fails at once."""
    x, y, keys = samples.images[:1], samples.labels[:1], image_keys(samples.ids[:1])
    for each in interpreters:
        with in_one_sentence(f"The model cannot be explained by {each.name}"):
            maps = explained(each, classifier, *(rows.to(classifier.device) for rows in (x, y, keys)))
            check_maps(each.name, maps, samples.ids)


def listed(plan: Iterable[Planned]) -> list[dict[str, Any]]:
    """Where the readers of a run folder find which images and maps."""
    return [
        {"key": key(each.spec), "kind": each.kind, "attack": each.attack, "interpreter": each.interpreter}
        for each in plan
    ]


def environment(settings: Inputs, classifier: Classifier, image_set: ImageSet) -> dict[str, Any]:
    """What run.json says of versions, device, model and classes."""
    origin = classifier.origin
    return {
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in VERSIONED}},
        "seed": settings.seed,
        "device": str(classifier.device),
        "threads": torch.get_num_threads(),
        "model": {
            "name": settings.model,
            "architecture": type(classifier.network).__name__,
            "weights": settings.weights,
            "normalization": origin.normalization if origin else None,
            "mean": classifier.mean,
            "std": classifier.std,
            "features": classifier.features_layer,
            "assumed": list(classifier.assumed),
            "fingerprint": classifier.fingerprint(),
        },
        "classes": list(image_set.classes),
        "labels_by": image_set.numbering,
    }


def _even_batch_size(n: int, batch_size: int) -> int:
    """The largest batch size up to `batch_size` that leaves the fewest slots empty over the batches it takes."""
    batches = -(-n // batch_size)
    return -(-n // batches)


def _origin() -> dict[str, str]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"underfire": version("underfire"), "created": created, "folder": str(Path.cwd())}


def _is_complete(out: Path, experiment: Experiment) -> bool:
    """Whether the folder's run.json is that of this very run; UnderfireError if it is another one's or anything else's.

    False as well where the folder holds a smaller run that this one goes on with.
    """
    if not (out / "run.json").exists():
        if out.is_dir() and any(not file.name.startswith(".") for file in out.iterdir()):
            raise UnderfireError(f"{out} is not empty and contains no run; choose another --out.")
        return False
    info = read_json(out / "run.json")
    held, spec, folder = info.get("spec", {}), experiment.spec, info.get("folder", "")
    differing = [name for name in {**held, **spec} if not spelled_alike(held.get(name), spec.get(name), folder)]
    as_given = {name: value if name in differing else spec[name] for name, value in held.items()}
    stages = experiment.continues(as_given) if differing else experiment.plan
    if stages is None:
        changes = "; ".join(f"{name} was {held.get(name)} and is now {spec.get(name)}" for name in differing)
        raise UnderfireError(f"{out} holds a run with other settings: {changes}. Choose another --out.")
    if info["stages"] != listed(stages):
        raise UnderfireError(
            f"{out} was begun by underfire {info['underfire']}, whose attacks are not those of this version, "
            "or with maskers or targets of other content. Choose another --out."
        )
    return not differing


def _write_start(experiment: Experiment, chosen: Chosen, out: Path, command: str, shared: bool, seconds: float) -> None:
    """run.json before anything is computed; of a run that grows, the times so far are kept and the table is not."""
    path = out / "run.json"
    (out / experiment.table).unlink(missing_ok=True)
    spent = read_json(path).get("wall_seconds", {}) if path.exists() else {}
    write_json(
        path,
        {
            "command": command,
            **_origin(),
            SHARED: shared,
            "spec": experiment.spec,
            **chosen.description,
            "stages": listed(experiment.plan),
            CHOSEN: experiment.image_set.content_hashes(chosen.ids),
            "wall_seconds": {**spent, "images": round(spent.get("images", 0.0) + seconds, 2)},
        },
    )


def check_contents(run: Run, image_set: ImageSet) -> None:
    """UnderfireError names the first of a run's images whose content has changed since they were chosen."""
    held = run.info.get(CHOSEN, {})
    now = image_set.content_hashes(held)
    if changed := [name for name, content in held.items() if now[name] != content]:
        raise UnderfireError(
            f"The image {changed[0]} is not the one that {run.path} was made with: its content has changed since. "
            "Bring it back, or choose another --out."
        )


def source_of(run: Run) -> dict[str, Any]:
    """What run.json says of the settings, its files named so that they are found from here."""
    spec = run.info.get("spec")
    return found(dict[str, Any](spec) if isinstance(spec, Mapping) else {}, run.info.get("folder", ""))


def reopen(run: Run, device: torch.device | str = "cpu") -> tuple[Classifier, ImageSet]:
    """The classifier of an earlier run and all the images that it chose from, found again by what run.json says.

    UnderfireError if run.json does not say it, or if either is gone or another one by now.
    """
    named = source_of(run)
    try:
        source = Source.model_validate({name: named[name] for name in Source.model_fields if name in named})
    except ValidationError as problem:
        where = problem.errors()[0]["loc"][0]
        raise UnderfireError(f"run.json in {run.path} does not say which {where} it was made with.") from None
    try:
        classifier = source.load(source.model, device)
        image_set = for_classifier(source.open_images(), classifier)
        chosen_from = target_class_named(str(named.get("target_class") or "random")).candidates(image_set)
    except UnderfireError as problem:
        raise UnderfireError(f"What {run.path} was made with cannot be opened again: {problem}") from problem
    if classifier.fingerprint() != named.get("model_fingerprint"):
        raise UnderfireError(
            f"The model {source.model} is not the one that {run.path} was made with: its layers, weights or "
            "normalisation have changed since. Bring them back, or run the attack again."
        )
    if chosen_from.digest != named.get("images_digest"):
        raise UnderfireError(
            f"The images at {source.images} are not those that {run.path} was made with: files, labels or sizes have "
            "changed since. Bring them back, or run the attack again."
        )
    check_contents(run, image_set)
    return classifier, image_set
