"""What the docs say of where things stand in the sources is so: equations, symbols and rooms."""

import ast
import re
from pathlib import Path

import underfire

SOURCES = Path(underfire.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"


def test_every_equation_has_a_row_and_every_name_exists() -> None:
    section = (DOCS / "reproduce.md").read_text(encoding="utf-8").partition("## Equation by equation")[2]
    rows = [line for line in section.splitlines() if re.match(r"\| (Eq\.|Alg\.|§|Tables?) ", line)]
    told = {int(number) for row in rows for number in re.findall(r"\d+", row.split("|")[1]) if "Eq." in row}
    assert told == set(range(1, 17))
    assert {row.split("|")[1].strip() for row in rows} >= {"Alg. 1", "Alg. 2"}
    named = re.findall(r"`([\w/]+\.py):(\w+)`", section)
    assert len(named) > 20
    lacking = [f"{file}:{name}" for file, name in named if name not in _defined(SOURCES / file)]
    assert lacking == []


def _defined(path: Path) -> set[str]:
    """Classes, functions and constants at the top of a module."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    constants = {target.id for target in targets if isinstance(target, ast.Name)}
    return constants | {node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_every_symbol_stands_where_notation_says() -> None:
    text = (DOCS / "notation.md").read_text(encoding="utf-8")
    rooms = "|".join(folder.name for folder in SOURCES.iterdir() if folder.is_dir())
    named = re.findall(rf"`((?:{rooms})[.\w]*)\.([A-Z]\w+|[a-z]\w+)(?:\.\w+)?`", text)
    assert len(named) >= 10
    lacking = [f"{module}.{name}" for module, name in named if name not in _named(module)]
    assert lacking == []


def test_every_file_of_the_page_of_rooms_is_there() -> None:
    text = (DOCS / "rooms.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert set(listed) == {folder.name for folder in SOURCES.iterdir() if (folder / "__init__.py").exists()}
    files = re.findall(r"`(\w+/[\w/]+\.py)`", text)
    assert [file for file in files if not (SOURCES / file).is_file()] == []


def _named(module: str) -> set[str]:
    """What a module defines; of a class given as the module, its own names."""
    path = SOURCES / (module.replace(".", "/") + ".py")
    if path.is_file():
        return _defined(path)
    parent, _, owner = module.rpartition(".")
    tree = ast.parse((SOURCES / (parent.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    fields = (node.target for node in kind.body if isinstance(node, ast.AnnAssign))
    return {field.id for field in fields if isinstance(field, ast.Name)}
