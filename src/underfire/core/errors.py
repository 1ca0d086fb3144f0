"""The one exception that is meant for readers, and what it quotes of others."""


class UnderfireError(Exception):
    """Bad input, in one sentence that names what is wrong and what to do about it."""


def first_line(problem: BaseException) -> str:
    """What another exception says, without the lines that follow; its type where it says nothing."""
    return next(iter(str(problem).splitlines()), "") or type(problem).__name__
