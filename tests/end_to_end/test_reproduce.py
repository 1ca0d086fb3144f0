"""docs/reproduce.md says where every equation of the paper stands; each name that it gives is there."""

import ast
import re
from pathlib import Path

import underfire

SOURCES = Path(underfire.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "reproduce.md"


def test_every_equation_has_a_row_and_every_name_exists() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Equation by equation")[2]
    rows = [line for line in section.splitlines() if re.match(r"\| (Eq\.|Alg\.|§)", line)]
    told = {int(number) for row in rows for number in re.findall(r"\d+", row.split("|")[1]) if "Eq." in row}
    assert told == set(range(1, 17))
    named = re.findall(r"`([a-z_/]+\.py):(\w+)`", "\n".join(rows))
    assert len(named) > 20
    lacking = [f"{file}:{name}" for file, name in named if name not in _defined(SOURCES / file)]
    assert lacking == []


def _defined(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
