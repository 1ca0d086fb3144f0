"""Every option is defined once, in the settings: commands, files and the documentation follow from there."""

import sys
import tomllib
from collections.abc import Iterator
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import ConfigDict, Field
from typer.main import get_command

from underfire import UnderfireError
from underfire.cli.main import app, main
from underfire.cli.options import command
from underfire.runs import attack_settings, settings, study_settings
from underfire.runs.config import write_config
from underfire.runs.settings import Settings, option_name, options_of
from underfire.training import recipes
from underfire.training.recipes import AidRecipe, ClassifierRecipe, ClassifierSource, EncoderSource, MaskerRecipe, Turns

TAKES = {
    "attack": (attack_settings.AttackSettings, settings.Distributed),
    "demo": (settings.Sampled, settings.Machine),
    "audit": (attack_settings.AuditSettings, settings.Distributed),
    "detect": (study_settings.DetectSettings, settings.Distributed),
    "transfer": (study_settings.TransferSettings, settings.Distributed),
    "probe": (settings.ProbeSettings, settings.Machine),
    "study gap": (study_settings.StudySettings, settings.Distributed),
    "study all": (study_settings.StudySettings, settings.Distributed),
    "train rts": (recipes.TrainingSource, EncoderSource, MaskerRecipe, settings.Machine),
    "train aid": (recipes.TrainingSource, AidRecipe, Turns, settings.Shared),
    "train classifier": (ClassifierSource, ClassifierRecipe, settings.Machine),
}
OWN = {"config", "quiet", "out", "help", "dry-run", "retrain", "init", "json", "fail-under", "summary"}
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
    for kind in (
        attack_settings.AttackSettings,
        study_settings.StudySettings,
        study_settings.DetectSettings,
        study_settings.TransferSettings,
    ):
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


GIVEN = {
    "model": "net.py:build", "images": "a b/ü \\ \"c\"", "labels": "labels.csv", "weights": "w.safetensors", "n": 7,
    "seed": 3, "crop": 48, "interpreters": ("cam", "smooth:grad"), "solvers": ("pgd", "stadv"), "eps": 8 / 255,
    "evade": ("fs", "ensemble"), "target_class": "next", "steps": 12, "lr": 1e-5, "held_out": 0.25, "area": 1.5,
    "detector": "fs", "attacks": ("adv2",), "fpr": 0.1, "encoder": "other.py:build", "ratio": "2:1", "batch": 9,
    "defended": ("rts:m.safetensors",), "scale": "quick", "masks": "masks", "on_grid": True,
    "effort": "thorough", "suite": "quick",
}  # fmt: skip


def given(kind: type[Settings]) -> Settings:
    """Settings that differ from the defaults where GIVEN has something else; effort and steps exclude each other."""
    chosen = {name: GIVEN[name] for name in options_of(kind) if name in GIVEN}
    if "effort" in chosen:
        chosen.pop("steps", None)
    return kind(**chosen)


def taken(kinds: tuple[type[Settings], ...], file: Path, monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What a command that takes such settings is asked to do by a file alone."""
    small, asked = typer.Typer(), list[Settings]()

    def take(**settings: Settings) -> None:
        asked.extend(settings.values())

    parameters = [Parameter(f"part{i}", Parameter.KEYWORD_ONLY, annotation=kind) for i, kind in enumerate(kinds)]
    take.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command(small, "take", "Take.")(take)
    monkeypatch.setattr(sys, "argv", ["take", "--config", str(file)])
    with pytest.raises(SystemExit) as ended:
        small()
    assert not ended.value.code
    return asked


@every_command
def test_settings_come_back_from_the_file_that_they_are_written_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they were, of every command, without what is the machine's."""
    kinds = tuple(kind for kind in TAKES[name] if not issubclass(kind, settings.Machine))
    asked = [given(kind) for kind in kinds]
    write_config(tmp_path / "config.toml", *asked)
    assert taken(kinds, tmp_path / "config.toml", monkeypatch) == asked
    defaults = [kind(**{name: GIVEN[name] for name, field in options_of(kind).items() if field.is_required()})
                for kind in kinds]  # fmt: skip
    write_config(tmp_path / "config.toml", *defaults)
    assert taken(kinds, tmp_path / "config.toml", monkeypatch) == defaults
    assert "device" not in (tmp_path / "config.toml").read_text()


def test_files_that_a_config_names_are_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths start in the folder of the run, where they are not found from here."""
    (home := tmp_path / "home").mkdir()
    (away := tmp_path / "away").mkdir()
    for name in ("net.py", "photos", "m.safetensors"):
        (home / name).write_text("")
    asked = study_settings.StudySettings(
        model="net.py:build", images="photos", labels="gone.csv", defended=("rts:m.safetensors",)
    )
    monkeypatch.chdir(home)
    write_config(away / "config.toml", asked)
    monkeypatch.chdir(away)
    (found,) = taken((study_settings.StudySettings,), away / "config.toml", monkeypatch)
    assert (found.model, found.images, found.labels) == (f"{home}/net.py:build", f"{home}/photos", "gone.csv")
    assert found.defended == (f"rts:{home}/m.safetensors",)


def test_a_character_that_toml_forbids_is_escaped(tmp_path: Path) -> None:
    write_config(tmp_path / "config.toml", Fire(wood="a\x7f\n\t\u2028"))
    assert tomllib.loads((tmp_path / "config.toml").read_text(encoding="utf-8"))["wood"] == "a\x7f\n\t\u2028"


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
        ("folder = 3", r"'folder' is where relative paths start; give it a text\."),
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
