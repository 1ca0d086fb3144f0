"""The whole path in Python: attack a model in memory, or judge others' attacks on it, and tell what came of it.

    run = run(model, dataset, ["cam", GRAD()], out="runs/mine", n=32, eps=8 / 255)
    run.outcomes(), verdict(run)         # runs/mine/report.html is written
    evaluate(model, images, attacked, labels=labels, out="runs/theirs")
    audit(model, CAM(), images, labels).worst.robust

A run folder holds what the command of that name leaves; called again in the same folder it is resumed and grows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import ValidationError

from underfire.attacks.api import check_wrapped
from underfire.attacks.target_classes import ListedClass, listed_classes
from underfire.core.errors import UnderfireError
from underfire.core.types import Labels
from underfire.data.class_names import for_classifier
from underfire.data.datasets import image_set_of
from underfire.data.image_set import INTERPOLATIONS, ImageSet
from underfire.data.names import PREDICTED
from underfire.data.pairs import paired
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import interpreter_named
from underfire.models.classifier import Classifier
from underfire.report.page import REPORT, write_report
from underfire.report.verdict import Verdict, judge
from underfire.report.wording import wording
from underfire.runs.attack_settings import AttackSettings, AuditSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.outcomes import quoted
from underfire.runs.settings import Inputs, Viewed, sized
from underfire.runs.study_settings import EvaluateSettings
from underfire.studies import audit as auditing
from underfire.studies import effectiveness
from underfire.studies import evaluate as evaluation
from underfire.studies.audits import Audit, audit_of
from underfire.studies.base import Subject

S = TypeVar("S", bound=Inputs)
Explaining = Iterable[Interpreter | str]
DEFAULT: Explaining = ("cam", "grad")


def run(
    model: Classifier,
    images: Any,
    interpreters: Explaining = DEFAULT,
    *,
    out: str | Path,
    labels: Any = None,
    batch: int = 16,
    **options: Any,
) -> Run:
    """Attack correctly classified images as `underfire attack` does, and write the report.

    images: a tensor N3HW in [0, 1] with `labels`; a DataLoader, or a dataset of torchvision or Hugging Face (see
    `data.datasets`); or a folder, an .npz or a run folder by its path. labels="predicted" takes what the model reports
    for true. Interpreters are objects or the command line's names. options are those of `underfire attack` by their
    names: n, solvers, eps, recipe, effort, steps, target_class, target_map, evade, seed, crop, ….
    UnderfireError for whatever does not fit.
    """
    shown = _explainers(interpreters)
    settings = _settings(AttackSettings, model, shown, options, images=_name_of(images), labels=_name_of_labels(labels))
    settings, image_set = _opened(settings, model, images, labels)
    made = effectiveness.execute(settings, Subject(model, image_set), Path(out), Manner("underfire.run", batch), shown)
    write_report(made, made.path / REPORT)
    return made


def evaluate(
    model: Classifier,
    benign: Any,
    attacked: Any,
    interpreters: Explaining = DEFAULT,
    *,
    out: str | Path,
    labels: Any = None,
    target: Labels | Sequence[int] | int | None = None,
    batch: int = 16,
    **options: Any,
) -> Run:
    """Measure images that somebody else's attack made as `underfire evaluate` does, and write the report.

    benign, labels: as the images of `run`. attacked: the same images in the same order, or a path whose files have
    their names. target: the class that the attack was after, for each attacked image or for all. options are those of
    `underfire evaluate` by their names: name, target_class (a rule or a file), n, seed, ….
    UnderfireError for whatever does not fit.
    """
    shown, given = _explainers(interpreters), {"images": _name_of(benign), "attacked": _name_of(attacked)}
    settings = _settings(EvaluateSettings, model, shown, options, labels=_name_of_labels(labels), **given)
    if isinstance(benign, str | Path) and isinstance(attacked, str | Path):
        settings, pairs = evaluation.opened(settings, model)
    else:
        settings, image_set = _opened(settings, model, benign, labels)
        pairs = evaluation.GivenPairs(image_set, paired(image_set, _attacked(attacked, image_set)))
    rule = None if target is None else listed_classes(target, pairs.attacked.ids)
    if rule is not None:
        settings = settings.model_copy(update={"target_class": _only(settings.target_class, rule)})
    made = evaluation.execute(settings, model, pairs, Path(out), Manner("underfire.evaluate", batch), shown, rule)
    write_report(made, made.path / REPORT)
    return made


def audit(
    model: Classifier,
    interpreters: Interpreter | str | Explaining,
    images: Any,
    labels: Any = None,
    *,
    out: str | Path | None = None,
    batch: int = 16,
    **options: Any,
) -> Audit:
    """On which share of images would nobody have noticed an attack? As `underfire audit` does, with its report.

    interpreters: one or several; images, labels: as those of `run`. What is computed is kept in `out`, if it is given.
    options are those of `underfire audit` by their names: n, suite, detector, eps, on_grid, seed, ….
    UnderfireError for whatever does not fit.
    """
    shown = _explainers((interpreters,) if isinstance(interpreters, str | Interpreter) else interpreters)
    settings = _settings(AuditSettings, model, shown, options, images=_name_of(images), labels=_name_of_labels(labels))
    settings, image_set = _opened(settings, model, images, labels)
    with TemporaryDirectory() as temporary:
        folder = Path(out or Path(temporary) / "audit")
        made = auditing.execute(settings, Subject(model, image_set), folder, Manner("underfire.audit", batch), shown)
        write_report(made, made.path / REPORT)
        return audit_of(made)


def verdict(run: Run) -> tuple[Verdict, ...]:
    """What a run says of each of its interpreters, in the words of the report: headline, sentences, cautions."""
    return tuple(judge(quoted(run.outcomes()), wording(run.info)))


def _explainers(given: Explaining) -> tuple[Interpreter, ...]:
    """The interpreters; UnderfireError if there is none or two have one name."""
    shown = tuple(interpreter_named(each) if isinstance(each, str) else each for each in given)
    names = [each.name for each in shown]
    if not names or len(set(names)) < len(names):
        raise UnderfireError(f"Give one interpreter or several of different names, not {', '.join(names) or 'none'}.")
    return shown


def _settings(
    kind: type[S], model: Classifier, shown: tuple[Interpreter, ...], options: dict[str, Any], **given: str | None
) -> S:
    """The settings by which a run is known; UnderfireError names an option that is wrong or none."""
    check_wrapped(model)
    if of_model := [name for name in Viewed.model_fields if name in options]:
        raise UnderfireError(f"{of_model[0]}= is that of a model that is loaded; give it to underfire.Classifier.")
    try:
        settings = kind.model_validate({"model": f"{type(model.network).__name__} in memory", **given, **options})
    except ValidationError as problem:
        first = problem.errors()[0]
        raise UnderfireError(f"{'.'.join(map(str, first['loc']))}={first['input']!r}: {first['msg']}.") from None
    return settings.model_copy(update={"interpreters": tuple(each.name for each in shown)})


def _opened(settings: S, model: Classifier, images: Any, labels: Any) -> tuple[S, ImageSet]:
    """The images with the classifier's labels, and the settings with the sizes that its weights want of files."""
    if isinstance(images, str | Path):
        settings = sized(settings, model.origin)
        return settings, for_classifier(settings.open_images(), model)
    how = settings.interpolation or INTERPOLATIONS[0]
    given = replace(image_set_of(images, labels), crop=settings.crop, resize=settings.resize, interpolation=how)
    return settings, for_classifier(given, model)


def _only(target_class: str | None, rule: ListedClass) -> str:
    """What run.json calls target classes that are given; UnderfireError if there is a rule for them as well."""
    if target_class is not None:
        raise UnderfireError(f"target= and target_class={target_class!r} both say what an attack was after; give one.")
    return f"given {rule.digest}"


def _attacked(attacked: Any, benign: ImageSet) -> ImageSet:
    """The attacked images, under the names of the benign ones where they have none of their own."""
    if isinstance(attacked, str | Path):
        return evaluation.open_given(str(attacked), benign)
    theirs = image_set_of(attacked, PREDICTED)
    if len(theirs) != len(benign):
        raise UnderfireError(f"There are {len(theirs)} attacked images and {len(benign)} benign ones: give as many.")
    return replace(theirs, ids=benign.ids)


def _name_of(images: Any) -> str:
    return str(images) if isinstance(images, str | Path) else f"{type(images).__name__} in memory"


def _name_of_labels(labels: Any) -> str | None:
    return str(labels) if isinstance(labels, str | Path) else None
