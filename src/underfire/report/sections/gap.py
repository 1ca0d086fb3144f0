"""What an attack moves between two pictures: both losses of Proposition 1 image by image, and what IG would show."""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from underfire.core.errors import UnderfireError
from underfire.report.figures import Plot, embedded
from underfire.report.sections.part import complete_table
from underfire.studies.gap import SCHEMA, both_sides_and_map, scatter
from underfire.studies.tables import html_of


@dataclass(frozen=True)
class Gap:
    """What the section shows."""

    table: Markup
    plot: Plot


def compose(path: Path) -> Gap:
    """What the table of both losses says; UnderfireError if it is damaged."""
    rows = complete_table(path, SCHEMA, optional=("interpreter", "ig_iou"))
    if set(rows["attack"].to_pylist()) <= {"benign"}:
        raise UnderfireError(f"{path} contains no attacked image; delete it and run the command again.")
    table = both_sides_and_map(rows)
    return Gap(Markup(html_of(table, table.notes)), embedded(scatter(rows)))  # escapes whatever it is given
