"""`underfire evaluate`: what came of an attack that others made, by the same measures as of our own."""

from pathlib import Path

from underfire.cli.attack import print_summary, say_subject
from underfire.cli.options import Out
from underfire.cli.terminal import chosen_device, command_line, crews, images_at_once, say, say_written, stage_bars
from underfire.runs.settings import Distributed
from underfire.runs.study_settings import EvaluateSettings


def evaluate(settings: EvaluateSettings, machine: Distributed, out: Out = Path("runs/evaluate")) -> None:
    """Measure images that somebody else's attack made beside the benign ones; leaves a run folder and its report."""
    from underfire.data.class_names import outputs_of
    from underfire.report import write_report
    from underfire.runs.execute import Manner
    from underfire.runs.suited import suited
    from underfire.studies import evaluate as study

    classifier = settings.load(settings.model, chosen_device(machine.device))
    settings, pairs = study.opened(settings, classifier)
    outputs_of(classifier, pairs.benign)  # what it assumes is found by passing an image
    settings, notes = suited(settings, classifier, pairs.benign)
    say_subject(settings, classifier, pairs.benign, notes)
    say(f"{len(pairs.attacked)} attacked of {len(pairs.benign)} benign images.")
    batch = images_at_once(machine, classifier, pairs.benign)
    with crews(machine) as crew_of, stage_bars() as on_progress:
        manner = Manner(command_line(), batch, say, on_progress, crew_of(settings.model_dump(), classifier))
        run = study.execute(settings, classifier, pairs, out, manner)
    report = write_report(run, out / "report.html")
    print_summary(run)
    say("")
    say_written({"Run folder": out, "Report": report})
