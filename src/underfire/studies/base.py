"""What a study is, and what all of them share.

    STUDY = Study(experiment, (TABLE,), tables)                 # in the module that the catalogue names
    run = STUDY.execute(request, Subject(classifier, image_set), Path("runs/x/sanity"), Manner("…"))

An experiment says which images, stages and table a run consists of; a study asks for one, may add further stages to
its run, and makes tables and figures of what is there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.io import write_json
from underfire.data.image_set import ImageSet, Numbering
from underfire.data.names import PREDICTED
from underfire.data.selection import Selection
from underfire.models.classifier import Classifier
from underfire.runs.choosing import keep
from underfire.runs.execute import Chosen, Experiment, Manner, adding_to, environment
from underfire.runs.execute import execute as execute_experiment
from underfire.runs.folder import Run
from underfire.runs.paths import found
from underfire.runs.plan import Planned
from underfire.runs.settings import Inputs
from underfire.runs.specs import Locate, Select
from underfire.runs.study_settings import StudySettings
from underfire.studies import figures, tables
from underfire.studies.figures import Figure
from underfire.studies.paper import ANCHORS
from underfire.studies.tables import Table

TABLES, FIGURES = "tables", "figures"  # folders of a run
NEEDS_LABELS = f"asks how often the classifier is right, which --labels {PREDICTED} takes for granted: give labels"
S = TypeVar("S", bound=Inputs)


@dataclass(frozen=True)
class Subject:
    """A classifier, all images to choose from, and where objects are in them, if that is known."""

    classifier: Classifier
    image_set: ImageSet
    masks: ImageSet | None = None


@dataclass(frozen=True)
class Study:
    """What a study computes and what it shows; the defaults show no figure, add nothing and need nothing more.

    `leaves` are the files that its tables and figures are made from. `add` computes the stages of `further`, and what
    else there is to add, once its run is there. `lacking` says what the request must name besides, if it does not.
    """

    experiment: Callable[[StudySettings, Subject], Experiment]
    leaves: tuple[str, ...]
    tables: Callable[[Run], Iterable[Table]]
    figures: Callable[[Run], Iterable[Figure]] = lambda run: ()
    further: Callable[[StudySettings, Select], Iterable[Planned]] = lambda request, select: ()
    add: Callable[[Run, StudySettings, Subject, Manner], None] = lambda run, request, subject, manner: None
    lacking: Callable[[StudySettings], str | None] = lambda request: None

    def execute(self, request: StudySettings, subject: Subject, out: Path, manner: Manner) -> Run:
        """Compute what the folder `out` and those beside it do not hold yet, and write tables and figures into it."""
        experiment = replace(self.experiment(request, subject), asked=request)
        run = execute_experiment(experiment, out, subject.classifier, manner, shared=True)
        self.add(run, request, subject, manner)
        if run.info.get(ANCHORS) != request.anchors:
            with adding_to(run):
                write_json(run.path / "run.json", {**run.info, ANCHORS: request.anchors})
        for table in self.tables(run):
            tables.write(table, run.path / TABLES)
        for figure in self.figures(run):
            figures.write(figure, run.path / FIGURES)
        return run

    def is_finished(self, run: Run) -> bool:
        """Whether the run holds what tables and figures are made from."""
        return all((run.path / name).is_file() for name in self.leaves)

    def plan(self, request: StudySettings, experiment: Experiment) -> Iterator[Planned]:
        """All stages of the experiment, the first of which holds the images, and those that are added."""
        yield from experiment.plan
        images = experiment.plan[0].spec
        if isinstance(images, Select):
            yield from self.further(request, images)


# --- run.json ---------------------------------------------------------------------------------


def select_from(settings: Inputs, classifier: Classifier, image_set: ImageSet) -> Select:
    """The stage of the images that the classifier gets right."""
    return Select(classifier.fingerprint(), image_set.digest, settings.n, settings.seed)


def identity(
    settings: Inputs, source: Select | Locate, study: str | None = None, **further_digests: str
) -> dict[str, Any]:
    """What two runs must share to be the same run."""
    name = {} if study is None else {"study": study}
    digests = {"model_fingerprint": source.model, "images_digest": source.images, **further_digests}
    return {**name, **settings.model_dump(mode="json"), **digests}


def settings_of(run: Run, kind: type[S], study: str | None, otherwise: str) -> tuple[S, Select]:
    """The settings and the images of a run whose `identity` is in run.json; UnderfireError(otherwise) if it is not."""
    try:
        info = run.info
        spec = found(info["spec"], info.get("folder", ""))
        spec.pop("masks_digest", None)
        if spec.pop("study", None) != study:
            raise ValueError("another study's")
        select = Select(spec.pop("model_fingerprint"), spec.pop("images_digest"), spec["n"], spec["seed"])
        return kind(**spec), select
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise UnderfireError(otherwise) from problem


def chosen(
    settings: Inputs, subject: Subject, select: Select, selection: Selection, says: Mapping[str, Any], **counts: int
) -> Chosen:
    """The images that the classifier gets right; `says` and `counts` are what run.json says besides."""
    counts = {"examined": selection.examined, "misclassified": selection.misclassified, **counts}
    description = {**says, **described(settings, subject, selection.skipped, **counts)}
    sentence = examined(subject, selection.chosen, selection.misclassified, selection.examined)
    return Chosen(description, selection.chosen.ids, partial(keep, select, selection.chosen), sentence)


def examined(subject: Subject, chosen: ImageSet, wrong: int, of: int) -> str:
    """What shows at a glance that model, labels and normalisation do not belong together."""
    height, width = chosen.read(0).shape[1:]
    origin = subject.classifier.origin
    right = f"{of - wrong} of {of} examined classified right ({100 * (of - wrong) / of:.0f} %)"
    if subject.image_set.numbering is Numbering.PREDICTED:
        right = f"{of} examined, whatever is reported of them taken for true"
    return (
        f"{right}, {width} × {height}, "
        f"{len(subject.image_set.classes):,} classes, normalisation: {origin.normalization if origin else 'given'}."
    )


def described(settings: Inputs, subject: Subject, skipped: Sequence[tuple[str, str]], **counts: int) -> dict[str, Any]:
    """What run.json says of versions, model and classes, and of how images were chosen."""
    return {
        **environment(settings, subject.classifier, subject.image_set),
        "selection": {"requested": settings.n, **counts},
        "skipped": [{"id": name, "reason": reason} for name, reason in skipped],
    }


# --- tables of rows ---------------------------------------------------------------------------


def per_image(schema: pa.Schema, ids: Sequence[str], **columns: Any) -> pa.Table:
    """A row per image; a column is given by its values, or by the one value that all rows share."""

    def values(given: Any) -> Any:
        if isinstance(given, Tensor):
            return given.tolist()
        return given if isinstance(given, list | pa.Array) else [given] * len(ids)

    return pa.table({"id": ids, **{name: values(given) for name, given in columns.items()}}, schema)
