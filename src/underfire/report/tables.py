"""The averages of a run, its attacks side by side, over all images and over those that fooled: as rows of text, and as
the numbers behind them for other programs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import isnan

import pyarrow as pa

from underfire.attacks.names import in_order
from underfire.core.text import percent
from underfire.metrics.intervals import Estimate
from underfire.report.wording import Words
from underfire.runs.outcomes import AttackSummary, floors, summarise

AVERAGES = "averages.csv"
AVERAGES_COLUMNS = pa.schema(
    {
        "interpreter": pa.string(),
        "attack": pa.string(),  # null where no image was attacked
        "over": pa.string(),  # ALL images, FOOLED ones, or what attacks are to be held against, of FLOOR_NAMES
        "measure": pa.string(),  # of METRICS
        "value": pa.float64(),
        "low": pa.float64(),  # of the 95 % interval; null where there are too few images
        "high": pa.float64(),
        "n": pa.int64(),
    }
)
ALL, FOOLED = "all", "fooled"
NOTHING = "–"
FLOOR_NAMES = {"natural": "harmless changes", "unrelated": "other image", "mean_map": "mean map"}


@dataclass(frozen=True)
class Metric:
    """A row of the table: its name and meaning ("{}" is whose map the maps should look like), and how it is printed."""

    name: str
    meaning: str
    digits: int | None = 3  # None prints a share


METRICS: Mapping[str, Metric] = {
    "asr": Metric(
        "ASR",
        "Attack success rate: share of images that are reported from a PNG file as the target class or, where an "
        "attack has none, as any but the true one.",
        None,
    ),
    "mc": Metric(
        "MC", "Mean confidence of the target class, or of the one reported, over the images that fooled the classifier."
    ),
    "map_l1": Metric("ΔL1 to the {} map", "Mean absolute difference between the map and the {} map."),
    "benign_l1": Metric(
        "ΔL1 to the benign map",
        "Mean absolute difference between the map and the map of the benign image: large where the map was led away "
        "to the {} one.",
    ),
    "repeat_l1": Metric(
        "Own noise", "ΔL1 between two maps of the same benign image with other random draws: 0 where nothing is drawn."
    ),
    "map_l2": Metric("ΔL2 to the {} map", "Root mean square of the difference between the map and the {} map."),
    "iou_mean": Metric("IoU with the {} map", "Intersection over union of the two maps, each cut at its own mean."),
    "iou_half": Metric("IoU (0.5)", "The same with the fixed threshold 0.5, where either map reaches it."),
    "iou_top15": Metric("IoU (top 15 %)", "The same with the 15 % largest cells of each map."),
    "plausible": Metric(
        "{share}",
        "Share of maps with an IoU above 0.5 or a ΔL1 within the interpreter's own noise, where there is anything to "
        "see in the {} map.",
        None,
    ),
    "within_natural": Metric(
        "Within natural variation",
        "Share of maps no further from the benign one than harmless changes of the image move it: JPEG, a shift by one "
        "pixel, a crop by 2 %, noise, brightness; 95 % of them.",
        None,
    ),
    "unseen": Metric("Nothing to see", "Share of images whose {} map spans less than a quarter of the scale.", None),
    "success_last": Metric(
        "ASR, last iterate", "The same for the last image of each attack in place of the best.", None
    ),
    "success_float": Metric("ASR, as floats", "The same before images are rounded to the 8 bits of a PNG file.", None),
    "map_l1_float": Metric("ΔL1 to the {} map, as floats", "The same before rounding."),
    "success_jpeg95": Metric("ASR, JPEG 95", "The same once images are saved as JPEG of quality 95.", None),
    "map_l1_jpeg95": Metric("ΔL1 to the {} map, JPEG 95", "The map explains whatever class is reported then."),
    "success_jpeg75": Metric("ASR, JPEG 75", "The same once images are saved as JPEG of quality 75.", None),
    "map_l1_jpeg75": Metric("ΔL1 to the {} map, JPEG 75", "The map explains whatever class is reported then."),
    "linf": Metric("L∞", "Largest change of any pixel value, of a range from 0 to 1.", 4),
    "l2": Metric("L2", "Length of the change, over all values of the image."),
    "flow_mean": Metric("Flow", "Mean distance in pixels from a pixel to where it was taken from."),
    "flow_smoothness": Metric(
        "Roughness", "Sum of the differences between the flows of adjacent pixels, in pixels; StAdv keeps it small.", 0
    ),
}


@dataclass(frozen=True)
class AverageCell:
    """A mean of one of METRICS, None where it was not measured, and how it is printed with its interval."""

    metric: str
    estimate: Estimate | None

    @property
    def value(self) -> str:
        if self.estimate is None or isnan(self.estimate.value):
            return NOTHING
        digits = METRICS[self.metric].digits
        return percent(self.estimate.value) if digits is None else f"{self.estimate.value:.{digits}f}"

    @property
    def interval(self) -> str:
        if self.estimate is None or not self.estimate.has_interval:
            return ""
        digits, low, high = METRICS[self.metric].digits, self.estimate.low, self.estimate.high
        return f"{100 * low:.0f}–{100 * high:.0f}" if digits is None else f"{low:.{digits}f}–{high:.{digits}f}"


@dataclass(frozen=True)
class AverageColumn:
    """One attack, with how many images were attacked and how many fooled the classifier."""

    attack: str
    n: int
    fooled: int


@dataclass(frozen=True)
class AverageTable:
    """One interpreter: a row of cells per metric, and per attack two of them, over all images and over the fooling."""

    interpreter: str
    columns: tuple[AverageColumn, ...]
    floors: tuple[str, ...]  # what heads the last columns
    rows: tuple[tuple[str, tuple[AverageCell, ...]], ...]


def metrics_of(summaries: list[AttackSummary], targeted: bool) -> list[str]:
    """What a run's tables show: flows where images were bent, the benign map where it is not the target."""
    measured = {metric for summary in summaries for metric in summary.all_images} | {"asr", "mc"}
    absent = set() if targeted else {"benign_l1"}
    if not any(summary.all_images["unseen"].value for summary in summaries):
        absent.add("unseen")
    return [name for name in METRICS if name in measured - absent]


