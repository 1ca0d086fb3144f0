"""What it costs to answer at all, beside what PyTorch alone costs.

    python benchmarks/startup.py RUN         # print a table; RUN is a finished run folder, for the report's row

Each command runs in a process of its own, in turns with the others, after one turn that is not counted; the least of
several turns counts, for whatever else the machine does can only add.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

PROGRAM = "from underfire.cli.main import main; main()"
# run the command, then tell on file descriptor 3 what it used
TOLD = """
import json, os, resource, sys
try:
    {statement}
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
told = {{"cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024, "torch": "torch" in sys.modules}}
open({file!r}, "w").write(json.dumps(told))
os._exit(0)
"""


@dataclass(frozen=True)
class Used:
    """Seconds of processor time and on the clock, peak memory in MiB, and whether torch was imported."""

    cpu: float
    wall: float
    peak: float
    torch: bool


def measure(statement: str, arguments: tuple[str, ...]) -> Used:
    """One process that executes a statement as if it were called with these arguments."""
    with tempfile.NamedTemporaryFile() as file:
        program = TOLD.format(statement=statement, file=file.name)
        begun = time.perf_counter()
        environment = {**os.environ, "COLUMNS": "100"}
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        wall = time.perf_counter() - begun
        told = json.loads(Path(file.name).read_text())
    return Used(told["cpu"], wall, told["peak"], told["torch"])


def rows(run: str | None) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The statement and the arguments of each row."""
    commands = [("--help",), ("--version",), ("list",), ("attack", "--help"), ("study", "--help")]
    commands += [("report", run)] if run else []
    return {
        'python -c "pass"': ("pass", ()),
        'python -c "import torch"': ("import torch", ()),
        'python -c "import underfire"': ("import underfire", ()),
        'python -c "import underfire; underfire.adv2"': ("import underfire; underfire.adv2", ()),
        **{
            f"underfire {' '.join('RUN' if each == run else each for each in command)}": (PROGRAM, command)
            for command in commands
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="a finished run folder")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    wanted = rows(arguments.run)
    turns = [{name: measure(*each) for name, each in wanted.items()} for _ in range(1 + arguments.rounds)]
    used = {name: [turn[name] for turn in turns[1:]] for name in wanted}
    table = Table("command", box=MARKDOWN)
    for heading in ("CPU", "wall", "peak memory", "torch"):
        table.add_column(heading, justify="right")
    for name, counted in used.items():
        cpu, wall, peak = (min(getattr(each, what) for each in counted) for what in ("cpu", "wall", "peak"))
        table.add_row(
            f"`{name}`", f"{cpu:.2f} s", f"{wall:.2f} s", f"{peak:.0f} MiB", "yes" if counted[0].torch else "no"
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
