"""A class name means one thing in the whole tree, and rooms hand on what they have without defining anything."""

import ast
from collections import defaultdict
from pathlib import Path

import underfire

ROOT = Path(underfire.__file__).parent


def test_every_class_name_is_defined_once() -> None:
    homes = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_room_defines_anything_in_its_init() -> None:
    defining = [
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("__init__.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    assert defining == []
