"""Can maps be led to those of another image? ADV2 after the benign map of an image of another class (Table 8, Fig. 12
and 13; 21 and 22 on a DenseNet).
"""

from collections.abc import Iterator

from underfire.metrics.intervals import Estimate
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import effectiveness, paper
from underfire.studies.averages import Averages, success_table
from underfire.studies.base import Study
from underfire.studies.figures import Drawing, Figure, Panel, Series, bars, papers
from underfire.studies.galleries import above_adversarial, image
from underfire.studies.tables import Row, Table, Value

MEASURES = {"ΔL1": ("benign_l1", "map_l1"), "IoU": ("benign_iou", "iou_mean")}  # to benign and to target maps
COMPARED = ("benign", "target")


def tables(run: Run) -> Iterator[Table]:
    """Table 8 and the numbers of Fig. 13."""
    means, printed = Averages.of(run), {("adv2", name): pair for name, pair in paper.CLASS.items()}
    yield success_table(means, "table-8", "Table 8. ASR (MC) of ADV² with random class interpretations", printed)
    rows = [
        Row((f"{measure}, {to}",), tuple((Value(measure, value),) for value in values))
        for (measure, to), values in led_away(means).items()
    ]
    title = "Fig. 13 in numbers. ADV² maps against benign and target maps"
    yield Table("figure-13", title, ("",), means.headings, tuple(rows))


def figures(run: Run) -> Iterator[Figure]:
    """Maps beside those of the other images, and how far they are from both."""
    means, of_resnet = Averages.of(run), paper.network_of(run.info) == "ResNet"
    yield papers(
        12 if of_resnet else 21,
        "Target and adversarial (ADV²) inputs and their attribution maps",
        lambda: above_adversarial(run, means.interpreters, "target", _donor),
    )
    yield papers(
        13 if of_resnet else 22,
        "L1 measures (a) and IoU scores (b) of adversarial maps against benign and target maps",
        lambda: _bars(means),
    )


def led_away(means: Averages) -> dict[tuple[str, str], list[Estimate | None]]:
    """L1 and IoU of ADV2 maps against benign and target maps, for each interpreter."""
    return {
        (measure, to): [means.mean("adv2", name, column) for name in means.interpreters]
        for measure, columns in MEASURES.items()
        for to, column in zip(COMPARED, columns, strict=True)
    }


def _bars(means: Averages) -> Drawing:
    found = led_away(means)
    panels = [(each, [Series(f"to the {to} map", found[each, to]) for to in COMPARED]) for each in MEASURES]
    return bars(means.headings, panels)


def _donor(run: Run, id: str) -> Panel:
    """The image whose benign map is wanted, if there is one."""
    outcomes = run.outcomes()
    donors = dict(zip(outcomes["id"].to_pylist(), outcomes["target_map_of"].to_pylist(), strict=True))
    return None if donors[id] is None else image(run, donors[id])


STUDY = Study(effectiveness.attacking(target_map="random-class"), (OUTCOMES,), tables, figures)
