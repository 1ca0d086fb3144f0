"""Figures of studies: the same files every time, the paper's diamonds, galleries with empty places."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.collections import PathCollection

from underfire.core.plots import drawable, svg
from underfire.metrics.intervals import Estimate
from underfire.studies.figures import Drawing, Figure, Series, bars, gallery, png, write

NONE = Estimate(float("nan"), float("nan"), float("nan"), 0)
OURS = Estimate(0.25, 0.125, 0.375, 8)
GROUPS = ("CAM", "GRAD")


def chart() -> Drawing:
    return bars(GROUPS, [("ΔL1", [Series("PGD", (OURS, None), (0.5, None)), Series("ADV²", (OURS, NONE))])])


def pictures() -> Drawing:
    image, attribution = torch.linspace(0, 1, 48).view(3, 4, 4), torch.linspace(0, 1, 4).view(2, 2)
    return gallery(("input", "CAM"), [("benign", [image, attribution]), ("ADV² <b>&", [None, attribution])])


def diamonds(drawing: Drawing) -> list[tuple[float, float]]:
    """Where they stand, over all panels."""
    marks = [each for axes in drawing.axes for each in axes.collections if isinstance(each, PathCollection)]
    return [(float(x), float(y)) for each in marks for x, y in each.get_offsets()]


def legend(drawing: Drawing) -> list[str]:
    return [text.get_text() for text in drawing.legends[0].get_texts()]


@pytest.mark.parametrize("draw", [chart, pictures])
def test_the_same_figure_is_the_same_files(draw: Callable[[], Drawing], tmp_path: Path) -> None:
    assert svg(draw()) == svg(draw())
    assert png(draw()) == png(draw())
    write(Figure("figure-5", "Fig. 5", draw), tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(files) == {"figure-5.svg", "figure-5.png"}
    assert (tmp_path / "figure-5.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "figure-5.svg").getroot().tag.endswith("svg")
    write(Figure("figure-5", "Fig. 5", draw), tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_bars_stand_beside_the_papers_diamonds() -> None:
    drawing = chart()
    heights = [[bar.get_height() for bar in container] for container in drawing.axes[0].containers[:1]]
    assert heights[0][0] == 0.25
    first = drawing.axes[0].patches[0]
    assert diamonds(drawing) == [(pytest.approx(first.get_x() + first.get_width() / 2), 0.5)]
    assert sorted(legend(drawing)) == sorted(["PGD", drawable("ADV²"), "the paper's"])


def test_no_diamonds_where_the_paper_has_no_number() -> None:
    drawing = bars(GROUPS, [("IoU", [Series("PGD", (OURS, OURS))])])
    assert diamonds(drawing) == []
    assert legend(drawing) == ["PGD"]


def test_the_legend_explains_diamonds_of_any_panel() -> None:
    plain, anchored = [Series("PGD", (OURS, OURS))], [Series("PGD", (OURS, OURS), (0.5, 0.4))]
    for panels in ([("ΔL1", anchored), ("IoU", plain)], [("IoU", plain), ("ΔL1", anchored)]):
        drawing = bars(GROUPS, panels)
        assert len(diamonds(drawing)) == 2
        assert sorted(legend(drawing)) == ["PGD", "the paper's"]


def test_a_gallery_leaves_the_place_of_a_missing_panel_empty() -> None:
    drawing = pictures()
    assert [len(axes.images) for axes in drawing.axes] == [1, 1, 0, 1]
    assert [axes.get_title() for axes in drawing.axes] == ["input", "CAM", "", ""]
    assert all(not axes.get_xticks().size for axes in drawing.axes)


def test_a_gallery_of_nothing_is_blank() -> None:
    assert gallery(("input", "CAM"), []).axes == []
    assert png(gallery(("input",), [])).startswith(b"\x89PNG")
