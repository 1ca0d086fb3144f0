"""Why both can be fooled at once: the bound of Proposition 1, image by image."""

from dataclasses import dataclass
from pathlib import Path

from underfire.attacks.names import made_for
from underfire.core.errors import UnderfireError
from underfire.report.figures import Plot, embedded
from underfire.report.sections.part import complete_table
from underfire.studies.gap import SCHEMA, GapSummary, scatter, summarise


@dataclass(frozen=True)
class Gap:
    """What the section shows."""

    sentences: tuple[str, ...]
    plot: Plot


def compose(path: Path) -> Gap:
    """What the table of both losses says; UnderfireError if it is damaged."""
    table = complete_table(path, SCHEMA, optional=("interpreter",))
    if set(table["attack"].to_pylist()) <= {"benign"}:
        raise UnderfireError(f"{path} contains no attacked image; delete it and run the command again.")
    return Gap(tuple(_sentences(summarise(table))), embedded(scatter(table)))


def _sentences(summaries: list[GapSummary]) -> list[str]:
    moved = [each for each in summaries if each.attack != "benign"]
    n, beyond = sum(each.gap.n for each in moved), sum(each.beyond for each in moved)
    images = f"all {n} images" if not beyond else f"{n - beyond} of {n} images"
    gaps = "; ".join(f"{made_for(each.attack, each.interpreter)} {each.gap.value:.3f}" for each in moved)
    return [
        "Proposition 1: the prediction loss of an image is at most its interpretation loss, by integrated gradients "
        f"from its benign picture. That holds on {images}, up to the error of the integral.",
        f"Interpretation loss minus prediction loss, on average: {gaps}.",
    ]
