"""Assembling the page: everything the template shows is computed here.

write_report(run, path)                # the lead of a run of attacks, or a sentence that says what it lacks
write_report(run, path, first=lead)    # what else a folder is about says first, see `underfire.report.lead`
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from underfire.attacks.names import attack_name, interpreter_name
from underfire.core.io import write_atomically, write_csv
from underfire.data.image_set import Numbering
from underfire.metrics.intervals import FEWEST
from underfire.report import gallery, lead, tables, tallies, verdict
from underfire.report.lead import Lead
from underfire.report.sections import audit, classes, detection, distances, gap, studies, transfer
from underfire.report.sections.part import part
from underfire.report.sections.studies import Section
from underfire.report.view import RunView, flatten
from underfire.report.wording import wording
from underfire.runs.folder import is_targeted, open_run
from underfire.runs.outcomes import quoted, summarise
from underfire.studies.audits import AUDIT
from underfire.studies.catalogue import done
from underfire.studies.detections import TABLE as DETECTIONS
from underfire.studies.gap import TABLE as GAPS
from underfire.studies.transfers import TABLE as TRANSFERS

REPORT = "report.html"
DATA = ("images", "labels", "split", "crop", "resize", "images_digest")
RUN = ("underfire", "created", "seed", "device")
NO_ATTACK = "There is no verdict on a run of attacks here; what was studied follows."
NO_LABELS = (
    "The images have no labels: what the model reports of a picture is taken for true, so that nothing here says how "
    "often it is right."
)
PARTS: Mapping[str, tuple[str, Callable[[Path], Any]]] = {  # by section: the file, and what the section makes of it
    "audit": (AUDIT, audit.compose),
    "detection": (DETECTIONS, detection.compose),
    "transfer": (TRANSFERS, transfer.compose),
    "gap": (GAPS, gap.compose),
}


def write_report_of(folder: Path) -> Path:
    """Write the report of a run folder or a folder of studies into it, and return its path; UnderfireError if it is
    neither.

    The verdict and the gallery of studies are those of the first that attacked, if possible with benign target maps.
    """
    runs = done(folder)
    if not runs:
        run = open_run(folder)
        alone = {folder.resolve().name: run} if run.shares_stages else {}
        return write_report(run, folder / REPORT, sections=studies.compose(alone))
    attacked = [run for run in runs.values() if run.outcomes().num_rows]
    leading = min(attacked or runs.values(), key=lambda run: is_targeted(run.info))
    added = {"evasiveness": DETECTIONS, "transfer": TRANSFERS, "gap": GAPS}
    elsewhere = {table: runs[name].path / table for name, table in added.items() if name in runs}
    return write_report(leading, folder / REPORT, elsewhere, studies.compose(runs))


def write_report(
    run: RunView,
    path: Path,
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
    sections: tuple[Section, ...] = (),
    first: Lead | None = None,
) -> Path:
    """Write the report of a run, finished or partial, and its averages beside it as numbers; return the report's path.

    It leads with what its attacks came to, or with the given `first`.

    Tables of studies are looked for in the run's folder; `elsewhere` has the paths of those that lie elsewhere, by file
    name.
    """
    content = _content(run, elsewhere, sections, first)
    page = _template().render(content)
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    if content["tables"]:
        write_csv(path.with_name(tables.AVERAGES), tables.averages(content["tables"]))
    return path


@cache
def _template() -> Template:
    """The page, whose parts are compiled once."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("underfire.report", folder) for folder in ("templates", "static")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(attack_name=attack_name, interpreter_name=interpreter_name, showing=lead.showing)
    return environment.get_template("page.html")


def _content(
    run: RunView, elsewhere: Mapping[str, Path], sections: tuple[Section, ...], first: Lead | None
) -> dict[str, Any]:
    """The names that the template knows."""
    info, outcomes = run.info, quoted(run.outcomes())
    summaries, targeted, words = summarise(outcomes), is_targeted(info), wording(info)
    shown = tables.metrics_of(summaries, targeted)
    judged, verdicts = tallies.told_apart(outcomes, words), verdict.judge(outcomes, words)
    cards = gallery.collect(run, judged, info.get("classes", ()), ("benign", "target") if targeted else ("benign",))
    typical = cards.cards[0].id if cards.cards else None
    audited = audit.lead(run.path, typical)
    parts = [] if audited else verdict.missing_parts(outcomes, info)  # attacks of an audit meet what others left
    return {
        "model": _short(info.get("model", {}).get("name", "model not recorded")),
        "created": str(info.get("created", "")).partition("T")[0],
        "images": len(pc.unique(outcomes["id"])),
        "words": words,
        "lead": first or audited or lead.attacks_lead(verdicts, outcomes, info, words, typical),
        "verdicts": verdicts,
        "missing": _missing(outcomes, info, sections, parts),
        "studies": sections,
        "tables": tables.tabulate(outcomes, summaries, shown, words),
        "definitions": tables.definitions(shown, words),
        "fewest": FEWEST,
        "distances": distances.compose(outcomes, words),
        "classes": classes.compose(judged, info.get("classes", ())),
        "gallery": cards,
        "data": {**cards.data(list(words.endings)), "endings": list(words.endings.items()), "targeted": targeted},
        "facts": _facts(info),
        "skipped": info.get("skipped", ()),
        "command": info.get("command"),
        **{name: part(elsewhere.get(table, run.path / table), compose) for name, (table, compose) in PARTS.items()},
    }


def _missing(outcomes: pa.Table, info: Mapping[str, Any], sections: tuple[Section, ...], parts: list[str]) -> list[str]:
    """What keeps the verdict from being complete, or from being there."""
    if sections and not outcomes.num_rows and not any(each.problem for each in sections):
        return [NO_ATTACK]
    unlabelled = [NO_LABELS] if info.get("labels_by") == Numbering.PREDICTED else []
    return [*unlabelled, *parts]


def _short(model: str) -> str:
    """A model without the folders of the file of its builder."""
    return model.rpartition("/")[2] if ".py:" in model else model


def _facts(info: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Where model and images come from and how the run was made, in groups; a group that the run lacks is left out."""
    spec = info.get("spec", {})
    data = {name: spec.get(name) for name in DATA}
    seconds = {stage: f"{value:.1f} s" for stage, value in info.get("wall_seconds", {}).items()}
    groups = {
        "Model": flatten(info.get("model", {})),
        "Images": flatten({**data, "labels by": info.get("labels_by"), **info.get("selection", {})}),
        "Run": flatten({name: info[name] for name in RUN if name in info}),
        "Explanations": {name: " ".join(remarks) for name, remarks in info.get("remarks", {}).items()},
        "Parameters": flatten({name: value for name, value in spec.items() if name not in DATA}),
        "Versions": flatten(info.get("versions", {})),
        "Wall time": seconds,
    }
    return {title: facts for title, facts in groups.items() if facts}
