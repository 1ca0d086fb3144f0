"""A table as the paper prints it, each number with the paper's beside it, for terminals, CSV, LaTeX and HTML.

    table = Table("table-7", "Table 7. …", ("",), ("CAM",), (Row(("ΔbL1",), ((Value("L1", ours, 0.50),),)),))
    write(table, Path("runs/x/tables"))                     # table-7.csv, table-7.tex, table-7.html

A difference is ours minus the paper's; it is marked where the paper's value lies outside our 95 % interval.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path

from underfire.core.io import write_bytes
from underfire.metrics.intervals import Estimate

MARK = "*"
ANCHOR = (
    "Below ours the paper's value and the difference; * where the paper's value lies outside our 95 % interval. "
    "The paper's classifiers and images are others, so its numbers are anchors for size and order."
)


@dataclass(frozen=True)
class Value:
    """One number: what was measured here (None: nothing was) and what the paper prints (None: nothing)."""

    measure: str
    ours: Estimate | None
    paper: float | None = None
    percent: bool = False

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's; None unless there are both."""
        if self.ours is None or self.ours.n == 0 or self.paper is None:
            return None
        return self.ours.value - self.paper

    @property
    def is_outside(self) -> bool:
        """Whether the paper's value lies outside our interval."""
        if self.difference is None or self.ours is None or self.paper is None or not self.ours.has_interval:
            return False
        return not self.ours.low <= self.paper <= self.ours.high

    @property
    def text(self) -> str:
        return "–" if self.ours is None or self.ours.n == 0 else self._shown(self.ours.value, 1, 3)

    @property
    def interval(self) -> str:
        if self.ours is None or self.ours.n == 0 or not self.ours.has_interval:
            return ""
        return f"[{self._shown(self.ours.low, 0, 3)}, {self._shown(self.ours.high, 0, 3)}]"

    @property
    def printed(self) -> str:
        """The paper's value; empty where it has none."""
        return "" if self.paper is None else self._shown(self.paper, 1, 2)

    @property
    def change(self) -> str:
        """The difference with its sign, as in "+0.012*"; empty where there is none."""
        if self.difference is None:
            return ""
        shown = f"{100 * self.difference:+.1f}" if self.percent else f"{self.difference:+.3f}"
        return f"{shown}{MARK if self.is_outside else ''}"

    def _shown(self, number: float, of_percent: int, of_others: int) -> str:
        return f"{100 * number:.{of_percent}f} %" if self.percent else f"{number:.{of_others}f}"


Cell = tuple[Value, ...]  # printed as in "98.4 % (0.99)"


@dataclass(frozen=True)
class Row:
    """Names on the left, then one cell per column."""

    names: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """`name` is the file's, `stub` heads the names of the rows."""

    name: str
    title: str
    stub: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def has_anchors(self) -> bool:
        """Whether the paper has a number anywhere."""
        return any(value.paper is not None for row in self.rows for cell in row.cells for value in cell)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said below."""
        return tuple(filter(None, (self.note, ANCHOR if self.has_anchors else "")))


def lines_of(cell: Cell) -> tuple[str, ...]:
    """Our values, the paper's, and the differences, as far as there are any; all but the first in brackets."""
    every = ([value.text for value in cell], [value.printed for value in cell], [value.change for value in cell])
    return tuple(filter(None, map(_bracketed, every)))


def _bracketed(texts: list[str]) -> str:
    first, *others = texts
    beside = ", ".join(filter(None, others))
    return f"{first} ({beside})" if beside else first


def write(table: Table, folder: Path) -> None:
    """The table as NAME.csv, NAME.tex and NAME.html."""
    for suffix, content in ((".csv", csv_of(table)), (".tex", latex_of(table)), (".html", html_of(table, table.notes))):
        write_bytes(folder / f"{table.name}{suffix}", content.encode())


def csv_of(table: Table) -> str:
    """One line per value."""
    lines = StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    stub = [name or "row" for name in table.stub]
    writer.writerow([*stub, "column", "measure", "ours", "low", "high", "n", "paper", "difference", "outside"])
    for row, column, value in _values(table):
        ours = value.ours
        numbers: list[float | None] = [None] * 4
        if ours is not None and ours.n:
            numbers = [ours.value, *((ours.low, ours.high) if ours.has_interval else (None, None)), ours.n]
        outside = "" if value.difference is None else str(value.is_outside).lower()
        writer.writerow([*row.names, column, value.measure, *numbers, value.paper, value.difference, outside])
    return lines.getvalue()


def latex_of(table: Table) -> str:
    """A floating table in the style of booktabs."""
    heads = " & ".join(map(_latex, (*table.stub, *table.columns)))
    body = "\n".join(
        f"  {' & '.join([*map(_latex, row.names), *map(_latex_cell, row.cells)])} \\\\" for row in table.rows
    )
    notes = "".join(f" {_latex(each)}" for each in table.notes)
    alignment = "l" * len(table.stub) + "r" * len(table.columns)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\begin{{tabular}}{{{alignment}}}\n  \\toprule\n  {heads} \\\\\n  \\midrule\n"
        f"{body}\n  \\bottomrule\n\\end{{tabular}}\n\\caption{{{_latex(table.title)}.{notes}}}\n\\end{{table}}\n"
    )


def html_of(table: Table, notes: Sequence[str]) -> str:
    """A table element with notes below."""
    heads = "".join(map(_html_head, (*table.stub, *table.columns)))
    body = "\n".join(f"<tr>{_html_names(row)}{''.join(map(_html_cell, row.cells))}</tr>" for row in table.rows)
    below = "".join(f"\n<p><small>{escape(each)}</small></p>" for each in notes)
    return (
        f"<table>\n<caption>{escape(table.title)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>{below}\n"
    )


def _values(table: Table) -> Iterator[tuple[Row, str, Value]]:
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            for value in cell:
                yield row, column, value


def _html_head(name: str) -> str:
    """What heads a column; where nothing does, a cell that is not a heading."""
    return f'<th scope="col">{escape(name)}</th>' if name else "<td></td>"


def _html_names(row: Row) -> str:
    return "".join(f'<th scope="row">{escape(name)}</th>' for name in row.names)


def _html_cell(cell: Cell) -> str:
    ours, *anchors = lines_of(cell)
    intervals = " ".join(value.interval for value in cell if value.interval)
    paper = f"paper {', '.join(anchors)}" if anchors else ""
    below = "".join(f"<div><small>{escape(each)}</small></div>" for each in (intervals, paper) if each)
    return f"<td><span>{escape(ours)}</span>{below}</td>"


def _latex_cell(cell: Cell) -> str:
    ours, *anchors = lines_of(cell)
    below = "".join(f"\\\\{{\\scriptsize {_latex(each)}}}" for each in anchors)
    return f"\\shortstack[r]{{{_latex(ours)}{below}}}" if anchors else _latex(ours)


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "%": r"\%",
        "#": r"\#",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "Δ": r"$\Delta$",
        "²": r"$^2$",
        "∗": r"$^*$",
        "×": r"$\times$",
        "→": r"$\to$",
        "∞": r"$\infty$",
        "−": "$-$",
        ">": "$>$",
        "<": "$<$",
    }
)


def _latex(text: str) -> str:
    """Plain text as LaTeX prints it."""
    return text.translate(_LATEX)
