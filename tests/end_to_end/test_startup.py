"""What is imported to answer at once, and to write a report: nothing that takes seconds and is not used."""

import subprocess
import sys


def imported(statement: str, *modules: str) -> list[str]:
    """Which of these modules a fresh interpreter holds after a statement."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
    program += f"print('IMPORTED', *(name for name in {modules} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split("IMPORTED")[-1].split()


COSTLY = ("torch", "torchvision", "scipy.stats", "matplotlib")


def test_the_package_imports_what_is_asked_of_it() -> None:
    assert imported("import underfire", *COSTLY) == []
    assert imported("import underfire; underfire.UnderfireError", *COSTLY) == []
    assert imported("import underfire; underfire.CAM", *COSTLY) == ["torch"]
