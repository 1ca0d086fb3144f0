"""Every table and figure of the paper as a study on anybody's classifier and images.

    entry = STUDIES["random-patch"]
    run = entry.execute(request, subject, Path("runs/x"), Manner("…"))    # in runs/x/random-patch
    tables, figures = list(entry.tables(run)), list(entry.figures(run))

Studies of one folder share its stages: what one has computed no other computes again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from underfire.core.types import UnderfireError
from underfire.detection.calibration import check_enough
from underfire.detection.registry import SQUEEZED
from underfire.runs.execute import Manner, Planned, Study, Subject, carry_out
from underfire.runs.folder import Run, open_run
from underfire.runs.outcomes import OUTCOMES
from underfire.runs.settings import AttackSettings, StudySettings
from underfire.runs.specs import Select, Spec
from underfire.studies import (
    aid,
    attack_figures,
    attack_tables,
    case_study,
    detection,
    effectiveness,
    figures,
    gap,
    interpreter_tables,
    localisation,
    sanity,
    tables,
    transfer,
)
from underfire.studies.detections import TABLE as DETECTIONS
from underfire.studies.figures import Figure
from underfire.studies.tables import Table

TABLES, FIGURES = "tables", "figures"  # folders of a run


def _nothing_drawn(run: Run) -> Iterable[Figure]:
    return ()


def _nothing_planned(request: StudySettings, select: Spec) -> Iterable[Planned]:
    return ()


def _nothing_added(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    pass


def _nothing_lacking(request: StudySettings) -> str | None:
    return None


@dataclass(frozen=True)
class Entry:
    """One study: the stages that it needs, what it adds once its images are there, its tables and its figures.

    `paper` names what it makes of the paper's, `leaves` the files that its tables and figures are made from; `lacking`
    says what the request must name besides, if it does not.
    """

    name: str
    paper: str
    question: str
    study: Callable[[StudySettings, Subject], Study]
    leaves: tuple[str, ...]
    tables: Callable[[Run], Iterable[Table]]
    figures: Callable[[Run], Iterable[Figure]] = _nothing_drawn
    further: Callable[[StudySettings, Spec], Iterable[Planned]] = _nothing_planned
    add: Callable[[Run, StudySettings, Subject, Manner], None] = _nothing_added
    lacking: Callable[[StudySettings], str | None] = _nothing_lacking

    def execute(self, request: StudySettings, subject: Subject, folder: Path, manner: Manner) -> Run:
        """Compute what the folder does not hold yet, and write tables and figures into the study's own."""
        study = self.study(request, subject)
        run = carry_out(study, folder / self.name, subject.classifier, **vars(manner), shared=True)
        self.add(run, request, subject, manner)
        for table in self.tables(run):
            tables.write(table, run.path / TABLES)
        for figure in self.figures(run):
            figures.write(figure, run.path / FIGURES)
        return run

    def is_finished(self, run: Run) -> bool:
        """Whether the run holds what its tables and figures are made from."""
        return all((run.path / name).is_file() for name in self.leaves)

    def plan(self, request: StudySettings, study: Study) -> Iterator[Planned]:
        """All stages of this entry's study, the first of which holds the images, and of what it adds."""
        yield from study.plan
        yield from self.further(request, study.plan[0].spec)


def done(folder: Path) -> dict[str, Run]:
    """The studies that a folder holds so far, in the order of the catalogue; an attack of such a name is none."""
    held = {name: open_run(folder / name) for name in STUDIES if (folder / name / "run.json").is_file()}
    return {name: run for name, run in held.items() if run.shares_stages}


# --- attacks ----------------------------------------------------------------------------------


def _attack(**chosen: Any) -> Callable[[StudySettings], AttackSettings]:
    """The settings of an attack on all interpreters, with these choices."""

    def settings(request: StudySettings) -> AttackSettings:
        budget = {"eps": request.eps} if "pgd" in chosen.get("solvers", ("pgd",)) else {}
        given = {**request.inputs(), "recipe": request.recipe, "steps": request.steps, **budget}
        return AttackSettings(**given, **chosen)

    return settings


def _study(settings: Callable[[StudySettings], AttackSettings]) -> Callable[[StudySettings, Subject], Study]:
    def study(request: StudySettings, subject: Subject) -> Study:
        return effectiveness.study(settings(request), subject.classifier, subject.image_set)

    return study


_PLAIN = _attack()
_EVADING = _attack(evade=tuple(f"fs:{squeezer}" for squeezer in SQUEEZED))


