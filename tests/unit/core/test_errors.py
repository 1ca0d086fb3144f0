"""What is quoted of other exceptions."""

import pytest

from underfire.core.errors import first_line


@pytest.mark.parametrize(
    ("problem", "quoted"),
    [
        (RuntimeError("no such layer\nCUDA kernel errors might be …"), "no such layer"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "'x'"),
    ],
)
def test_the_first_line_is_quoted_or_else_the_type(problem: Exception, quoted: str) -> None:
    assert first_line(problem) == quoted
