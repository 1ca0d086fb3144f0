"""One start at a time in a folder.

    with locked(Path("runs/x")):
        ...                         # runs/x/.lock says which process is at work

The operating system gives the lock of a process back when that ends, however it ends.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from socket import gethostname
from typing import TextIO

from underfire.core.types import UnderfireError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if need be and keep others out; UnderfireError if another process is at work there.

    A folder that was made for this and in which nothing was written is taken away again.
    """
    path, made = folder / LOCK, not folder.exists()
    file = _acquired(path)
    try:
        file.truncate(0)
        file.write(f"{os.getpid()} {gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if made:
            with suppress(OSError):  # it holds something by now
                folder.rmdir()


def _acquired(path: Path) -> TextIO:
    while True:
        file = _opened(path)
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except OSError:
            with file:
                file.seek(0)
                raise _in_use(path, file.read()) from None
        if _is_still_there(path, file):
            _check_owner(path, file)
            return file
        file.close()  # its owner has just taken it away


def _opened(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as problem:
        raise UnderfireError(f"{path.parent} cannot be written to: {problem.strerror}.") from problem


def _is_still_there(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _check_owner(path: Path, file: TextIO) -> None:
    """A lock that a dead process of this machine left is free; whether one of another machine lives is not known."""
    file.seek(0)
    owner = file.read()
    if owner and owner.partition(" ")[2] != gethostname():
        file.close()
        raise _in_use(path, owner)


def _in_use(path: Path, owner: str) -> UnderfireError:
    process, _, host = owner.partition(" ")
    return UnderfireError(
        f"{path.parent} is in use by process {process or 'unknown'} on {host or gethostname()}; wait until that has "
        f"ended, or choose another --out. If it is gone, delete {path}."
    )
