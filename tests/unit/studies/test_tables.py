"""Tables as the paper prints them: differences and their mark, CSV by hand, LaTeX and HTML that survive any name."""

import csv
from io import StringIO
from pathlib import Path

import pytest

from tiny_report import HOSTILE_CLASS, HOSTILE_ID, Tags
from underfire.metrics.intervals import Estimate
from underfire.studies.tables import ANCHOR, Row, Table, Value, csv_of, html_of, latex_of, lines_of, write

NONE = Estimate(float("nan"), float("nan"), float("nan"), 0)
OURS = Estimate(0.25, 0.125, 0.375, 8)


def table(*cells: tuple[Value, ...], name: str = "adv2", stub: str = "") -> Table:
    columns = tuple(f"column {number}" for number in range(len(cells)))
    return Table("t", "A title", (stub,), columns, (Row((name,), cells),), note="A note.")


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("paper", "change", "outside"),
    [
        (0.20, "+0.050", False),
        (0.50, "-0.250*", True),
        (0.05, "+0.200*", True),
        (0.375, "-0.125", False),  # the interval's own end is inside
        (None, "", False),
    ],
)
def test_a_difference_is_ours_minus_the_papers_and_marked_outside_the_interval(
    paper: float | None, change: str, outside: bool
) -> None:
    value = Value("L1", OURS, paper)
    assert (value.change, value.is_outside) == (change, outside)
    assert value.difference == (None if paper is None else OURS.value - paper)


@pytest.mark.parametrize("ours", [None, NONE])
def test_without_a_measurement_there_is_no_difference(ours: Estimate | None) -> None:
    value = Value("L1", ours, 0.5)
    assert (value.text, value.interval, value.printed) == ("–", "", "0.50")
    assert (value.difference, value.change, value.is_outside) == (None, "", False)


def test_shares_are_printed_in_percent() -> None:
    value = Value("ASR", Estimate(0.984, 0.9, 1.0, 64), 1.0, percent=True)
    assert (value.text, value.interval, value.printed, value.change) == ("98.4 %", "[90 %, 100 %]", "100.0 %", "-1.6")


def test_a_cell_has_the_papers_values_below_ours_as_far_as_there_are_any() -> None:
    asr, mc = Value("ASR", OURS, 0.5, percent=True), Value("MC", OURS, 0.2)
    assert lines_of((asr, mc)) == ("25.0 % (0.250)", "50.0 % (0.20)", "-25.0* (+0.050)")
    assert lines_of((Value("ASR", OURS, percent=True), Value("MC", NONE))) == ("25.0 % (–)",)
    assert lines_of((Value("ASR", None, 0.5), Value("MC", None, 0.25))) == ("– (–)", "0.50 (0.25)")


def test_the_anchors_are_explained_where_there_are_any() -> None:
    assert table((Value("L1", OURS, 0.5),)).notes == ("A note.", ANCHOR)
    assert table((Value("L1", OURS),)).notes == ("A note.",)


# ------------------------------------------------------------------ files


def test_csv_has_a_line_per_value() -> None:
    shown = table((Value("ASR", OURS, 0.5), Value("MC", OURS)), (Value("L1", None, 0.5),), (Value("L1", NONE),))
    assert csv_of(shown).splitlines() == [
        "row,column,measure,ours,low,high,n,paper,difference,outside",
        "adv2,column 0,ASR,0.25,0.125,0.375,8,0.5,-0.25,true",
        "adv2,column 0,MC,0.25,0.125,0.375,8,,,",
        "adv2,column 1,L1,,,,,0.5,,",
        "adv2,column 2,L1,,,,,,,",
    ]


def test_csv_quotes_what_would_break_a_line() -> None:
    rows = list(csv.DictReader(StringIO(csv_of(table((Value("L1", OURS),), name='a,"b"\nc', stub="Attack")))))
    assert [(row["Attack"], row["n"]) for row in rows] == [('a,"b"\nc', "8")]


def test_latex_prints_every_sign_as_it_is() -> None:
    text = latex_of(table((Value("ΔL1", OURS, 0.5, percent=True),), name="50 % of_a & b #1 ${x}^2~\\ ADV² Δ A∗ 3×3 ∞"))
    assert (
        r"50 \% of\_a \& b \#1 \$\{x\}\textasciicircum{}2\textasciitilde{}\textbackslash{} ADV$^2$ $\Delta$ A$^*$ "
        r"3$\times$3 $\infty$ & \shortstack[r]{25.0 \%\\{\scriptsize 50.0 \%}\\{\scriptsize -25.0*}} \\"
    ) in text
    assert r"\begin{tabular}{lr}" in text
    assert r"\caption{A title. A note. Below ours" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert body.count(" & ") == 1


def test_latex_prints_one_line_where_the_paper_has_no_number() -> None:
    assert "adv2 & 0.250 \\\\\n" in latex_of(table((Value("L1", OURS),)))


def test_html_shows_hostile_names_as_text() -> None:
    hostile = Table(
        "t", HOSTILE_CLASS, (HOSTILE_ID,), (HOSTILE_CLASS,), (Row((HOSTILE_ID,), ((Value("L1", OURS),),)),), HOSTILE_ID
    )
    page = html_of(hostile, hostile.notes)
    tags = Tags(page)
    known = {"table", "caption", "thead", "tbody", "tr", "th", "td", "span", "div", "small", "p"}
    assert {name for name, _ in tags.found} <= known
    assert all(set(attributes) <= {"scope"} for _, attributes in tags.found)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert page.count("&lt;img src=x onerror=alert(2)&gt;") == 3


def test_html_has_interval_and_anchor_below_ours() -> None:
    page = html_of(table((Value("L1", OURS, 0.5),), (Value("L1", None),)), ())
    small = "".join(f"<div><small>{text}</small></div>" for text in ("[0.125, 0.375]", "paper 0.50, -0.250*"))
    assert f"<td><span>0.250</span>{small}</td><td><span>–</span></td>" in page
    assert [tag["scope"] for tag in Tags(page).all("th")] == ["col", "col", "row"]


def test_html_has_no_empty_heading() -> None:
    assert "<thead><tr><td></td><th" in html_of(table((Value("L1", OURS),)), ())
    named = html_of(table((Value("L1", OURS),), stub="Attack"), ())
    assert '<thead><tr><th scope="col">Attack</th><th' in named


def test_a_table_is_three_files_that_are_left_alone_while_they_hold_just_this(tmp_path: Path) -> None:
    shown = table((Value("L1", OURS, 0.5),))
    write(shown, tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(files) == {"t.csv", "t.tex", "t.html"}
    assert (tmp_path / "t.tex").read_text(encoding="utf-8") == latex_of(shown)
    (tmp_path / "t.html").write_text("damaged")
    write(shown, tmp_path)
    assert (tmp_path / "t.html").read_text(encoding="utf-8") == html_of(shown, shown.notes)
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {name for name in files if again[name] != files[name]} == {"t.html"}
