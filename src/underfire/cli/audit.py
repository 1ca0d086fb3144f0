"""`underfire audit`: one command, the worst case, and what can be believed of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.attacks.names import interpreter_name
from underfire.cli.attack import say_subject
from underfire.cli.options import Out
from underfire.cli.terminal import (
    command_line,
    console,
    crews,
    images_at_once,
    opened,
    say,
    say_written,
    stage_bars,
    table_of,
)
from underfire.runs.attack_settings import AuditSettings
from underfire.runs.settings import Distributed

if TYPE_CHECKING:
    from underfire.studies.audits import Audit

BELOW = 3  # exit code of an audit that was failed

FailUnder = Annotated[
    float | None,
    typer.Option(
        help="Exit with code 3 if the joint robust accuracy of any interpreter is below this share.",
        min=0.0,
        max=1.0,
        rich_help_panel="Run",
    ),
]
Summary = Annotated[
    Path | None, typer.Option(help="Markdown file to write, for a pull request.", rich_help_panel="Run")
]


def audit(
    settings: AuditSettings,
    machine: Distributed,
    fail_under: FailUnder = None,
    summary: Summary = None,
    out: Out = Path("runs/audit"),
) -> None:
    """On which share of images would nobody have noticed an attack? The worst case of a suite, and what to believe."""
    from underfire.core.io import write_bytes
    from underfire.data.class_names import for_classifier, outputs_of
    from underfire.report import write_report
    from underfire.runs.execute import Manner
    from underfire.runs.suited import suited
    from underfire.studies import audit as audits
    from underfire.studies.audit_summary import markdown, verdict
    from underfire.studies.audits import AUDIT, audit_of
    from underfire.studies.base import Subject

    settings, classifier = opened(settings, machine.device)
    image_set = for_classifier(settings.open_images(), classifier)
    outputs_of(classifier, image_set)
    settings, notes = suited(settings, classifier, image_set)
    say_subject(settings, classifier, image_set, notes)
    with crews(machine) as crew_of, stage_bars() as on_progress:
        crew = crew_of(settings.attacks().model_dump(), classifier)
        batch = images_at_once(machine, classifier, image_set)
        manner = Manner(command_line(), batch, say, on_progress, crew)
        run = audits.execute(settings, Subject(classifier, image_set), out, manner)
    found = audit_of(run)
    report = write_report(run, out / "report.html")
    if summary is not None:
        write_bytes(summary, markdown(found).encode())
    _print(found)
    say("")
    say(verdict(found))
    say_written({"Run folder": out, "Audit": out / AUDIT, "Report": report})
    if fail_under is not None and any((each.robust.value or 0.0) < fail_under for each in found.interpreters):
        raise typer.Exit(BELOW)


def _print(found: "Audit") -> None:
    """The numbers of each interpreter, and the flags that were raised."""
    from underfire.studies.audit_summary import budget, median_of, raised, shown

    title = f"{found.n} images as PNG files, suite {found.suite}, ε = {budget(found.eps)}"
    heads = ("joint robust", "plain robust", "plausible by PGD", "median ε")
    table = table_of(title, ("interpreter",), heads)
    for each in found.interpreters:
        shares = (each.robust, each.plain_robust, each.plausible_under_pgd)
        table.add_row(interpreter_name(each.interpreter), *map(shown, shares), median_of(each))
    console.print(table)
    for line in raised(found):
        say(line)
