"""Rows of numbers that a training keeps, and their table."""

from pathlib import Path

import torch

from underfire.training.log import Curves


def test_rows_are_written_as_they_come_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    curves = Curves(("step", "loss", "share"), 3, path)
    assert len(curves) == 0
    curves.note(5, {"loss": 0.25, "else": 1.0})
    again = Curves(("step", "loss", "share"), 3, path)
    again.rows.copy_(curves.rows)
    again.note(10, {"loss": None, "share": 1 / 3})
    assert len(again) == 2
    assert path.read_text() == "step,loss,share\n5,0.25,\n10,,0.333333\n"
    assert torch.isnan(again.rows[2]).all()
