"""The table of docs/networks.md is what benchmarks/networks.py finds."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
QUICK = ("transformers:ViT", pytest.param("torchvision:mobilenet_v3_small", marks=pytest.mark.extended))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("networks", ROOT / "benchmarks" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> dict[str, list[str]]:
    """The cells of each network's row in the page."""
    lines = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {first: rest for first, *rest in cells}


def test_every_network_has_a_row(script: ModuleType, rows: dict[str, list[str]]) -> None:
    assert list(rows) == list(script.NETWORKS)


@pytest.mark.parametrize("name", QUICK)
def test_rows_are_what_is_found(script: ModuleType, rows: dict[str, list[str]], name: str) -> None:
    found = script.tried(script.NETWORKS[name])
    assert rows[name][0] == found.layer.strip("`")
    assert [cell == "✓" for cell in rows[name][1:]] == [sentence is None for sentence in found.sentences.values()]
