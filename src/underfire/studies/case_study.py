"""What a clinician would ask of a classifier and its maps (case study of skin lesions: Table 13, Fig. 7, 8 and 18).

    add(open_run("runs/x"), Subject(classifier, image_set, masks))
    overlaps(run), predictions(run)

To the run of an attack this adds how often the classifier is right, on all images of the set, and, with masks, how
much of each map lies on the lesion: of benign images, and of attacked ones that get the wrong diagnosis wanted.

    IoU       of the cells above the map's own mean with the lesion
    inside    sum of the map on the lesion / sum of the map
    pointing  whether the map's peak is on the lesion
"""

from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa
import torch
from jaxtyping import Bool
from torch import Tensor

from underfire.attacks.names import attack_name, interpreter_name
from underfire.core.io import groups, read_table, write_table
from underfire.core.plots import confusion_matrix
from underfire.core.types import Images, Logits, Maps
from underfire.data.image_set import ImageSet
from underfire.data.selection import LocatedObjects, locate, predict
from underfire.metrics.classification import Counts, accuracy, balanced_accuracy, confusion, recalls
from underfire.metrics.intervals import mean_interval, share
from underfire.metrics.localisation import hits, upscaled
from underfire.metrics.maps import above_mean, iou
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.runs.study_settings import StudySettings
from underfire.studies import effectiveness, paper
from underfire.studies.averages import Averages, distance_bars, distance_table, iou_bars, iou_table, success_table
from underfire.studies.base import NEEDS_LABELS, Study, Subject, per_image
from underfire.studies.figures import Drawing, Figure, bars, papers
from underfire.studies.galleries import above_adversarial
from underfire.studies.tables import Row, Table, Value

OVERLAPS, PREDICTIONS = "overlaps.parquet", "predictions.parquet"
OVERLAP_COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "interpreter": pa.string(),
        "images": pa.string(),  # benign, or the attack
        "iou": pa.float64(),
        "inside": pa.float64(),
        "points_at_object": pa.float64(),
    }
)
PREDICTION_COLUMNS = pa.schema({"id": pa.string(), "class_true": pa.int64(), "class_predicted": pa.int64()})
ATTACKS = ("pgd", "adv2")
MOST_CLASSES = 30  # in a matrix that can be read
MEASURES = {"IoU": "iou", "inside": "inside", "pointing": "points_at_object"}


def add(run: Run, subject: Subject, batch_size: int = 16) -> None:
    """Write the tables that the run lacks; UnderfireError if a mask has another size than its image.

    Images whose masks cannot be read or show nothing are not measured.
    """
    if subject.masks is not None and not (run.path / OVERLAPS).exists():
        write_table(run.path / OVERLAPS, _overlapping(run, subject.image_set, subject.masks))
    if not (run.path / PREDICTIONS).exists():
        write_table(run.path / PREDICTIONS, _predicted(subject.classifier, subject.image_set, batch_size))


def overlaps(run: Run) -> pa.Table:
    """One row per image x interpreter x kind of image; none where no masks were given."""
    path = run.path / OVERLAPS
    return read_table(path, OVERLAP_COLUMNS) if path.exists() else OVERLAP_COLUMNS.empty_table()


def predictions(run: Run) -> pa.Table:
    """One row per image of the set that the run chose from."""
    return read_table(run.path / PREDICTIONS, PREDICTION_COLUMNS)


