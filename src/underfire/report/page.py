"""Assembling the page: everything the template shows is computed here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from underfire.attacks.names import attack_name, in_order, interpreter_name
from underfire.core.io import write_atomically
from underfire.metrics.intervals import FEWEST
from underfire.metrics.maps import PLAUSIBLE
from underfire.report import figures, gallery, tables, verdict
from underfire.report.sections import detection, gap, studies, transfer
from underfire.report.sections.part import part
from underfire.report.sections.studies import Section
from underfire.report.view import RunView, flatten
from underfire.report.wording import wording
from underfire.runs.folder import is_targeted, open_run
from underfire.runs.outcomes import quoted, summarise
from underfire.studies.catalogue import done
from underfire.studies.detections import TABLE as DETECTIONS
from underfire.studies.gap import TABLE as GAPS
from underfire.studies.transfers import TABLE as TRANSFERS

REPORT = "report.html"
RUN = ("underfire", "created", "seed", "device")
NO_ATTACK = "Nothing was attacked here, so there is no verdict; what was studied follows."
PARTS: Mapping[str, tuple[str, Callable[[Path], Any]]] = {  # by section: the table, and what the section makes of it
    "detection": (DETECTIONS, detection.compose),
    "transfer": (TRANSFERS, transfer.compose),
    "gap": (GAPS, gap.compose),
}


def write_report_of(folder: Path) -> Path:
    """Write report.html into a run folder or a folder of studies, and return its path; UnderfireError if it is neither.

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
) -> Path:
    """Write the report of a run, finished or partial, and return its path.

    Tables of studies are looked for in the run's folder; `elsewhere` has the paths of those that lie elsewhere, by file
    name.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("underfire.report", folder) for folder in ("templates", "static")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(attack_name=attack_name, interpreter_name=interpreter_name)
    page = environment.get_template("page.html").render(_content(run, elsewhere, sections))
    write_atomically(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def _content(run: RunView, elsewhere: Mapping[str, Path], sections: tuple[Section, ...]) -> dict[str, Any]:
    """The names that the template knows."""
    info, outcomes = run.info, quoted(run.outcomes())
    summaries, targeted, words = summarise(outcomes), is_targeted(info), wording(info)
    shown = tables.metrics_of(summaries, targeted)
    references = ("benign", "target") if targeted else ("benign",)
    return {
        "model": info.get("model", {}).get("name", "model not recorded"),
        "created": str(info.get("created", "")).partition("T")[0],
        "images": len(pc.unique(outcomes["id"])),
        "words": words,
        "verdicts": verdict.judge(outcomes, words),
        "missing": _missing(outcomes, info, sections),
        "studies": sections,
        "tables": tables.tabulate(outcomes, summaries, shown, words),
        "definitions": tables.definitions(shown, words),
        "fewest": FEWEST,
        "plots": _plots(outcomes, words.wanted),
        "gallery": gallery.collect(run, verdict.told_apart(outcomes, words), info.get("classes", ()), references),
        "facts": _facts(info),
        "skipped": info.get("skipped", ()),
        "command": info.get("command"),
        **{name: part(elsewhere.get(table, run.path / table), compose) for name, (table, compose) in PARTS.items()},
    }


def _missing(outcomes: pa.Table, info: Mapping[str, Any], sections: tuple[Section, ...]) -> list[str]:
    """What keeps the verdict from being complete, or from being there."""
    if sections and not outcomes.num_rows and not any(each.problem for each in sections):
        return [NO_ATTACK]
    return verdict.missing_parts(outcomes, info)


def _plots(outcomes: pa.Table, wanted: str) -> dict[str, dict[str, figures.Plot]]:
    """Two plots per interpreter and metric."""
    plots = {}
    for interpreter in dict.fromkeys(outcomes["interpreter"].to_pylist()):
        rows = outcomes.filter(pc.equal(outcomes["interpreter"], interpreter))
        plots[interpreter] = {
            "ΔL1": figures.strips(_by_attack(rows, "map_l1"), f"ΔL1 to the {wanted} map", None),
            "IoU": figures.strips(_by_attack(rows, "iou_mean"), f"IoU with the {wanted} map", PLAUSIBLE),
        }
    return plots


def _by_attack(rows: pa.Table, metric: str) -> dict[str, figures.Points]:
    """The values of a metric and the successes, for each attack for which it has any."""
    rows = rows.filter(pc.is_finite(rows[metric]))
    parts = {attack: rows.filter(pc.equal(rows["attack"], attack)) for attack in in_order(rows["attack"].to_pylist())}
    return {attack: _points(its, metric) for attack, its in parts.items()}


def _points(rows: pa.Table, metric: str) -> figures.Points:
    """Of one attack."""
    colour = figures.colour_of(rows["map_aware"][0].as_py(), rows["evades"][0].as_py())
    return figures.Points(rows[metric].to_numpy(), rows["success"].to_numpy().astype(bool), colour)


def _facts(info: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """How the run was made, in groups; a group that the run lacks is left out."""
    seconds = {stage: f"{value:.1f} s" for stage, value in info.get("wall_seconds", {}).items()}
    groups = {
        "Run": flatten({name: info[name] for name in RUN if name in info}),
        "Images": flatten(info.get("selection", {})),
        "Model": flatten(info.get("model", {})),
        "Wall time": seconds,
        "Parameters": flatten(info.get("spec", {})),
        "Versions": flatten(info.get("versions", {})),
    }
    return {title: facts for title, facts in groups.items() if facts}
