"""What the tests of commands share: the program, called in this process."""

import sys
from collections.abc import Callable

import pytest

from underfire.cli.main import main


@pytest.fixture
def underfire(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_plots: None
) -> Callable[..., tuple[int, str, str]]:
    """Run `underfire` in this process on 80 columns: exit code, output, errors."""
    monkeypatch.setattr("underfire.cli.terminal.console.width", 80)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["underfire", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run
