"""What a clinician would ask of a classifier and its maps (case study of skin lesions: Table 13, Fig. 7, 8 and 18).

    run = effectiveness.execute(settings, classifier, image_set, Path("runs/x"), command="…")
    add(run, classifier, image_set, masks)
    overlaps(run), predictions(run)

To the run of an attack this adds how often the classifier is right, on all images of the set, and, with masks, how
much of each map lies on the lesion: of benign images, and of attacked ones whose diagnosis is wrong.

    IoU       of the cells above the map's own mean with the lesion
    inside    sum of the map on the lesion / sum of the map
    pointing  whether the map's peak is on the lesion
"""

from collections.abc import Iterator
from functools import partial

import pyarrow as pa
import torch

from underfire.classifiers import Classifier
from underfire.confusion import Counts, accuracy, balanced_accuracy, confusion, recalls
from underfire.data import ImageSet, predict
from underfire.localisation import hits, upscaled
from underfire.metrics import Masks, above_mean, iou, mean_interval
from underfire.names import attack_name, interpreter_name
from underfire.plots import confusion_matrix
from underfire.stages import Select, key
from underfire.store import Run, read_table, rows_where, write_table
from underfire.studies import attack_figures, attack_tables, effectiveness, paper
from underfire.studies.figures import Drawing, Figure
from underfire.studies.tables import Row, Table, Value
from underfire.types import Images, Logits, Maps, UnderfireError

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
MEASURES = {"IoU": "iou", "inside": "inside", "pointing": "points_at_object"}


def add(run: Run, classifier: Classifier, image_set: ImageSet, masks: ImageSet | None, width: int = 16) -> None:
    """Write the tables that the run lacks; UnderfireError if a mask has another size than its image."""
    if not (run.path / PREDICTIONS).exists():
        write_table(run.path / PREDICTIONS, _predicted(classifier, image_set, width))
    if masks is not None and not (run.path / OVERLAPS).exists():
        write_table(run.path / OVERLAPS, _overlapping(run, image_set, masks))


def overlaps(run: Run) -> pa.Table:
    """One row per image x interpreter x kind of image; none where no masks were given."""
    path = run.path / OVERLAPS
    return read_table(path, OVERLAP_COLUMNS) if path.exists() else OVERLAP_COLUMNS.empty_table()


def predictions(run: Run) -> pa.Table:
    """One row per image of the set that the run chose from."""
    return read_table(run.path / PREDICTIONS, PREDICTION_COLUMNS)


def tables(run: Run) -> Iterator[Table]:
    """Table 13, the numbers of Fig. 8 and 18, and how much of the maps is on lesions."""
    yield from attack_tables.case_study(run)
    counts, classes = _counts(run), run.info["classes"]
    rows = [
        Row(("all images",), ((Value("accuracy", accuracy(counts), percent=True),),)),
        Row(
            ("classes alike",),
            ((Value("balanced accuracy", balanced_accuracy(counts), paper.SKIN_ACCURACY, percent=True),),),
        ),
        *(
            Row((name,), ((Value("recall", each, percent=True),),))
            for name, each in zip(classes, recalls(counts), strict=True)
        ),
    ]
    title = f"Fig. 18 in numbers. How often the classifier is right, {int(counts.sum())} images"
    yield Table("classifier", title, ("",), ("right",), tuple(rows))
    if (found := overlaps(run)).num_rows:
        yield _overlap_table(found)


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 7, 8 and 18."""
    yield from attack_figures.case_study(run)
    title = "Fig. 18. Confusion matrix of the classifier"
    yield Figure("figure-18", title, partial(_confusion, run))


def _confusion(run: Run) -> Drawing:
    return confusion_matrix(_counts(run).numpy(), run.info["classes"])


def _counts(run: Run) -> Counts:
    table = predictions(run)
    true, reported = (torch.from_numpy(table[name].to_numpy()) for name in ("class_true", "class_predicted"))
    return confusion(true, reported, len(run.info["classes"]))


def _overlap_table(found: pa.Table) -> Table:
    pairs = dict.fromkeys(zip(*(found[name].to_pylist() for name in ("interpreter", "images")), strict=True))
    rows = []
    for interpreter, images in pairs:
        its = rows_where(found, interpreter=interpreter, images=images)
        cells = tuple((Value(title, mean_interval(its[column].to_numpy())),) for title, column in MEASURES.items())
        rows.append(Row((interpreter_name(interpreter), attack_name(images)), cells))
    title = "How much of the maps lies on the lesion"
    note = (
        "IoU: of the cells above the map's mean with the lesion; inside: share of the map's sum; pointing: the peak "
        "is on the lesion. Attacked images are diagnosed wrongly: a map that stays on the lesion does not tell."
    )
    return Table("overlap", title, ("Interpreter", "Images"), tuple(MEASURES), tuple(rows), note)


def _predicted(classifier: Classifier, image_set: ImageSet, width: int) -> pa.Table:
    def classify(images: Images) -> Logits:
        return classifier(images.to(classifier.device)).logits.cpu()

    found = predict(classify, image_set, width)
    columns = {"id": found.ids, "class_true": found.labels.tolist(), "class_predicted": found.predicted.tolist()}
    return pa.table(columns, PREDICTION_COLUMNS)


def _overlapping(run: Run, image_set: ImageSet, masks: ImageSet) -> pa.Table:
    settings, select = effectiveness.recorded(run)
    ids = run.store.done(key(select))
    objects = _objects(ids, run, select, image_set, masks)
    parts = []
    for interpreter in settings.explainers():
        for images in ("benign", "pgd", "adv2"):
            maps = torch.from_numpy(run.maps(images, interpreter.name)[1])
            measured = {name: values.tolist() for name, values in overlap(maps, objects).items()}
            columns = {
                "id": ids,
                "interpreter": [interpreter.name] * len(ids),
                "images": [images] * len(ids),
                **measured,
            }
            parts.append(pa.table(columns, OVERLAP_COLUMNS))
    return pa.concat_tables(parts)


def overlap(maps: Maps, objects: Masks) -> dict[str, torch.Tensor]:
    """The three measures of each map against the pixels of its object; a map of zeros is nowhere."""
    shown = upscaled(maps, *objects.shape[1:])
    total = shown.sum((1, 2))
    inside = torch.where(total > 0, (shown * objects).sum((1, 2)) / total.clamp_min(1e-12), 0.0)
    return {"iou": iou(above_mean(shown), objects), "inside": inside, "points_at_object": hits(shown, objects)}


def _objects(ids: tuple[str, ...], run: Run, select: Select, image_set: ImageSet, masks: ImageSet) -> Masks:
    place = {name: i for i, name in enumerate(image_set.ids)}
    objects = torch.stack([masks.read(place[name]).mean(0) > 0.5 for name in ids])
    sides = run.store.read(key(select), "image", ids[:1]).shape[2:]
    if objects.shape[1:] != sides:
        raise UnderfireError("The masks have another size than the images; give both one size with --crop.")
    return objects
