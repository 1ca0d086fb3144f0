"""Names of interpreters, however they are written."""

import pytest

from underfire import RTS, UnderfireError
from underfire.interpreters.registry import INTERPRETERS, canonical, interpreter_named


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *((name, name) for name in INTERPRETERS),
        *((name.upper(), name) for name in INTERPRETERS),
        ("CAM", "cam"),
        ("Grad-CAM", "grad-cam"),
        ("gradcam", "grad-cam"),
        ("Grad_CAM", "grad-cam"),
        (" grad cam ", "grad-cam"),
        ("smooth:Grad-CAM", "smooth:grad-cam"),
        ("Smooth:RTS:My File-1.safetensors", "smooth:rts:My File-1.safetensors"),
        ("RTS:Folder/My_Masker.safetensors", "rts:Folder/My_Masker.safetensors"),
    ],
)
def test_case_spaces_hyphens_and_underscores_are_the_writers_own(text: str, name: str) -> None:
    assert canonical(text) == name


@pytest.mark.parametrize(("text", "name"), [("CAM", "cam"), ("Grad_CAM", "grad-cam"), ("smooth:GRAD", "smooth-grad")])
def test_a_name_means_the_interpreter(text: str, name: str) -> None:
    assert interpreter_named(text).name == name


def test_the_demo_masker_is_named() -> None:
    assert isinstance(interpreter_named("RTS"), RTS)


@pytest.mark.parametrize(("text", "meant"), [("grda", "grad"), ("gradcams", "grad-cam"), ("smoth:cam", "smooth")])
def test_an_unknown_name_says_what_may_be_meant(text: str, meant: str) -> None:
    given = text.partition(":")[0]
    with pytest.raises(UnderfireError, match=rf"no interpreter '{given}' \(did you mean {meant}\?\); there are cam,"):
        interpreter_named(text)


@pytest.mark.parametrize("text", ["", "lime", ":", "smooth:"])
def test_a_name_unlike_all_is_refused_without_a_guess(text: str) -> None:
    with pytest.raises(UnderfireError, match=r"There is no interpreter '\w*'; there are cam, grad, "):
        interpreter_named(text)


def test_an_argument_of_an_interpreter_that_takes_none_is_refused() -> None:
    with pytest.raises(UnderfireError, match=r"Interpreter 'cam' takes no argument; leave out ':7'."):
        interpreter_named("CAM:7")
