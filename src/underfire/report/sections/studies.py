"""The paper's tables and figures from the studies of a folder, each under the question that it answers."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from underfire.core.errors import UnderfireError
from underfire.core.io import read_table
from underfire.report.figures import Plot, photograph
from underfire.runs.folder import Run
from underfire.runs.outcomes import COLUMNS_SCHEMA, OUTCOMES
from underfire.studies.catalogue import STUDIES, Entry
from underfire.studies.figures import png
from underfire.studies.tables import html_of


@dataclass(frozen=True)
class Section:
    """One study; `problem` says what keeps it from being shown, if anything does."""

    name: str
    question: str
    paper: str
    images: int | None
    tables: tuple[Markup, ...] = ()
    figures: tuple[tuple[str, Plot], ...] = ()
    problem: str = ""


def compose(runs: Mapping[str, Run]) -> tuple[Section, ...]:
    """A section per study; one that is not finished says so, and what is not a study has none."""
    return tuple(_section(STUDIES[name], run) for name, run in runs.items() if name in STUDIES)


def _section(entry: Entry, run: Run) -> Section:
    study, images = entry.study, run.info.get("selection", {}).get("requested")
    if not study.is_finished(run):
        return Section(entry.name, entry.question, entry.paper, images, problem="Not finished yet; run it again.")
    try:
        if OUTCOMES in study.leaves:
            read_table(run.path / OUTCOMES, COLUMNS_SCHEMA)  # says so where another version wrote it
        tables = tuple(
            Markup(html_of(table, (table.note,) if table.note else ())) for table in study.tables(run)
        )  # escapes whatever it is given
        figures = tuple((each.title, photograph(png(each.draw()))) for each in study.figures(run))
    except UnderfireError as problem:
        return Section(entry.name, entry.question, entry.paper, images, problem=str(problem))
    return Section(entry.name, entry.question, entry.paper, images, tables, figures)
