"""What the site needs beside Markdown: formulas as MathML, examples in full, and the commands' options from the
commands themselves.

A fenced block `math` holds LaTeX, and a line that is nothing but a link to a file of `examples/` becomes that file's
text: code hosts, which know of neither, show the formula and the link. The line `::: commands` becomes a section for
each command of `underfire`.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from typer.main import get_command

from underfire.cli.main import app

ROOT = Path(__file__).parents[1]
COMMANDS = "::: commands"
EXAMPLE = re.compile(r"^\[(examples/[\w./-]+)\]\((?:\.\./)+\1\)$", re.MULTILINE)
LANGUAGES = {".py": "python", ".yml": "yaml"}
Options = dict[str, Any]


def on_config(config: Any) -> Any:
    """mkdocs calls this once, before it reads the pages."""
    fence = {"name": "math", "class": "math", "format": formula}
    config["mdx_configs"]["pymdownx.superfences"] = {"custom_fences": [fence]}
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for each page."""
    markdown = EXAMPLE.sub(in_full, markdown)
    return markdown.replace(COMMANDS, "\n".join(sections())) if COMMANDS in markdown else markdown


def in_full(link: re.Match[str]) -> str:
    """The file that is linked to, below its name."""
    path = ROOT / link[1]
    return f'```{LANGUAGES[path.suffix]} title="{link[1]}"\n{path.read_text(encoding="utf-8")}```'


def formula(source: str, language: str, css_class: str, options: Options, md: Any, **_: Any) -> str:
    """A block of LaTeX as MathML."""
    return f'<div class="{css_class}">{convert(source.strip(), display="block")}</div>'


def sections() -> Iterator[str]:
    """Heading, purpose and options of every command."""
    for name, command in sorted(commands(get_command(app), "underfire")):
        yield f"\n## {name}\n\n{(command.help or '').strip()}\n"
        yield f"```\n{name} {' '.join(usage(command))}\n```\n"
        yield "| option | default | |\n|---|---|---|"
        for each in options(command):
            yield f"| `{each.opts[0]}` | {default_of(each)} | {escape(each.help or '').replace('|', '&#124;')} |"


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with the words that call it."""
    inside = getattr(command, "commands", {})
    if not inside:
        yield name, command
    for word, each in inside.items():
        yield from commands(each, f"{name} {word}")


def usage(command: Any) -> Iterator[str]:
    """Arguments, and the options that must be given."""
    for each in command.params:
        if each.param_type_name == "argument":
            yield each.name.upper()
        elif each.required:
            yield f"{each.opts[0]} …"


def options(command: Any) -> list[Any]:
    """As help groups them."""
    found = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    panels = list(dict.fromkeys(each.rich_help_panel for each in found))
    return sorted(found, key=lambda each: panels.index(each.rich_help_panel))


def default_of(option: Any) -> str:
    if option.required:
        return "to be given"
    return "" if option.default is None or option.default is False else f"`{option.default}`"
