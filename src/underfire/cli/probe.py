"""`underfire probe`: what can be known of others' explanations by calling them, and how an attacker can follow them."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from underfire.cli.terminal import chosen_device, console, say, table_of
from underfire.runs.settings import Machine, ProbeSettings

if TYPE_CHECKING:
    from underfire.interpreters.adapters.probe import Probed


def probe(
    settings: ProbeSettings,
    machine: Machine,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, and nothing else.")] = False,
) -> None:
    """Say what maps of others' explanations are like, and how an attacker can follow them or why not."""
    from underfire.interpreters.adapters.probe import probe as probed

    classifier = settings.load(settings.model, chosen_device(machine.device))
    own = classifier.origin.crop if classifier.origin else None
    side = settings.crop or own or 64
    found = [probed(interpreter, classifier, (side, side)) for interpreter in settings.explainers()]
    if as_json:
        console.file.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
        return
    for each in found:
        _print(each)


def _print(found: "Probed") -> None:
    table = table_of(found.interpreter, ("asked", "found"), ())
    for name, value in _lines(found):
        table.add_row(name, value)
    console.print(table)
    say(f"Followed by {found.verdict}: {found.why}.")
    for remark in found.remarks:
        say(f"Note: {remark}.")


def _lines(found: "Probed") -> list[tuple[str, str]]:
    agreement = "no graph" if found.cosine is None else f"cosine {found.cosine:.3f}, ratio {found.ratio:.3f}"
    return [
        ("grid", f"{found.shape[0]} × {found.shape[1]}"),
        ("range", f"{found.low:.3f} to {found.high:.3f}"),
        ("same call twice", f"differs by {found.repeat:.4f}"),
        ("another class", f"differs by {found.class_difference:.4f}"),
        ("alone and in a batch", f"differs by {found.batch_difference:.4f}"),
        ("autograd against differences", agreement),
        ("an input gradient", "yes" if found.input_gradient else "no"),
        ("time per map", f"{1000 * found.seconds:.0f} ms"),
    ]
