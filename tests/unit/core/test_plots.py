"""Plots: names from outside are drawn as they are, and whatever number is missing leaves its place empty."""

import re
from typing import Any

import numpy as np
import pytest

from underfire.core.plots import bound, confusion_matrix, curves, drawable, matrix, svg

HOSTILE = ["$x^{", "_hidden", "<script>", "猫\n", "%s{0}\\", "", "y" * 200]


def test_names_lose_what_a_plot_would_take_for_something_else() -> None:
    assert drawable("ADV² evading median 3×3") == "ADV² evading median 3×3"
    assert [drawable(name) for name in HOSTILE[:4]] == [r"\$x^{", " hidden", "<script>", "??"]
    assert len(drawable("y" * 200)) < 60


def test_hostile_names_are_drawn() -> None:
    points = {name: (np.array([0.1, 0.9]), np.array([0.2, 1.0])) for name in HOSTILE}
    pictures = [
        matrix(np.eye(len(HOSTILE)), HOSTILE, HOSTILE, np.eye(len(HOSTILE), dtype=bool), "distance"),
        bound(points, "x", "y"),
        curves({(name, name): values for name, values in points.items()}, None, "x", "y"),
        svg(confusion_matrix(np.eye(len(HOSTILE), dtype=int), HOSTILE)),
    ]
    for picture in pictures:
        assert picture.startswith(b"<?xml")
        assert b"<script" not in picture


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), np.nan), np.array([[0.1, np.nan], [np.inf, 1]])])
def test_cells_without_a_number_stay_empty(values: Any) -> None:
    picture = matrix(values, ["a", "b"], ["c", "d"], np.eye(2, dtype=bool), "distance")
    numbers = matrix(np.ones((2, 2)), ["a", "b"], ["c", "d"], np.eye(2, dtype=bool), "distance")
    cells = picture.count(b"clip-path"), numbers.count(b"clip-path")
    assert cells[0] - cells[1] == np.isfinite(values).sum() - 4
    assert picture == matrix(values, ["a", "b"], ["c", "d"], np.eye(2, dtype=bool), "distance")


def test_a_confusion_matrix_shades_by_row_and_writes_counts() -> None:
    """Two rows of equal shares look alike, a class without images has no share."""
    counts = np.array([[3, 1, 0], [250, 750, 0], [0, 0, 0]])
    picture = svg(confusion_matrix(counts, ["a", "b", "c"]))
    assert picture == svg(confusion_matrix(counts, ["a", "b", "c"]))
    fills = re.findall(rb'clip-path[^>]*style="fill: (#[0-9a-f]+)', picture)
    assert len(fills) == 9
    assert (fills[0], fills[1]) == (fills[4], fills[3])
    assert fills[2] == fills[6] == fills[8]
