"""The command line: parse, call, print."""

import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from underfire.attacks.names import ATTACKS, RECIPES, SOLVERS, TARGET_CLASSES, TARGET_MAPS
from underfire.cli.attack import attack, demo
from underfire.cli.audit import audit
from underfire.cli.detect import detect
from underfire.cli.evaluate import evaluate
from underfire.cli.options import command
from underfire.cli.probe import probe
from underfire.cli.study import study_app
from underfire.cli.terminal import finish_output, forgive_output, say, say_written
from underfire.cli.train import train_app
from underfire.cli.transfer import transfer
from underfire.core.errors import UnderfireError
from underfire.data.names import CORRUPTIONS
from underfire.detection.names import DETECTORS, SQUEEZERS
from underfire.interpreters.registry import INTERPRETERS

app = typer.Typer(
    help="If someone attacked this classifier, would its explanation have warned us?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for each in (audit, attack, demo, detect, evaluate, probe, transfer):
    command(app)(each)
app.add_typer(train_app, name="train")
app.add_typer(study_app, name="study")


def _say_version(wanted: bool) -> bool:
    if wanted:
        say(f"underfire {version('underfire')}")
        raise typer.Exit
    return wanted


@app.callback()
def _underfire(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """If someone attacked this classifier, would its explanation have warned us?"""


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run folder, or a folder of studies.")]) -> None:
    """Write report.html anew from what a folder holds."""
    from underfire.report import write_report_of

    say_written({"Report": write_report_of(run)})


@app.command("list")
def list_names() -> None:
    """What can be named on the command line."""
    say(f"interpreters  {', '.join(INTERPRETERS)}")
    say("              captum:METHOD, gradcam:METHOD, zennit:COMPOSITE, path/file.py:function")
    say(f"solvers       {', '.join(SOLVERS)}")
    say(f"attacks       {', '.join(ATTACKS)}")
    say(f"recipes       {', '.join(RECIPES)}")
    say(f"target class  {', '.join(TARGET_CLASSES)}")
    say(f"target map    {', '.join(TARGET_MAPS)}")
    say(f"detectors     {', '.join(DETECTORS)}")
    say(f"squeezers     {', '.join(SQUEEZERS)}")
    say(f"changes       {', '.join(CORRUPTIONS)}")
    say("models        torchvision:NAME, timm:NAME, hf:ID-or-folder, path/file.py:builder, demo")


def main() -> None:
    """Entry point: errors become one sentence and a non-zero exit code, and what an output cannot show is replaced.

    Whoever asks it to end (SIGTERM) is obeyed once temporary files and workers are gone.
    """
    forgive_output()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        app()
    except UnderfireError as problem:
        typer.echo(f"underfire: {' '.join(str(problem).split())}", err=True)
        sys.exit(1)
    finally:
        finish_output()
