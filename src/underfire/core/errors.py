"""The one exception that is meant for readers."""


class UnderfireError(Exception):
    """Bad input, in one sentence that names what is wrong and what to do about it."""
