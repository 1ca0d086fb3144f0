"""Options as they are typed and as Python gives them."""

from typing import Any, get_args

import pytest
from torch import nn

from underfire import UnderfireError
from underfire.attacks.names import RECIPES
from underfire.models.loading import LoadedNetwork
from underfire.runs.attack_settings import AttackSettings, AuditSettings, RecipeName, budget_in
from underfire.runs.settings import Photos, sized


@pytest.mark.parametrize(
    ("text", "budget"),
    [(None, None), ("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.031", 0.031), ("1e-2", 0.01), ("2", 2)],
)
def test_a_budget_is_a_fraction_or_a_number(text: str | None, budget: float | None) -> None:
    assert budget_in(text) == budget


@pytest.mark.parametrize("text", ["", "eight", "8/0", "8/255/2", "8/", "/255", "8 255"])
def test_any_other_budget_is_refused(text: str) -> None:
    with pytest.raises(UnderfireError, match=f"^--eps {text} is not a number; write it like 8/255 or 0.031.$"):
        budget_in(text)


def test_lists_are_tuples_or_separated_by_commas() -> None:
    given = {"model": "demo", "images": "demo"}
    typed = AttackSettings(**given, interpreters="cam, Grad-CAM", solvers="pgd,stadv", evade="fs,fs:median:3")
    assert typed.interpreters == ("cam", "grad-cam")
    assert typed.solvers == ("pgd", "stadv")
    assert typed == AttackSettings(
        **given, interpreters=("cam", "grad-cam"), solvers=("pgd", "stadv"), evade=("fs", "fs:median:3")
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"effort": "quick", "steps": 5}, "--effort and --steps both say how long an attack is"),
        ({"effort": "thorough", "recipe": "paper"}, "The recipe 'paper' has the paper's steps"),
    ],
)
def test_an_attack_has_one_length(given: dict[str, Any], told: str) -> None:
    with pytest.raises(UnderfireError, match=told):
        AttackSettings(model="demo", images="demo", **given)


def test_a_norm_is_that_of_pgd() -> None:
    given = {"model": "demo", "images": "demo", "norm": "l2"}
    assert AttackSettings(**given, eps=2.5).solvers == ("pgd-l2",)
    both = AttackSettings(**given, solvers="stadv,pgd")
    assert both.solvers == ("stadv", "pgd-l2")
    assert AttackSettings(**both.model_dump()) == both


@pytest.mark.parametrize(
    ("detector", "interpreters", "evaded"),
    [
        (None, "cam", ()),
        ("ensemble", "cam,grad", ("ensemble",)),
        ("ensemble:cam+grad", "cam,grad", ()),
        ("fs", "cam,grad", ("fs",)),
        ("consistency", "cam", ("consistency",)),
        ("fs+consistency", "cam,grad", ("fs+consistency:cam+grad",)),
        ("consistency:cam:jpeg", "cam,grad", ("consistency:cam:jpeg",)),
    ],
)
def test_an_audit_evades_what_it_deploys(detector: str | None, interpreters: str, evaded: tuple[str, ...]) -> None:
    """All of it: of several interpreters `consistency` asks each."""
    audit = AuditSettings(model="demo", images="demo", interpreters=interpreters, detector=detector)
    assert audit.attacks().evade == evaded


def test_the_papers_effort_is_standard() -> None:
    assert AttackSettings(model="demo", images="demo", recipe="paper", effort="standard").effort == "standard"


def test_options_name_the_efforts_and_recipes_that_there_are() -> None:
    assert set(get_args(RecipeName)) == set(RECIPES)


@pytest.mark.parametrize(
    ("wanted", "asked", "expected"),
    [
        ((224, 256), (None, None), (224, 256)),
        ((224, 256), (None, 300), (224, 300)),
        ((224, 256), (100, None), (100, None)),
        ((None, 48), (None, None), (None, 48)),
        ((None, None), (None, 300), (None, 300)),
    ],
)
def test_sizes_are_those_asked_for_else_as_the_weights_want_them(
    wanted: tuple[int | None, ...], asked: tuple[int | None, ...], expected: tuple[int | None, ...]
) -> None:
    settings = Photos(images="photos", crop=asked[0], resize=asked[1])
    made = sized(settings, LoadedNetwork(nn.Identity(), crop=wanted[0], resize=wanted[1]))
    assert (made.crop, made.resize) == expected
    assert sized(settings, None) == settings
