"""The wheel and the source archive hold what they should, the wheel works elsewhere, and the image is made of it."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="install the extra dev")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = f"underfire-{PROJECT['version']}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(dist / f"{NAME}-py3-none-any.whl") as wheel:
        held = {name for name in wheel.namelist() if not name.startswith(NAME)}
        about = {
            name.partition("/")[2]: wheel.read(name).decode() for name in wheel.namelist() if name.startswith(NAME)
        }
    files = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert held == {name for name in files if "__pycache__" not in name}
    assert {Path(name).suffix for name in held} >= {".html", ".css", ".js", ".safetensors", ".pyi", ".typed", ".txt"}
    assert "Apache License" in about["licenses/LICENSE"]
    assert "underfire = underfire.cli.main:main" in about["entry_points.txt"]
    assert f"Version: {PROJECT['version']}\n" in about["METADATA"]


def test_the_source_archive_builds_documents_and_tests_itself(dist: Path) -> None:
    with tarfile.open(dist / f"{NAME}.tar.gz") as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        *("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml"),
        *("Makefile", "constraints.txt", "mkdocs.yml", "Dockerfile", "docs/audit.schema.json", "docs/hooks.py"),
        *("docs/images/front-dark.png", "examples/tour.ipynb", "tests/conftest.py", "benchmarks/step.py"),
        "src/underfire/models/weights/demo-classifier.safetensors",
    }
    assert sorted(needed - held) == []
    assert [name for name in held if re.match(r"(runs|shared|dist|site|\.venv)/|.*__pycache__", name)] == []
    assert sum(1 for name in held if name.endswith(".safetensors")) == 3


@pytest.mark.extended
def test_the_wheel_works_outside_the_checkout(dist: Path, tmp_path: Path) -> None:
    """Dependencies are those of the tests' own environment; the package itself comes from the wheel."""
    venv.create(tmp_path / "venv", with_pip=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")})
    Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    there = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: object) -> str:
        where = tmp_path / "elsewhere"
        where.mkdir(exist_ok=True)
        return subprocess.run(
            [*map(str, command)], cwd=where, env=there, check=True, capture_output=True, text=True
        ).stdout

    programs = tmp_path / "venv" / "bin"
    run(programs / "pip", "install", "--no-index", "--no-deps", "--force-reinstall", *dist.glob("*.whl"))
    assert run(programs / "python", "-c", "import underfire; print(underfire.__file__)").startswith(str(tmp_path))
    assert PROJECT["version"] in run(programs / "underfire", "--version")
    run(programs / "underfire", "demo", "--n", 1)
    report = tmp_path / "elsewhere" / "runs" / "demo" / "report.html"
    report.unlink()
    run(programs / "underfire", "report", "runs/demo")
    assert report.stat().st_size > 10_000


def test_the_image_is_made_by_documented_commands_from_what_it_is_given() -> None:
    steps = [line.split(maxsplit=1) for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1].isalpha()]
    typed = [arguments.replace(" --no-cache-dir", "") for step, arguments in steps if step == "RUN"]
    documented = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").splitlines()
    assert typed == ["pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu", "pip install ."]
    assert [line for line in typed if line not in documented] == []
    given = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {name for step, arguments in steps if step == "COPY" for name in arguments.split()[:-1]}
    assert copied == {line[1:] for line in given if line.startswith("!")}
    built_from = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "src"}
    assert copied == built_from
    python = (
        next(arguments for step, arguments in steps if step == "FROM").removeprefix("python:").removesuffix("-slim")
    )
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
