"""One start at a time in a folder.

    with locked(Path("runs/x")):
        ...                         # runs/x/.lock names the process that is at work, and its machine

What a process of this machine left behind that has ended is taken over.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout

from underfire.core.errors import UnderfireError

LOCK, PATIENCE = ".lock", 0.5  # seconds that a lock may take to be taken over


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder if need be and keep others out; UnderfireError if another process is at work there.

    A folder that was made for this and in which nothing was written is taken away again.
    """
    path, made = folder / LOCK, not folder.exists()
    lock = SoftFileLock(path, timeout=PATIENCE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise _in_use(path) from None
    except OSError as problem:
        raise UnderfireError(f"{folder} cannot be written to: {problem.strerror}.") from problem
    try:
        yield
    finally:
        lock.release()
        if made:
            with suppress(OSError):  # it holds something by now
                folder.rmdir()


def _in_use(path: Path) -> UnderfireError:
    process, host = "an unknown process", "this machine"
    with suppress(OSError, ValueError, IndexError):
        owner = path.read_text(encoding="utf-8").splitlines()
        process, host = f"process {owner[0]}", owner[1]
    return UnderfireError(
        f"{path.parent} is in use by {process} on {host}; wait until that has ended, or choose another --out. If it is "
        f"gone, delete {path}."
    )
