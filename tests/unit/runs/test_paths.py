"""Files that settings name are found from another folder, and told to be the same however they are spelled."""

from pathlib import Path

import pytest

from underfire.runs.paths import found, spelled_alike


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("weights", "w.pt", "{0}/w.pt"),
        ("model", "m.py:build", "{0}/m.py:build"),
        ("model", "torchvision:resnet50", "torchvision:resnet50"),
        ("interpreters", ["cam", "rts:w.pt"], ["cam", "rts:{0}/w.pt"]),
        ("interpreters", ["smooth:rts:w.pt@m.py:build"], ["smooth:rts:{0}/w.pt@{0}/m.py:build"]),
        ("interpreters", ["rts:w.pt@demo"], ["rts:{0}/w.pt@demo"]),
        ("seed", 0, 0),
    ],
)
def test_files_of_a_spec_are_found_in_the_folder_where_it_was_written(
    name: str, value: object, expected: object, tmp_path: Path
) -> None:
    for file in ("w.pt", "m.py"):
        (tmp_path / file).touch()
    wanted = [each.format(tmp_path) for each in expected] if isinstance(expected, list) else expected
    wanted = wanted.format(tmp_path) if isinstance(wanted, str) else wanted
    assert found({name: value}, str(tmp_path)) == {name: wanted}
    assert spelled_alike(value, wanted, str(tmp_path))


def test_other_files_are_not_spelled_alike(tmp_path: Path) -> None:
    assert not spelled_alike("rts:w.pt@m.py:build", f"rts:{tmp_path}/w.pt@{tmp_path}/n.py:build", str(tmp_path))
    assert not spelled_alike("rts:w.pt", f"rts:{tmp_path}/w.pt@demo", str(tmp_path))
