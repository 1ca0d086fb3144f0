"""Would a detector have noticed? Detection of PGD, of ADV2 and of ADV2 that hides from each squeezer (Tables 4 and 5).

Beyond the paper: self-consistency, alone and with feature squeezing, and ADV2 that hides from them. A detector of maps
that are the end of an optimisation takes hours, so this is left out where such an interpreter is among those named.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from underfire.attacks.names import detector_part, interpreter_name
from underfire.core.io import rows_where
from underfire.detection.calibration import check_enough
from underfire.detection.registry import SQUEEZED
from underfire.interpreters.protocol import ClosedForm
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.runs.execute import Experiment, Manner
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES, quoted
from underfire.runs.study_settings import DetectSettings, StudySettings
from underfire.studies import detect, effectiveness, paper
from underfire.studies.base import Study, Subject
from underfire.studies.detections import TABLE, DetectionRate, detections, matrix
from underfire.studies.tables import Row, Table, Value

EVADED = tuple(f"fs:{squeezer}" for squeezer in SQUEEZED)


ADAPTIVE = {"fs": "squeezing", "consistency": "consistency", "fs+consistency": "both"}  # detectors that are evaded


def tables(run: Run) -> Iterator[Table]:
    """Tables 4 and 5, and what became of self-consistency."""
    found = matrix(detections(run))
    made = list(dict.fromkeys(cell.interpreter for cell in found if cell.interpreter is not None))
    yield _detectability(found, made)
    yield _cost_of_evasion(quoted(run.outcomes()), made)
    if any(each.calibration.family == "consistency" for each in found):
        yield _adaptive(found, made)


def _adaptive(found: list[DetectionRate], made: list[str]) -> Table:
    """Detectors of one interpreter by attacks on it."""
    rates = {(each.calibration.detector, each.attack, each.interpreter): each.successes for each in found}
    evading = {f"evading {title}": f"adv2-evading-{each}" for each, title in ADAPTIVE.items()}
    attacks = {"PGD": "pgd", "ADV²": "adv2"} | evading
    rows = []
    for name in made:
        for detector, title in ADAPTIVE.items():
            own = detector if detector == "fs" else f"{detector}:{name}"
            cells = [rates.get((own, each, None if each == "pgd" else name)) for each in attacks.values()]
            shown = tuple((Value("detected", each, percent=True),) for each in cells)
            rows.append(Row((interpreter_name(name), title), shown))
    title = "Detectors against attacks that know of them; not in the paper"
    note = "Flagged shares of successful images; consistency is that of the row's interpreter, under all changes."
    return Table("adaptive", title, ("Interpreter", "Detector"), tuple(attacks), tuple(rows), note)


def _detectability(found: list[DetectionRate], made: list[str]) -> Table:
    """Table 4: squeezers by attacks, each of those that hide in the row of the squeezer that it hides from."""
    rates = {(each.calibration.detector, each.attack, each.interpreter): each.successes for each in found}
    columns = [("PGD", None), *((kind, name) for name in made for kind in ("A", "A∗"))]
    rows = []
    for detector in dict.fromkeys(cell.calibration.detector for cell in found):
        part = detector.removeprefix("fs:")
        if detector == part or "+" in part:
            continue
        attacks = {"PGD": "pgd", "A": "adv2", "A∗": f"adv2-evading-{detector}"}
        printed, cells = paper.DETECTED.get(part, {}), []
        for kind, name in columns:
            detected = rates.get((detector, attacks[kind], name))
            cells.append((Value("detected", detected, printed.get((kind, name)), percent=True),))
        rows.append(Row((detector_part(detector),), tuple(cells)))
    title = "Table 4. Detectability of PGD, basic ADV² (A) and adaptive ADV² (A∗) using feature squeezing"
    titles = tuple("PGD" if name is None else f"{interpreter_name(name)}-{kind}" for kind, name in columns)
    note = (
        "A∗ hides from the squeezer of its row. Thresholds are those that 5 % of correctly classified benign images "
        "exceed; shares are of successful images."
    )
    return Table("table-4", title, ("Squeezer",), titles, tuple(rows), note)


def _cost_of_evasion(outcomes: pa.Table, made: list[str]) -> Table:
    """Table 5; A* is the mean over the attacks that hide from one squeezer each, its interval over images."""
    attacks = dict.fromkeys(outcomes["attack"].to_pylist())
    kinds = {
        "P": ["pgd"],
        "A": ["adv2"],
        "A∗": [each for each in attacks if each.startswith("adv2-evading-fs:") and "+" not in each],
    }
    columns = [(name, kind) for name in made for kind in kinds]
    rows = []
    for place, (title, column) in enumerate({"ΔL1": "map_l1", "IoU": "iou_mean"}.items()):
        cells = []
        for name, kind in columns:
            printed = paper.EVASION_COST.get(name)
            number = None if printed is None else printed[list(kinds).index(kind)][place]
            cells.append((Value(title, _mean(outcomes, kinds[kind], name, column), number),))
        rows.append(Row((title,), tuple(cells)))
    title = "Table 5. Adversarial maps of PGD (P), basic (A) and adaptive ADV² (A∗) against benign maps"
    titles = tuple(f"{interpreter_name(name)} {kind}" for name, kind in columns)
    return Table("table-5", title, ("Metric",), titles, tuple(rows), "A∗ is the mean over the squeezers of Table 4.")


def _mean(outcomes: pa.Table, attacks: list[str], interpreter: str, column: str) -> Estimate:
    """Over the outcomes of these attacks by one interpreter's maps."""
    rows = rows_where(outcomes, interpreter=interpreter)
    chosen = rows.filter(pc.is_in(rows["attack"], pa.array(attacks, pa.string())))
    return mean_interval(chosen[column].to_numpy(), chosen["id"].to_pylist())


def _experiment(request: StudySettings, subject: Subject) -> Experiment:
    """UnderfireError if too few images would be left to calibrate detectors on."""
    spare = min(request.sizes.benign, len(subject.image_set) - request.attacked)
    check_enough(spare // 2, DetectSettings().fpr)
    evaded = (*EVADED, *ADAPTIVE) if _asked_twice(request) else EVADED
    return effectiveness.experiment(effectiveness.attack_settings(request, evade=evaded), subject)


def _asked_twice(request: StudySettings) -> bool:
    """Whether self-consistency is looked at, too."""
    return all(isinstance(each, ClosedForm) for each in request.explainers())


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    joint = [f"fs+consistency:{each.name}" for each in request.explainers()]
    detectors = ",".join(["fs", "consistency", *joint]) if _asked_twice(request) else "fs"
    settings = DetectSettings(detector=detectors, benign=request.sizes.benign, seed=request.seed)
    detect.execute(settings, run, subject, manner)


STUDY = Study(_experiment, (OUTCOMES, TABLE), tables, add=_add)
