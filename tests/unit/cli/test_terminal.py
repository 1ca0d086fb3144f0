"""Interrupts end a command with one sentence, whatever the library in which they come makes of them."""

import os
import signal

import pytest
import typer

from underfire.cli.terminal import one_bar, progress_bars


def interrupted(becomes: type[BaseException]) -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise becomes from None


@pytest.mark.parametrize("becomes", [KeyboardInterrupt, AttributeError, SystemError])
def test_an_interrupt_says_how_to_go_on(becomes: type[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as ended, progress_bars():
        interrupted(becomes)
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == "underfire: interrupted; the same command again goes on from here.\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_other_errors_are_what_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(AttributeError, match="no such thing"), one_bar("training", 3):
        raise AttributeError("no such thing")
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is before
