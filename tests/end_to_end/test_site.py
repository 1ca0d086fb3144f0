"""The documentation builds strictly, is complete in itself, and speaks of everything that can be called."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import underfire
from underfire.attacks.names import ATTACKS
from underfire.cli.main import app
from underfire.interpreters.registry import INTERPRETERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
ELSEWHERE = re.compile(r"\s*(https?:)?//")
LOADED_BY_CSS = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')]+)""")
LARGEST_PICTURE = 60_000  # bytes
PAGES = {
    "grad": "grad",
    "cam": "cam",
    "grad-cam": "cam",
    "ig": "ig",
    "rollout": "rollout",
    "grad-rollout": "rollout",
    "mask": "mask",
    "rts": "rts",
    "smooth": "smooth",
    "pgd": "pgd",
    "pgd-l2": "pgd",
    "adv2": "adv2",
    "adv2-l2": "adv2",
    "stadv": "stadv",
    "adv2-stadv": "stadv",
    "square": "blackbox",
    "adv2-square": "blackbox",
    "ensemble": "ensemble",
    "evasion": "evasion",
}  # of interpreters and attacks

pytestmark = pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("latex2mathml") is None,
    reason="mkdocs is not installed; install the extra docs",
)


@dataclass
class Page(HTMLParser):
    """The tags of a page, the text of its headings, and the names of files that it shows."""

    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    inside: list[str] | None = None  # of which of these two the text comes

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if re.fullmatch("h[1-6]", tag):
            self.inside = self.headings
        elif ("class", "filename") in attrs:
            self.inside = self.files
        else:
            return
        self.inside.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span" if self.inside is self.files else re.fullmatch("h[1-6]", tag):
            self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside is not None:
            self.inside[-1] += data

    def values(self, *wanted: str) -> list[str]:
        """All values of these attributes, whatever tag has them."""
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in wanted]


Site = Mapping[str, Page]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    built = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(built)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return built


@pytest.fixture(scope="module")
def site(folder: Path) -> Site:
    """Every page by its name."""
    pages = {path.relative_to(folder).with_suffix("").as_posix(): Page() for path in folder.rglob("*.html")}
    for name, page in pages.items():
        page.feed((folder / f"{name}.html").read_text(encoding="utf-8"))
    return pages


def test_nothing_is_loaded_from_another_host(folder: Path, site: Site) -> None:
    loading = {"src", "srcset", "data", "poster", "background", "xlink:href"}
    for name, page in site.items():
        loaded = [value for tag, attributes in page.tags for key, value in attributes.items() if key in loading]
        loaded += [attributes["href"] for tag, attributes in page.tags if tag in ("link", "base", "image", "use")]
        assert [each for each in loaded if ELSEWHERE.match(each)] == [], name
        assert LOADED_BY_CSS.findall(" ".join(page.values("style"))) == [], name
    for sheet in [*folder.rglob("*.css"), *folder.rglob("*.html"), *folder.rglob("*.svg")]:
        assert LOADED_BY_CSS.findall(sheet.read_text(encoding="utf-8")) == [], sheet


def test_every_interpreter_and_attack_has_a_page_with_formula_and_picture(site: Site) -> None:
    assert sorted({*INTERPRETERS, *ATTACKS} - {*PAGES}) == []
    for name in set(PAGES.values()):
        tags = [tag for tag, _ in site[name].tags]
        assert "math" in tags, name
        assert any(value.startswith("images/") for value in site[name].values("src")), name
    for attack, named in ATTACKS.items():
        assert any(named in heading for heading in site[PAGES[attack]].headings), attack


def test_every_command_has_a_section(site: Site) -> None:
    named = dict(commands(get_command(app), "underfire"))
    assert "underfire attack" in named
    headings = {heading.rstrip("¶") for heading in site["cli"].headings}
    assert sorted({*named} - headings) == []


def test_every_study_stands_in_the_table_of_the_paper() -> None:
    text = (DOCS / "reproduce.md").read_text(encoding="utf-8")
    studies = [name for name, _ in commands(get_command(app), "underfire") if name.startswith("underfire study ")]
    assert [name for name in studies if name not in text] == []


def test_every_public_name_is_in_the_reference(site: Site) -> None:
    anchors = {*site["api"].values("id")}
    assert [name for name in underfire.__all__ if f"underfire.{name}" not in anchors] == []


def test_every_parameter_of_the_attacks_is_explained() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    attacks = (underfire.pgd, underfire.adv2, underfire.stadv, underfire.adv2_stadv, underfire.adv2_square)
    assert {name for attack in attacks for name in signature(attack).parameters} == explained


def test_every_option_is_explained() -> None:
    """The commands' table is made of the commands themselves; nothing may be without a word."""
    for name, command in commands(get_command(app), "underfire"):
        options = [each for each in command.params if each.param_type_name == "option"]
        assert [each.opts[0] for each in options if not each.help] == [], name


def test_pictures_are_small_and_shown(site: Site) -> None:
    pictures = {path for path in (DOCS / "images").iterdir() if path.suffix in (".svg", ".png")}
    assert [path.name for path in pictures if path.stat().st_size > LARGEST_PICTURE] == []
    shown = {Path(value.partition("#")[0]).name for page in site.values() for value in page.values("src")}
    assert [path.name for path in pictures if path.name not in shown] == []


def test_python_in_the_pages_parses() -> None:
    blocks = [
        (path.name, block)
        for path in DOCS.rglob("*.md")
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    ]
    assert len(blocks) > 10
    for name, block in blocks:
        compile(block, name, "exec")


def test_every_example_is_shown(site: Site) -> None:
    shown = {name for page in site.values() for name in page.files}
    files = [path for suffix in ("py", "yml") for path in (ROOT / "examples").rglob(f"*.{suffix}")]
    assert sorted({path.relative_to(ROOT).as_posix() for path in files} - shown) == []


def test_pages_read_well_on_a_code_host() -> None:
    """What only the site understands stands in the pages of reference alone, to which the README does not link."""
    only_here = re.compile(r"^(:::|!!!|--8<--)", re.MULTILINE)
    strange = {path.stem for path in DOCS.rglob("*.md") if only_here.search(path.read_text(encoding="utf-8"))}
    assert strange == {"api", "cli", "changelog"}
    assert [name for name in strange if f"docs/{name}.md" in README.read_text(encoding="utf-8")] == []


def test_the_readme_links_to_what_is_there() -> None:
    linked = re.findall(r"\]\(([^):#]+)", README.read_text(encoding="utf-8"))
    assert [each for each in linked if not (ROOT / each).exists()] == []


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    inside = getattr(command, "commands", {})
    if not inside:
        yield name, command
    for word, each in inside.items():
        yield from commands(each, f"{name} {word}")
