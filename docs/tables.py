"""The tables of results, rendered from files that commands wrote: nobody types a number.

    python docs/tables.py                    # render every table of every page
    python docs/tables.py runs/x [NAME]      # first copy what this run's commands wrote to docs/results/data/NAME

A page says between which comments a table stands. Paths start at the page; NAME=VALUE,… keeps some rows of a file.

    <!-- run: data/x data/y -->
    <!-- end -->
    <!-- table: attacks data/x/averages.csv data/y/averages.csv interpreter=cam,grad -->
    <!-- end -->

The first becomes version, n and commands of these runs. `layouts.py` has the kinds of tables.
"""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from layouts import LAYOUTS, TIED, Cells, Row

from underfire.core.io import read_json, write_bytes, write_json
from underfire.core.text import enumerated
from underfire.studies.audits import read_audit

DOCS = Path(__file__).parent
DATA = DOCS / "results" / "data"
# in a run folder
WRITTEN = ("averages.csv", "detection-matrix.csv", "transfer-averages.csv", "tables/*.csv", "audit.json")
RUN = "run.json"
BLOCK = re.compile(r"(<!-- (run|table): ([^\n]+) -->\n)(?:(?!<!--).)*(<!-- end -->)", re.DOTALL)


def rendered(page: Path) -> str:
    """The page with every table as its files have it."""
    makers = {"run": runs, "table": table}

    def block(found: re.Match[str]) -> str:
        begin, kind, said, end = found.groups()
        return f"{begin}\n{makers[kind](page.parent, said.split())}\n\n{end}"

    return BLOCK.sub(block, page.read_text(encoding="utf-8"))


def runs(folder: Path, names: list[str]) -> str:
    """Version and n of runs, and the commands that made them."""
    found = [about(folder / name) for name in names]
    commands = "\n".join(in_lines(command) for each in found for command in each["commands"])
    return f"{origin(found)}:\n\n```\n{commands}\n```"


def in_lines(command: str) -> str:
    """A long command, broken before options."""
    tied = re.sub(" (?!--)", TIED, command)
    lines = wrap(tied, 88, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines).replace(TIED, " ")


def table(folder: Path, words: list[str]) -> str:
    """A table of this kind, and the files that it is made of."""
    kind, *words = words
    if kind not in LAYOUTS:
        sys.exit(f"There is no kind of table '{kind}'; there are {', '.join(LAYOUTS)}.")
    paths, choices = ([word for word in words if ("=" in word) is chooses] for chooses in (False, True))
    rows = [row for path in paths for row in read(folder / path)]
    for name, _, values in (choice.partition("=") for choice in choices):
        rows = where(rows, name, values.split(","))
    links = ", ".join(f"[{'/'.join(Path(path).parts[-2:])}]({path})" for path in paths)
    return f"{markdown(LAYOUTS[kind](rows))}\n\n{origin([about((folder / path).parent) for path in paths])}: {links}"


def where(rows: Sequence[Row], name: str, values: Sequence[str]) -> list[Row]:
    """The rows that have one of these values there, each of which some row must have."""
    if lacking := set(values) - {row.get(name) for row in rows}:
        sys.exit(f"No row has {name}={lacking.pop()}.")
    return [row for row in rows if row[name] in values]


def markdown(cells: Cells) -> str:
    first, *lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in line) for line in cells]
    return "\n".join([first, "|" + "---|" * len(cells[0]), *lines])


def origin(found: Sequence[dict[str, Any]]) -> str:
    """Version and n, each once."""
    versions, counts = (
        enumerated(list(dict.fromkeys(str(each[name]) for each in found))) for name in ("underfire", "n")
    )
    return f"underfire {versions}, n = {counts}"


def read(path: Path) -> Iterator[Any]:
    """The audit in a file or, of tables, the rows, each with the n of its run as "of" and the run's name as "run"."""
    if path.suffix == ".json":
        yield read_audit(path)
        return
    n = str(about(path.parent)["n"])
    with path.open(encoding="utf-8", newline="") as lines:
        yield from ({**row, "of": n, "run": path.parent.name} for row in csv.DictReader(lines))


def about(folder: Path) -> dict[str, Any]:
    """Version, n and commands of a run that was kept."""
    return read_json(folder / RUN)


def keep(run: Path, folder: Path) -> None:
    """Copy a run's tables, with what made them."""
    files = [file for pattern in WRITTEN for file in sorted(run.glob(pattern))]
    if not files:
        sys.exit(f"{run} holds no tables; if it holds a run, write them with: underfire report {run}")
    info, detecting = read_json(run / RUN), map(read_json, run.glob("detectors.json"))
    kept = {
        "underfire": info["underfire"],
        "n": len(info["chosen"]),
        "commands": [anywhere(each["command"]) for each in (info, *detecting)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.suffix == ".json":
            write_json(folder / file.name, without_folders(read_json(file)))
        else:
            write_bytes(folder / file.name, anywhere(file.read_text(encoding="utf-8")).encode())
    write_json(folder / RUN, kept)


def anywhere(text: str) -> str:
    """A text without the folders of the machine where it was made, and without what concerns its screen alone."""
    return re.sub(r"(?<![^\s,=@:'\"])(?:~|\.\.)?/(?:[^\s,=@:/]+/)*(?=\S)", "", text).replace(" --quiet", "")


def without_folders(content: Any) -> Any:
    """The same without folders of the machine."""
    if isinstance(content, dict):
        return {name: without_folders(each) for name, each in content.items()}
    if isinstance(content, list):
        return [without_folders(each) for each in content]
    return anywhere(content) if isinstance(content, str) else content


def main() -> None:
    if len(sys.argv) > 1:
        run = Path(sys.argv[1])
        keep(run, DATA / (sys.argv[2] if len(sys.argv) > 2 else run.resolve().name))
    for page in sorted(DOCS.rglob("*.md")):
        text = rendered(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main()
