"""A user's own Python file: its import and its calls, with whatever they raise in one sentence with file and line.

with code_of(path):
    net = imported(path).build()
"""

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from underfire.core.errors import UnderfireError

PREFIX = "underfire_user_"  # of the names of users' modules


@contextmanager
def code_of(path: Path, failed: str) -> Iterator[None]:
    """The file's folder importable, as for `python file.py`; what is raised becomes "PATH failed: ..."."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except UnderfireError:
        raise
    except (Exception, SystemExit) as problem:
        message = next(iter(str(problem).splitlines()), "")
        said = f"{type(problem).__name__}: {message}" if message else type(problem).__name__
        raise UnderfireError(f"{failed}: {said} ({_place(problem, Path(folder), path)}).") from problem
    finally:
        sys.path.remove(folder)


def imported(path: Path) -> ModuleType:
    """The file as a module of a name of its own."""
    loader = SourceFileLoader(f"{PREFIX}{path.stem}", str(path))
    module = ModuleType(loader.name)
    module.__spec__, module.__file__ = importlib.util.spec_from_loader(loader.name, loader), str(path)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def modules_of_users() -> list[ModuleType]:
    """All files that were imported so far; other processes cannot import them by their names."""
    return [module for name, module in sys.modules.items() if name.startswith(PREFIX)]


def _place(problem: BaseException, folder: Path, path: Path) -> str:
    """The innermost line of the user's code on the way to the problem."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{problem.filename}, line {problem.lineno}"
    frames = traceback.extract_tb(problem.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else str(path)