def tables(run: Run) -> Iterator[Table]:
    """Table 13, the numbers of Fig. 8 and 18, and how much of the maps is on lesions."""
    means = Averages.of(run)
    yield success_table(means, "case-study-asr", "ASR (MC) of PGD and ADV²", {})
    title = "Table 13. Distance between attribution maps of benign and adversarial inputs"
    yield distance_table(means, "table-13", title, paper.SKIN_DISTANCES)
    yield iou_table(means, "figure-8-iou", "Fig. 8 (b) in numbers. IoU with the benign map")
    counts, names = _counts(run)
    shown, each = _shown(counts), recalls(counts)
    rows = [
        Row(("all images",), ((Value("accuracy", accuracy(counts), percent=True),),)),
        Row(
            ("classes alike",),
            ((Value("balanced accuracy", balanced_accuracy(counts), paper.SKIN_ACCURACY, percent=True),),),
        ),
        *(Row((names[i],), ((Value("recall", each[i], percent=True),),)) for i in shown),
    ]
    title = f"Fig. 18 in numbers. How often the classifier is right, {int(counts.sum())} images"
    yield Table("classifier", title, ("",), ("right",), tuple(rows), _left_out(counts, shown))
    if (found := overlaps(run)).num_rows:
        yield _overlap_table(found)


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 7, 8 and 18."""
    means = Averages.of(run)
    yield papers(
        7,
        "Attribution maps of benign and adversarial (ADV²) inputs",
        lambda: above_adversarial(run, means.interpreters, "benign"),
    )
    yield papers(
        8,
        "L1 measures (a) and IoU scores (b) with respect to benign maps",
        lambda: bars(means.headings, [distance_bars(means, paper.SKIN_DISTANCES), iou_bars(means)]),
    )
    yield papers(18, "Confusion matrix of the classifier", lambda: _confusion(run))


def _confusion(run: Run) -> Drawing:
    counts, names = _counts(run)
    shown = _shown(counts)
    return confusion_matrix(counts[shown][:, shown].numpy(), [names[i] for i in shown])


def _counts(run: Run) -> tuple[Counts, list[str]]:
    """True against reported classes, and their names; a classifier may know more classes than the images have."""
    table, names = predictions(run), run.info["classes"]
    true, reported = (torch.tensor(table[name].to_pylist()) for name in ("class_true", "class_predicted"))
    known = max(len(names), 1 + int(torch.cat([true, reported]).max()))
    return confusion(true, reported, known), [*names, *map(str, range(len(names), known))]


def _shown(counts: Counts) -> list[int]:
    """The classes that occur, if they are too many those with the most errors."""
    met = counts.sum(0) + counts.sum(1)
    errors = met - 2 * counts.diagonal()
    occurring = met.nonzero()[:, 0].tolist()
    return sorted(sorted(occurring, key=lambda i: -errors[i])[:MOST_CLASSES])


def _left_out(counts: Counts, shown: list[int]) -> str:
    """What is said of classes that are not shown."""
    occurring = int((counts.sum(0) + counts.sum(1)).count_nonzero())
    return "" if len(shown) == occurring else f"Of {occurring} classes the {len(shown)} with the most errors."


def _overlap_table(found: pa.Table) -> Table:
    rows = []
    for (interpreter, images), its in groups(found, "interpreter", "images"):
        measured = {title: its[column].to_numpy() for title, column in MEASURES.items()}
        estimates = {title: mean_interval(values) for title, values in measured.items()}
        estimates["pointing"] = share(measured["pointing"])
        cells = tuple((Value(title, estimate),) for title, estimate in estimates.items())
        rows.append(Row((interpreter_name(interpreter), attack_name(images)), cells))
    title = "How much of the maps lies on the lesion"
    note = (
        "IoU: of the cells above the map's mean with the lesion; inside: share of the map's sum; pointing: the peak "
        "is on the lesion. Attacked images are those that are diagnosed as the attack wants: a map that stays on the "
        "lesion does not tell."
    )
    return Table("overlap", title, ("Interpreter", "Images"), tuple(MEASURES), tuple(rows), note)


def _predicted(classifier: Classifier, image_set: ImageSet, batch_size: int) -> pa.Table:
    def classify(images: Images) -> Logits:
        return classifier(images.to(classifier.device)).cpu()

    found = predict(classify, image_set, batch_size)
    return per_image(PREDICTION_COLUMNS, found.ids, class_true=found.labels, class_predicted=found.predicted)


def _overlapping(run: Run, image_set: ImageSet, masks: ImageSet) -> pa.Table:
    located, fooled = _located(run.ids, image_set, masks), _fooled(run.outcomes())
    place = {name: i for i, name in enumerate(located.chosen.ids)}
    parts = [OVERLAP_COLUMNS.empty_table()]
    for interpreter in effectiveness.recorded(run).explainers:
        shown = {"benign": set(place)} | {attack: fooled[attack, interpreter.name] & set(place) for attack in ATTACKS}
        for images, wanted in shown.items():
            if wanted:
                ids, maps = run.maps(images, interpreter.name, only=wanted)
                measured = overlap(torch.from_numpy(maps), located.objects[[place[name] for name in ids]])
                parts.append(per_image(OVERLAP_COLUMNS, ids, interpreter=interpreter.name, images=images, **measured))
    return pa.concat_tables(parts)


def overlap(maps: Maps, objects: Bool[Tensor, "n rows columns"]) -> dict[str, Tensor]:
    """The three measures of each map against the pixels of its object; a map of zeros is nowhere."""
    shown = upscaled(maps, *objects.shape[1:])
    total = shown.sum((1, 2))
    inside = torch.where(total > 0, (shown * objects).sum((1, 2)) / total.clamp_min(1e-12), 0.0)
    return {"iou": iou(above_mean(shown), objects), "inside": inside, "points_at_object": hits(shown, objects)}


def _located(ids: tuple[str, ...], image_set: ImageSet, masks: ImageSet) -> LocatedObjects:
    """These images with their objects, without those whose masks cannot be read or show none."""
    place = {name: i for i, name in enumerate(image_set.ids)}
    places = [place[name] for name in ids]
    return locate(image_set.take(places), masks.take(places), len(ids), seed=0)


def _fooled(outcomes: pa.Table) -> dict[tuple[str, str], set[str]]:
    """The images on which attacks succeeded, by attack and interpreter."""
    fooled = defaultdict[tuple[str, str], set[str]](set)
    names = ("attack", "interpreter", "id", "success")
    for attack, interpreter, id, success in zip(*(outcomes[name].to_pylist() for name in names), strict=True):
        if success:
            fooled[attack, interpreter].add(id)
    return fooled


def _add(run: Run, request: StudySettings, subject: Subject, manner: Manner) -> None:
    add(run, subject, manner.batch_size)


def _lacking(request: StudySettings) -> str | None:
    return NEEDS_LABELS if request.unlabelled else None


STUDY = Study(effectiveness.attacking(), (OUTCOMES, PREDICTIONS), tables, figures, add=_add, lacking=_lacking)
