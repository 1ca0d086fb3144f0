"""The notebook examples/tour.ipynb runs from its first cell to its last, and is kept without outputs."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="install the extra dev")
nbclient = pytest.importorskip("nbclient", reason="install the extra dev")

TOUR = Path(__file__).parents[2] / "examples" / "tour.ipynb"


def test_the_tour_is_kept_without_outputs() -> None:
    cells = nbformat.read(TOUR, as_version=4).cells
    nbformat.validate(nbformat.read(TOUR, as_version=4))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.parametrize("scenes", [2, pytest.param(8, marks=pytest.mark.extended)])
def test_the_tour_runs(scenes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tour = nbformat.read(TOUR, as_version=4)
    first = next(cell for cell in tour.cells if cell.cell_type == "code")
    assert "\nn = 8 " in first.source
    first.source = first.source.replace("\nn = 8 ", f"\nn = {scenes} ")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nbclient.NotebookClient(tour, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(part.get("text", "") for cell in tour.cells for part in cell.get("outputs", ()))
    assert f"of {scenes} classified right" in printed
    plain, dual, _ = (float(line.split()[-1]) for line in printed.splitlines() if line.startswith("fooled"))
    assert dual < plain / 2
    assert "Followed by input gradient" in printed
    assert "joint robust accuracy" in printed
    assert sum("image/png" in part.get("data", ()) for cell in tour.cells for part in cell.get("outputs", ())) == 2
