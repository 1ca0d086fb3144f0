"""Every option is defined once, in the settings: commands, files and the documentation follow from there."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import ConfigDict, Field
from typer.main import get_command

from underfire import UnderfireError
from underfire.cli.main import app, main
from underfire.cli.options import command, option_name, options_of
from underfire.runs import settings
from underfire.runs.settings import Settings
from underfire.training import recipes
from underfire.training.recipes import AidRecipe, ClassifierRecipe, ClassifierSource, EncoderSource, MaskerRecipe, Turns

TAKES = {
    "attack": (settings.AttackSettings, settings.Distributed),
    "demo": (settings.Sampled, settings.Machine),
    "detect": (settings.DetectSettings, settings.Distributed),
    "transfer": (settings.TransferSettings, settings.Distributed),
    "probe": (settings.ProbeSettings, settings.Machine),
    "study gap": (settings.StudySettings, settings.Distributed),
    "study all": (settings.StudySettings, settings.Distributed),
    "train rts": (recipes.TrainingSource, EncoderSource, MaskerRecipe, settings.Machine),
    "train aid": (recipes.TrainingSource, AidRecipe, Turns, settings.Machine),
    "train classifier": (ClassifierSource, ClassifierRecipe, settings.Machine),
}
OWN = {"config", "quiet", "out", "help", "dry-run", "retrain", "init", "json"}
every_command = pytest.mark.parametrize("name", TAKES)


def parameters(name: str) -> dict[str, typer.core.TyperOption]:
    """The options of a command by their names."""
    found = get_command(app)
    for word in name.split():
        found = found.commands[word]
    return {each.opts[0].removeprefix("--"): each for each in found.params if each.param_type_name == "option"}


@every_command
def test_a_command_takes_each_option_of_its_settings_and_no_other(name: str) -> None:
    fields = {option_name(*item): item[1] for kind in TAKES[name] for item in options_of(kind).items()}
    typed = parameters(name)
    assert sorted(typed.keys() - OWN) == sorted(fields)
    for option, field in fields.items():
        assert (typed[option].help or "").startswith(str(field.description)), option
        assert typed[option].required == field.is_required(), option
        default = () if field.is_required() else field.default
        shown = ",".join(default) or None if isinstance(default, tuple) else default
        assert typed[option].default == shown, option


@every_command
def test_every_command_that_computes_can_be_configured_and_silenced(name: str) -> None:
    assert {"config", "quiet"} <= parameters(name).keys()


def test_every_field_of_a_run_is_an_option() -> None:
    for kind in (settings.AttackSettings, settings.StudySettings, settings.DetectSettings, settings.TransferSettings):
        assert sorted(kind.model_fields) == sorted(options_of(kind))


class Fire(Settings):
    """What a command of these tests is asked to do."""

    model_config = ConfigDict(title="Fire")

    wood: str = Field(description="Kind of wood.")
    logs: int = Field(default=3, ge=1, le=9, description="How many.")
    heat: float | None = Field(default=None, gt=0, description="In kelvin.")
    mood: Literal["calm", "wild"] = Field(default="calm", description="calm or wild.")
    guests: settings.Names = Field(default=("ann",), validation_alias="guest", description="Comma-separated.")
    unseen: int = 7


@pytest.fixture
def burn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """A command of its own: what it was asked, or what it said."""
    small, asked = typer.Typer(), []

    @command(small)
    def fire(
        fire: Fire,
        place: Annotated[Path, typer.Argument()],
        smoke: Annotated[bool, typer.Option("--smoke")] = False,
    ) -> None:
        asked.append((fire, place, smoke))

    def run(*arguments: object) -> tuple[Fire, Path, bool]:
        monkeypatch.setattr(sys, "argv", ["fire", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            small()
        assert not ended.value.code, capsys.readouterr().err
        return asked[-1]

    return run


def test_one_field_is_one_option(burn) -> None:
    asked, place, smoke = burn("camp", "--wood", "oak", "--guest", "bob, eve", "--logs", 5, "--heat", "900")
    assert (place, smoke) == (Path("camp"), False)
    assert asked == Fire(wood="oak", guests=("bob", "eve"), logs=5, heat=900.0)
    assert asked.model_fields_set == {"wood", "guests", "logs", "heat"}


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (("--logs", "0"), "--logs 0: Input should be greater than or equal to 1."),
        (("--logs", "10"), "--logs 10: Input should be less than or equal to 9."),
        (("--heat", "0"), "--heat 0.0: Input should be greater than 0."),
        (("--mood", "grim"), "--mood grim: Input should be 'calm' or 'wild'."),
    ],
)
def test_a_bad_value_is_named_with_its_option_and_bounds(burn, typed: tuple[str, str], sentence: str) -> None:
    with pytest.raises(UnderfireError) as refused:
        burn("camp", "--wood", "oak", *typed)
    assert str(refused.value) == sentence


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_gives_options_and_what_is_typed_wins(burn, tmp_path: Path) -> None:
    text = 'wood = "pine"\nlogs = 2\nheat = 800.5\nguest = ["bob", "eve"]\nsmoke = true\nmood = "wild"\n'
    file = written(tmp_path / "fire.toml", text)
    whole = Fire(wood="pine", logs=2, heat=800.5, guests=("bob", "eve"), mood="wild")
    assert burn("camp", "--config", file) == (whole, Path("camp"), True)
    assert burn(f"--config={file}", "camp", "--logs", 4)[0] == whole.model_copy(update={"logs": 4})
    assert burn("--logs", 4, "camp", "--wood", "ash", "--config", file)[0] == whole.model_copy(
        update={"logs": 4, "wood": "ash"}
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("log = 3", r"gives 'log', which is not an option of this command \(did you mean 'logs'\?\); leave it out\."),
        ("unseen = 3", r"gives 'unseen', which is not an option"),
        ("config = 'x.toml'", r"gives 'config', which is not an option"),
        ("[wood]\na = 1", r"gives 'wood' a dict; give it a text, a number or a list of them\."),
        ("wood = ", r"cannot be read as TOML: "),
        ("logs = 0", r"--logs 0: Input should be greater than or equal to 1\."),
    ],
)
def test_a_file_that_says_something_else_is_refused(burn, tmp_path: Path, text: str, sentence: str) -> None:
    file = written(tmp_path / "fire.toml", f"{text}\n")
    with pytest.raises(UnderfireError, match=sentence):
        burn("camp", "--wood", "oak", "--config", file)


def test_a_file_that_is_not_there_is_refused(burn, tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match=r"none\.toml cannot be read as TOML: No such file"):
        burn("camp", "--config", tmp_path / "none.toml")


@pytest.mark.parametrize(
    "arguments", [("--version",), ("-h",), ("attack", "-h"), ("train", "-h"), ("study", "gap", "-h")]
)
def test_the_version_and_short_help_are_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "argv", ["underfire", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.strip().startswith("underfire 0." if arguments == ("--version",) else "Usage")
