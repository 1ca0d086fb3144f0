"""Can maps be led to those of another image? ADV2 after the benign map of an image of another class (Table 8, Fig. 12
and 13; 21 and 22 on a DenseNet).
"""

from collections.abc import Iterator

import torch

from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import compare_maps
from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import effectiveness, paper
from underfire.studies.averages import Averages, success_table
from underfire.studies.base import Study
from underfire.studies.figures import Drawing, Figure, Panel, Series, bars, papers
from underfire.studies.galleries import above_adversarial, image
from underfire.studies.tables import Row, Table, Value

MEASURES = {"ΔL1": "map_l1", "IoU": "iou_mean"}
COMPARED = ("benign", "target")


def tables(run: Run) -> Iterator[Table]:
    """Table 8 and the numbers of Fig. 13."""
    means, printed = Averages.of(run), {("adv2", name): pair for name, pair in paper.CLASS.items()}
    yield success_table(means, "table-8", "Table 8. ASR (MC) of ADV² with random class interpretations", printed)
    rows = [
        Row((f"{measure}, {to}",), tuple((Value(measure, value),) for value in values))
        for (measure, to), values in led_away(run, means.interpreters).items()
    ]
    title = "Fig. 13 in numbers. ADV² maps against benign and target maps"
    yield Table("figure-13", title, ("",), means.headings, tuple(rows))


def figures(run: Run) -> Iterator[Figure]:
    """Maps beside those of the other images, and how far they are from both."""
    means, of_resnet = Averages.of(run), paper.network_of(run.info["model"]["name"]) == "ResNet"
    yield papers(
        12 if of_resnet else 21,
        "Target and adversarial (ADV²) inputs and their attribution maps",
        lambda: above_adversarial(run, means.interpreters, "target", _donor),
    )
    yield papers(
        13 if of_resnet else 22,
        "L1 measures (a) and IoU scores (b) of adversarial maps against benign and target maps",
        lambda: _bars(run, means),
    )


def led_away(run: Run, interpreters: list[str]) -> dict[tuple[str, str], list[Estimate]]:
    """L1 and IoU of ADV2 maps against benign and target maps, for each interpreter."""
    found: dict[tuple[str, str], list[Estimate]] = {(measure, to): [] for measure in MEASURES for to in COMPARED}
    for name in interpreters:
        adversarial = torch.from_numpy(run.maps("adv2", name)[1])
        for to in COMPARED:
            compared = compare_maps(adversarial, torch.from_numpy(run.maps(to, name)[1]))
            for measure, column in MEASURES.items():
                found[measure, to].append(mean_interval(compared[column].numpy()))
    return found


def _bars(run: Run, means: Averages) -> Drawing:
    found = led_away(run, means.interpreters)
    panels = [(each, [Series(f"to the {to} map", found[each, to]) for to in COMPARED]) for each in MEASURES]
    return bars(means.headings, panels)


def _donor(run: Run, id: str) -> Panel:
    """The image whose benign map is wanted, if there is one."""
    outcomes = run.outcomes()
    donors = dict(zip(outcomes["id"].to_pylist(), outcomes["target_map_of"].to_pylist(), strict=True))
    return None if donors[id] is None else image(run, donors[id])


STUDY = Study(effectiveness.attacking(target_map="random-class"), (OUTCOMES,), tables, figures)