def _evasiveness(request: StudySettings, subject: Subject) -> Study:
    """UnderfireError if too few images would be left to calibrate detectors on."""
    spare = min(request.sizes.benign, len(subject.image_set) - request.attacked)
    check_enough(spare // 2, detection.DetectSettings().fpr)
    return _study(_EVADING)(request, subject)


def _detect(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    settings = detection.DetectSettings(detector="fs", benign=request.sizes.benign, seed=request.seed)
    detection.execute(settings, run, subject.classifier, subject.image_set, **vars(manner))


def _transfer(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    transfer.execute(run, subject.classifier, batch_size=manner.batch_size, on_progress=manner.on_progress)


def _transfer_plan(request: StudySettings, select: Spec) -> Iterator[Planned]:
    assert isinstance(select, Select)
    settings = _PLAIN(request)
    yield transfer.noise(settings, select)
    yield from transfer.plan(settings, select, settings.explainers(), None)


def _gap(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    gap.add(run, subject.classifier, batch_size=manner.batch_size, on_progress=manner.on_progress)


def _gap_plan(request: StudySettings, select: Spec) -> Iterator[Planned]:
    assert isinstance(select, Select)
    return gap.plan(_PLAIN(request), select)


def _look_at_lesions(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    case_study.add(run, subject.classifier, subject.image_set, subject.masks, manner.batch_size)


# --- interpreters -----------------------------------------------------------------------------


def _localisation(request: StudySettings, subject: Subject) -> Study:
    assert subject.masks is not None
    n = request.sizes.located if request.n is None else request.n
    given = {**request.inputs(), "n": n, "masks": request.masks}
    return localisation.study(
        localisation.LocalisationSettings(**given), subject.classifier, subject.image_set, subject.masks
    )


def _sanity(request: StudySettings, subject: Subject) -> Study:
    return sanity.study(sanity.SanitySettings(**request.inputs()), subject.classifier, subject.image_set)


def _defences(request: StudySettings, subject: Subject) -> Study:
    return aid.study(_defences_settings(request), subject.classifier, subject.image_set, subject.masks)


def _defences_settings(request: StudySettings) -> aid.AidSettings:
    """The interpreter that was defended, RTS where it is there, and its defences."""
    undefended = next((name for name in request.interpreters if name.startswith("rts")), request.interpreters[0])
    given = {**request.inputs(), "interpreters": (undefended, *request.defended), "masks": request.masks}
    return aid.AidSettings(**given, located=request.sizes.located, **request.recipe_given())


def _locate_defended(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    if subject.masks is not None:
        aid.locate(run, subject.classifier, subject.image_set, subject.masks, **vars(manner))


def _masks_lacking(request: StudySettings) -> str | None:
    return None if request.masks else "needs to know where objects are: name a folder of pictures with --masks"


def _defences_lacking(request: StudySettings) -> str | None:
    if request.defended:
        return None if request.attacked > 1 else "needs two images or more: raise --n"
    return "needs defended interpreters: name them with --defended, as in rts:masker-aid.safetensors,smooth:cam"


_ENTRIES = (
    Entry(
        "localisation",
        "Table 2",
        "Do interpreters find the object?",
        _localisation,
        (localisation.TABLE,),
        interpreter_tables.localisations,
        lacking=_masks_lacking,
    ),
    Entry(
        "effectiveness",
        "Tables 3 and 12; Fig. 1, 4, 5, 6 and 17",
        "Does ADV² fool classifier and interpreter at once?",
        _study(_PLAIN),
        (OUTCOMES,),
        attack_tables.effectiveness,
        attack_figures.effectiveness,
    ),
    Entry(
        "evasiveness",
        "Tables 4 and 5",
        "Would feature squeezing have noticed, even where the attacker knows of it?",
        _evasiveness,
        (OUTCOMES, DETECTIONS),
        attack_tables.evasiveness,
        add=_detect,
    ),
    Entry(
        "case-study",
        "Table 13; Fig. 7, 8 and 18",
        "Is the classifier right, and do its maps stay on the lesion when it is not?",
        _study(_PLAIN),
        (OUTCOMES, case_study.PREDICTIONS),
        case_study.tables,
        case_study.figures,
        add=_look_at_lesions,
    ),
    Entry(
        "spatial",
        "Fig. 9, 10, 19 and 20",
        "Does it work by bending the image?",
        _study(_attack(solvers=("stadv",))),
        (OUTCOMES,),
        attack_tables.spatial,
        attack_figures.spatial,
    ),
    Entry(
        "random-patch",
        "Tables 6 and 7; Fig. 11",
        "Can maps be led to a random patch?",
        _study(_attack(target_map="patch")),
        (OUTCOMES,),
        attack_tables.random_patch,
        attack_figures.random_patch,
    ),
    Entry(
        "random-class",
        "Table 8; Fig. 12, 13, 21 and 22",
        "Can maps be led to those of another image?",
        _study(_attack(target_map="random-class")),
        (OUTCOMES,),
        attack_tables.random_class,
        attack_figures.random_class,
    ),
    Entry(
        "transfer",
        "Table 9; Fig. 14",
        "Are other interpreters deceived, too?",
        _study(_PLAIN),
        (OUTCOMES, transfer.TABLE),
        attack_tables.transfers,
        attack_figures.transfers,
        _transfer_plan,
        _transfer,
    ),
    Entry(
        "gap",
        "Proposition 1",
        "Is the prediction loss bounded by the interpretation loss?",
        _study(_PLAIN),
        (OUTCOMES, gap.TABLE),
        attack_tables.bound,
        further=_gap_plan,
        add=_gap,
    ),
    Entry(
        "aid",
        "Table 10; Fig. 15 and 16",
        "Do defended interpreters tell?",
        _defences,
        (aid.TABLE,),
        interpreter_tables.defences,
        aid.figures,
        add=_locate_defended,
        lacking=_defences_lacking,
    ),
    Entry(
        "sanity",
        "not in the paper",
        "Do maps depend on what was learned?",
        _sanity,
        (sanity.TABLE,),
        interpreter_tables.sanities,
    ),
)

STUDIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def study_named(name: str) -> Entry:
    """The study of that name; UnderfireError if there is none."""
    if name not in STUDIES:
        raise UnderfireError(f"There is no study '{name}'; there are {', '.join(STUDIES)}.")
    return STUDIES[name]
