"""Does it work by bending the image? StAdv against ADV2 on StAdv (Fig. 9 and 10; 19 and 20 on a DenseNet)."""

from collections.abc import Iterator

from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import effectiveness
from underfire.studies.averages import Averages, distance_bars, distance_table, iou_bars, iou_table, success_table
from underfire.studies.base import Study
from underfire.studies.figures import Figure, bars, papers
from underfire.studies.galleries import by_attack
from underfire.studies.paper import network_of
from underfire.studies.tables import Table


def tables(run: Run) -> Iterator[Table]:
    """The numbers of Fig. 10 and 20; the paper prints none."""
    means = Averages.of(run)
    yield success_table(means, "stadv-asr", "ASR (MC) of StAdv and ADV² on StAdv", {})
    yield distance_table(means, "figure-10-l1", "Fig. 10 (a) in numbers. Distance to the benign map", {})
    yield iou_table(means, "figure-10-iou", "Fig. 10 (b) in numbers. IoU with the benign map")


def figures(run: Run) -> Iterator[Figure]:
    """Maps by attack, and what is measured of them."""
    means, of_resnet = Averages.of(run), network_of(run.info) == "ResNet"
    yield papers(
        9 if of_resnet else 19,
        "Attribution maps of benign and adversarial (StAdv, ADV² on StAdv) inputs",
        lambda: by_attack(run, means),
    )
    yield papers(
        10 if of_resnet else 20,
        "L1 measures (a) and IoU scores (b) with respect to benign maps",
        lambda: bars(means.headings, [distance_bars(means, {}), iou_bars(means)]),
    )


STUDY = Study(effectiveness.attacking(solvers=("stadv",)), (OUTCOMES,), tables, figures)
