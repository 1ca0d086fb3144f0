"""Commands whose options are made from settings: each field with a description is one.

    @command(app)
    def attack(settings: AttackSettings, machine: Batches, out: Out = Path("runs/attack")) -> None: ...

A parameter that is a class of settings is typed as options, one for each field; any other parameter is typer's own.
Every such command also takes --config and --quiet.
"""

import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from underfire.cli.terminal import console
from underfire.core.errors import UnderfireError
from underfire.runs.config import FOLDER, found_options, read_config
from underfire.runs.settings import Settings, option_name, options_of

S = TypeVar("S", bound=Settings)

Out = Annotated[
    Path, typer.Option(help="Run folder; the same command again resumes it.", rich_help_panel="Run", metavar="FOLDER")
]
_Config = Annotated[
    Path | None,
    typer.Option(help="TOML file of options by their names; what is typed wins.", rich_help_panel="Run"),
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print the paths of what was written, and nothing else.", rich_help_panel="Run")
]
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Configured(TyperCommand):
    """A command that reads options from the file of --config before those that are typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        path = _config_in(args)
        return super().parse_args(ctx, [*(() if path is None else self._written(path)), *args])

    def _written(self, path: Path) -> Iterator[str]:
        """The options in a file as they would be typed; UnderfireError names what is none."""
        options = {
            option.removeprefix("--"): each for each in self.params for option in each.opts if option[:2] == "--"
        }
        known = [name for name in options if name not in ("config", "help")]
        given = dict(read_config(path))
        folder, fields = given.pop(FOLDER, ""), dict[str, Any]()
        for key, value in given.items():
            name = key.replace("_", "-")
            if name not in known:
                close = get_close_matches(name, known, n=1)
                meant = f" (did you mean '{close[0]}'?)" if close else ""
                raise UnderfireError(
                    f"{path} gives '{key}', which is not an option of this command{meant}; leave it out."
                )
            fields[options[name].name] = value
        names = {options[name].name: name for name in known}
        for field, value in found_options(fields, folder).items():
            if value is True and getattr(options[names[field]], "is_flag", False):
                yield f"--{names[field]}"
            elif value is not False:
                yield f"--{names[field]}={_as_typed(path, names[field], value)}"


def command(app: typer.Typer, name: str | None = None, help: str | None = None) -> Callable[..., Callable[..., None]]:
    """Add a command to an app; its parameters that are settings become options."""

    def added(function: Callable[..., None]) -> Callable[..., None]:
        app.command(name or function.__name__, cls=Configured, help=help or inspect.getdoc(function))(
            _with_options(function)
        )
        return function

    return added


def checked(kind: Callable[..., S], **values: Any) -> S:
    """Settings made of options; UnderfireError names the option that is wrong, its value and its bounds."""
    try:
        return kind(**values)
    except ValidationError as problem:
        first = problem.errors()[0]
        option = ".".join(map(str, first["loc"])).replace("_", "-")
        raise UnderfireError(f"--{option} {first['input']}: {first['msg']}.") from None


def _with_options(function: Callable[..., None]) -> Callable[..., None]:
    """The function with one parameter for each option, as typer wants it."""
    parameters = inspect.signature(function, eval_str=True).parameters
    kinds = {name: each.annotation for name, each in parameters.items() if _is_settings(each.annotation)}
    own = [each.replace(kind=each.KEYWORD_ONLY) for name, each in parameters.items() if name not in kinds]

    def run(context: Any, quiet: bool, config: Path | None, **typed: Any) -> None:
        console.quiet = quiet
        given = {name: value for name, value in typed.items() if _is_given(context, name)}
        settings = {
            name: checked(kind, **{field: given[field] for field in options_of(kind) if field in given})
            for name, kind in kinds.items()
        }
        function(**settings, **{each.name: typed[each.name] for each in own})

    made = [*(each for kind in kinds.values() for each in _parameters(kind)), *own]
    further = [
        inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Quiet),
        inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_Config),
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    everything = [context, *sorted(made, key=lambda each: each.default is not each.empty), *further]
    setattr(run, "__signature__", inspect.Signature(everything))  # noqa: B010
    run.__annotations__ = {each.name: each.annotation for each in everything}
    return run


def _parameters(kind: type[Settings]) -> Iterator[inspect.Parameter]:
    for name, field in options_of(kind).items():
        typed = _type_of(field)
        option = typer.Option(
            f"--{option_name(name, field)}",
            help=f"{field.description}{_bounds(field)}",
            rich_help_panel=_panel(kind, name),
            autocompletion=_completion(field),
        )
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else _shown(field.default),
            annotation=Annotated[typed if field.is_required() else typed | None, option],
        )


def _is_settings(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, Settings)


def _is_given(context: Any, name: str) -> bool:
    """Whether an option was typed, or stands in the file of --config."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _type_of(field: FieldInfo) -> Any:
    """A switch or a number where the field is one; anything else, and what is parsed from a text, is typed as text."""
    if any(isinstance(each, BeforeValidator) for each in field.metadata):
        return str
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in (bool, int, float) if kind in kinds), str)


def _panel(kind: type[Settings], name: str) -> str:
    """The title of the class that the field is first defined in."""
    first = next(each for each in reversed(kind.__mro__) if name in inspect.get_annotations(each))
    return str(getattr(first, "model_config")["title"])  # noqa: B009


def _bounds(field: FieldInfo) -> str:
    """What a number may be."""
    bounds = [
        f"{word} {getattr(each, name):g}"
        for each in field.metadata
        for name, word in _BOUNDS.items()
        if hasattr(each, name)
    ]
    return f" ({', '.join(bounds)})" if bounds else ""


def _completion(field: FieldInfo) -> Callable[[], list[str]] | None:
    choices = [*get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    return (lambda: choices) if choices else None


def _shown(default: Any) -> Any:
    """A default as it would be typed."""
    return ",".join(default) or None if isinstance(default, tuple) else default


def _config_in(args: list[str]) -> Path | None:
    """The file that --config names."""
    for i, each in enumerate(args):
        option, equals, value = each.partition("=")
        if option == "--config":
            return Path(value) if equals else Path(args[i + 1]) if i + 1 < len(args) else None
    return None


def _as_typed(path: Path, key: str, value: Any) -> str:
    """A value as it would be typed; UnderfireError if it cannot be."""
    if isinstance(value, list):
        return ",".join(_as_typed(path, key, each) for each in value)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UnderfireError(f"{path} gives '{key}' a {type(value).__name__}; give it a text, a number or a list of them.")