def definitions(shown: list[str], words: Words) -> dict[str, str]:
    """What the rows are called and mean."""
    return {_name(name, words): METRICS[name].meaning.format(words.wanted) for name in shown}


def tabulate(outcomes: pa.Table, summaries: list[AttackSummary], shown: list[str], words: Words) -> list[AverageTable]:
    """One table per interpreter, its attacks beside what they are to be held against."""
    grouped: dict[str, dict[str, AttackSummary]] = {}
    for summary in summaries:
        grouped.setdefault(summary.interpreter, {})[summary.attack] = summary
    return [
        _table(name, [by_attack[each] for each in in_order(by_attack)], floors(outcomes, name), shown, words)
        for name, by_attack in grouped.items()
    ]


def averages(tables: Iterable[AverageTable]) -> pa.Table:
    """Every number of these tables, one a row, with AVERAGES_COLUMNS."""
    rows = [
        {"interpreter": table.interpreter, **column, "measure": cell.metric, **cell.estimate.row()}
        for table in tables
        for _, cells in table.rows
        for column, cell in zip(_columns(table), cells, strict=True)
        if cell.estimate is not None and cell.estimate.n
    ]
    return pa.Table.from_pylist(rows, AVERAGES_COLUMNS)


def _columns(table: AverageTable) -> Iterator[dict[str, str]]:
    """For each column of cells the attack, and what its means are over."""
    yield from ({"attack": column.attack, "over": over} for column in table.columns for over in (ALL, FOOLED))
    yield from ({"over": floor} for floor in table.floors)


def heads(words: Words, targeted: bool) -> tuple[str, ...]:
    """What heads the columns of `lines`."""
    wanted, other = words.wanted, "ΔL1 to\nbenign map" if targeted else "noise"
    return ("ASR", "MC", f"ΔL1 to\n{wanted} map", other, f"IoU with\n{wanted} map", words.share.lower())


def lines(outcomes: pa.Table, targeted: bool) -> Iterator[tuple[str, ...]]:
    """A run in numbers for a terminal: interpreter, attack and numbers over all images, and where some did not fool the
    classifier a second line over those that did; then the floors of each interpreter.
    """
    other = "benign_l1" if targeted else "repeat_l1"
    summaries = summarise(outcomes)
    for place, each in enumerate(summaries):
        asr, mc = AverageCell("asr", each.asr).value, AverageCell("mc", each.mc).value
        yield each.interpreter, each.attack, asr, mc, *_printed(each.all_images, other)
        if each.asr.value < 1:
            yield "", f"{each.mc.n} fooled", "", "", *_printed(each.successes, other)
        if each.interpreter not in [later.interpreter for later in summaries[place + 1 :]]:
            for name, floor in floors(outcomes, each.interpreter).items():
                yield "", FLOOR_NAMES[name], "", "", *_printed(floor, other)


def _printed(averages: Mapping[str, Estimate], other: str) -> Iterator[str]:
    distance, alike = AverageCell("map_l1", averages["map_l1"]), averages["plausible"]
    yield f"{distance.value} [{distance.interval}]" if distance.interval else distance.value
    yield AverageCell(other, averages[other]).value if other in averages else ""
    yield AverageCell("iou_mean", averages["iou_mean"]).value
    yield f"{round(alike.value * alike.n)} of {alike.n}" if alike.n else NOTHING


def _table(
    interpreter: str,
    summaries: list[AttackSummary],
    beside: Mapping[str, Mapping[str, Estimate]],
    shown: list[str],
    words: Words,
) -> AverageTable:
    columns = [*chain(*map(_estimates, summaries)), *beside.values()]
    cells = {name: [AverageCell(name, column.get(name)) for column in columns] for name in shown}
    return AverageTable(
        interpreter=interpreter,
        columns=tuple(AverageColumn(each.attack, each.asr.n, each.mc.n) for each in summaries),
        floors=tuple(FLOOR_NAMES[name] for name in beside),
        rows=tuple((_name(name, words), tuple(row)) for name, row in cells.items()),
    )


def _estimates(summary: AttackSummary) -> tuple[Mapping[str, Estimate], Mapping[str, Estimate]]:
    """Over all images and over those that fooled the classifier, of whom alone the confidence is told."""
    return {**summary.all_images, "asr": summary.asr}, {**summary.successes, "mc": summary.mc}


def _name(metric: str, words: Words) -> str:
    return METRICS[metric].name.format(words.wanted, share=words.share)
