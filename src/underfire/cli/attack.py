"""`underfire attack` and `underfire demo`: attack a classifier and its interpreters, and tell what came of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.attacks.names import QUICK
from underfire.cli.options import Out
from underfire.cli.terminal import (
    chosen_device,
    command_line,
    console,
    crews,
    images_at_once,
    one_bar,
    opened,
    say,
    say_written,
    stage_bars,
    table_of,
)
from underfire.core.text import counted
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.settings import Distributed, Machine, Sampled, Source

if TYPE_CHECKING:
    from underfire.data.image_set import ImageSet
    from underfire.models.classifier import Classifier
    from underfire.runs.dispatch import Crew
    from underfire.runs.folder import Run


def attack(settings: AttackSettings, machine: Distributed, out: Out = Path("runs/attack")) -> None:
    """Attack classifier and interpreters with PGD or StAdv and its ADV2; leaves a run folder and its report."""
    from underfire.data.class_names import for_classifier

    settings, classifier = opened(settings, machine.device)
    image_set = for_classifier(settings.open_images(), classifier)
    with crews(machine) as crew_of:
        batch = images_at_once(machine, classifier, image_set)
        _attack(settings, classifier, image_set, out, batch, crew_of(settings.model_dump(), classifier))


def demo(
    drawn: Sampled,
    machine: Machine,
    out: Out = Path("runs/demo"),
    retrain: Annotated[bool, typer.Option("--retrain", help="Train the demo classifier anew and stop.")] = False,
) -> None:
    """The whole path on synthetic scenes and a small classifier; needs no download and no data."""
    if retrain:
        _retrain(out)
        return
    from underfire.data.demo import EPS, SHOWN, demo_images
    from underfire.models.classifier import Classifier

    given = {"interpreters": SHOWN, "eps": EPS, "effort": QUICK, **drawn.model_dump()}
    settings = AttackSettings(model="demo", images="demo", **given)
    _attack(settings, Classifier.load("demo", device=chosen_device(machine.device)), demo_images(), out, batch=16)
    say(
        "\nTry your own model next:\n"
        "  underfire attack --model torchvision:resnet18 --weights DEFAULT --images FOLDER --interpreter cam,grad\n"
        "  underfire attack --model my_model.py:build --weights my.safetensors --images FOLDER --crop 224"
    )


def _attack(
    settings: AttackSettings,
    classifier: "Classifier",
    image_set: "ImageSet",
    out: Path,
    batch: int,
    crew: "Crew | None" = None,
) -> None:
    """The results and their report are written before they are printed."""
    from underfire.data.class_names import outputs_of
    from underfire.report import write_report
    from underfire.runs.execute import Manner
    from underfire.runs.suited import suited
    from underfire.studies import effectiveness
    from underfire.studies.base import Subject

    outputs_of(classifier, image_set)  # what it assumes is found by passing an image
    settings, notes = suited(settings, classifier, image_set)
    say_subject(settings, classifier, image_set, notes)
    with stage_bars() as on_progress:
        manner = Manner(command_line(), batch, say, on_progress, crew)
        run = effectiveness.execute(settings, Subject(classifier, image_set), out, manner)
    report = write_report(run, out / "report.html")
    print_summary(run)
    say("")
    say_written({"Run folder": out, "Report": report})


def say_subject(settings: Source, classifier: "Classifier", image_set: "ImageSet", notes: list[str]) -> None:
    """The first line: what is looked at, and what was taken to hold."""
    facts = (f"Model {settings.model} on {classifier.device}", f"labels by {image_set.numbering}", *classifier.assumed)
    say("\n".join([f"{'; '.join(facts)}.", *notes]))


def print_summary(run: "Run") -> None:
    """The numbers of a run with outcomes, and of how its images were found."""
    from underfire.report.tables import heads, lines
    from underfire.report.verdict import in_one_sentence, judge
    from underfire.report.wording import wording
    from underfire.runs.folder import is_targeted
    from underfire.runs.outcomes import quoted

    selection, skipped = run.info["selection"], run.info["skipped"]
    found = selection["examined"] - selection["misclassified"]
    title = f"{counted(found, 'image')} as PNG files; means, with their 95 % interval in brackets"
    targeted, words, outcomes = is_targeted(run.info), wording(run.info), quoted(run.outcomes())
    table = table_of(title, ("interpreter", "attack"), heads(words, targeted))
    for line in lines(outcomes, targeted):
        table.add_row(*line)
    console.print(table)
    say(in_one_sentence(judge(outcomes, words)))
    if skipped:
        say(f"{counted(len(skipped), 'file')} could not be used; run.json lists them with the reasons.")
    if found < selection["requested"]:
        examined, wrong = selection["examined"], selection["misclassified"]
        were_found = f"{counted(found, 'image')} {'was' if found == 1 else 'were'} found"
        say(f"No more than {were_found}: of {examined} examined, {wrong} were misclassified.")
    if passed_over := selection.get("passed_over"):
        say(f"{counted(passed_over, 'image')} passed over: no target class other than their own.")


def _retrain(out: Path) -> None:
    from underfire.training import demo as demo_training

    path = out.with_suffix(".safetensors")
    with one_bar("training", demo_training.STEPS) as show:
        accuracy = demo_training.retrain(path, lambda step, _loss: show(step + 1, ""))
    say(f"Held-out accuracy: {accuracy:.3f}")
    say_written({"Weights": path})
