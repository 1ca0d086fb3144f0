"""The averages of a run as rows of text, its attacks side by side."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan

from underfire.attacks.names import in_order
from underfire.metrics.intervals import Estimate
from underfire.report.verdict import percent
from underfire.runs.outcomes import AttackSummary

SHARE = "Plausible"  # `Words.share` in the page
DEFINITIONS = {
    "ASR": "Attack success rate: share of images whose predicted class is the target class.",
    "MC": "Mean confidence of the target class, over the successes.",
    "ΔL1": "Mean absolute difference between the map and the map that it should look like: "
    "the map of the benign image, unless another target map was chosen.",
    "ΔL1 to benign": "Mean absolute difference between the map and the map of the benign image: large beside ΔL1 where "
    "the map was led away to the wanted one.",
    "Own noise": "ΔL1 between two maps of the same benign image with other random draws: 0 where nothing is drawn.",
    "ΔL2": "Root mean square of the same difference.",
    "IoU (mean)": "Intersection over union of the two maps, each thresholded at its own mean.",
    "IoU (0.5)": "The same with the fixed threshold 0.5.",
    "IoU (top 15 %)": "The same with the 15 % largest cells of each map.",
    SHARE: "Share of maps with IoU (mean) above 0.5.",
    "8 bits": "Share of images still reported as the target class after rounding to 8 bits, as in a PNG file.",
    "L∞": "Largest change of any pixel value, of a range from 0 to 1.",
    "Flow": "Mean distance in pixels from a pixel to where it was taken from.",
    "Roughness": "Sum of the differences between the flows of adjacent pixels, in pixels; StAdv keeps it small.",
}
MAP_METRICS = {
    "ΔL1": "map_l1",
    "ΔL1 to benign": "benign_l1",
    "Own noise": "repeat_l1",
    "ΔL2": "map_l2",
    "IoU (mean)": "iou_mean",
    "IoU (0.5)": "iou_half",
    "IoU (top 15 %)": "iou_top15",
    SHARE: "plausible",
    "8 bits": "success_8bit",
    "L∞": "linf",
    "Flow": "flow_mean",
    "Roughness": "flow_smoothness",
}
SHARES = ("ASR", SHARE, "8 bits")
DIGITS = {"L∞": 4, "Roughness": 0}  # 3 for the others


@dataclass(frozen=True)
class AverageCell:
    """A mean and its interval, as they are printed."""

    value: str
    interval: str


@dataclass(frozen=True)
class AverageTable:
    """One interpreter: a row of cells per metric, a column per attack."""

    interpreter: str
    columns: tuple[tuple[str, int], ...]  # attack and number of images
    rows: tuple[tuple[str, tuple[AverageCell, ...]], ...]


def definitions(summaries: list[AttackSummary], targeted: bool) -> dict[str, str]:
    """The metrics that a run's tables show: flows where images were bent, the benign map where it is not the target."""
    measured = {metric for summary in summaries for metric in summary.all_images}
    absent = {name for name, metric in MAP_METRICS.items() if metric not in measured}
    absent |= set() if targeted else {"ΔL1 to benign"}
    return {name: text for name, text in DEFINITIONS.items() if name not in absent}


def tabulate(summaries: list[AttackSummary], successes: bool, shown: Iterable[str]) -> list[AverageTable]:
    """One table per interpreter over all images, or over the successful ones."""
    grouped: dict[str, dict[str, AttackSummary]] = {}
    for summary in summaries:
        grouped.setdefault(summary.interpreter, {})[summary.attack] = summary
    return [
        _table(name, [by_attack[attack] for attack in in_order(by_attack)], successes, tuple(shown))
        for name, by_attack in grouped.items()
    ]


def _table(interpreter: str, summaries: list[AttackSummary], successes: bool, shown: tuple[str, ...]) -> AverageTable:
    columns = [_estimates(each, each.successes if successes else each.all_images) for each in summaries]
    return AverageTable(
        interpreter=interpreter,
        columns=tuple((each.attack, column["ΔL1"].n) for each, column in zip(summaries, columns, strict=True)),
        rows=tuple((name, tuple(_cell(name, column.get(name)) for column in columns)) for name in shown),
    )


def _estimates(summary: AttackSummary, averages: Mapping[str, Estimate]) -> dict[str, Estimate]:
    distances = {name: averages[metric] for name, metric in MAP_METRICS.items() if metric in averages}
    return {"ASR": summary.asr, "MC": summary.mc, **distances}


def _cell(name: str, estimate: Estimate | None) -> AverageCell:
    if estimate is None or isnan(estimate.value):
        return AverageCell("–", "")
    if name in SHARES:
        return AverageCell(percent(estimate.value), f"{100 * estimate.low:.0f}–{100 * estimate.high:.0f}")
    digits = DIGITS.get(name, 3)
    return AverageCell(f"{estimate.value:.{digits}f}", f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}")
