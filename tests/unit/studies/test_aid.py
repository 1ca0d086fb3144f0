"""What the AID study says of a table: detection against the signs of that very attack, shares, and names."""

import pyarrow as pa
import pytest

from underfire.core.types import UnderfireError
from underfire.studies.aid import SCHEMA, AidSettings, label_of, summarise


def rows(images: str, made_for: str | None, distances: list[float], **columns: list[float | int]) -> pa.Table:
    n = len(distances)
    shared = {"id": [str(i) for i in range(n)], "images": [images] * n, "made_for": [made_for] * n}
    classes = {"class_true": [0] * n, "class_target": [None] * n, "class_predicted": [0] * n, "sigma": [None] * n}
    return pa.table({**shared, "shown_by": ["rts"] * n, **classes, **columns, "map_l1": distances}, SCHEMA)


def test_each_attack_is_told_from_signs_of_its_own_size() -> None:
    attacked = {"class_target": [1, 2, 1, 2], "class_predicted": [1, 2, 1, 0]}
    table = pa.concat_tables(
        [
            rows("benign", None, [0.0, 0.0]),
            rows("pgd", None, [0.3, 0.4, 0.5, 0.6], **attacked),
            rows("signs like pgd", None, [0.1, 0.2, 0.1, 0.2]),
            rows("adv2", "rts", [0.1, 0.2, 0.3, 0.4], **attacked),
            rows("signs like adv2", "rts", [0.1, 0.2, 0.3, 0.4]),
            rows("adv2", "other", [0.0, 0.0, 0.0, 0.0], **attacked),
            rows("signs like adv2", "other", [0.1, 0.2, 0.3, 0.4]),
            rows("normal noise, 30 %", None, [0.1, 0.3], class_predicted=[0, 3], sigma=[0.2, 0.2]),
        ]
    )
    found = {(row.images, row.made_for): row for row in summarise(table)}
    assert [found[kind].auc for kind in (("pgd", None), ("adv2", "rts"), ("adv2", "other"))] == [1.0, 0.5, 0.0]
    assert {row.auc for row in found.values() if row.success is None} == {None}
    assert found["adv2", "rts"].success.value == found["adv2", "rts"].misclassified.value == 0.75
    assert found["pgd", None].map_l1.value == pytest.approx(0.45)
    noisy = found["normal noise, 30 %", None]
    assert (noisy.sigma, noisy.misclassified.value) == (0.2, 0.5)
    assert [row.images for row in found.values() if row.is_harmless] == ["signs like pgd"] + 2 * ["signs like adv2"]


def test_interpreters_go_by_the_names_of_their_files() -> None:
    names = ("cam", "rts:/tmp/maskers/a.safetensors", "smooth:rts:b.safetensors", "smooth:cam")
    assert [label_of(name) for name in names] == ["cam", "rts:a", "smooth:rts:b", "smooth:cam"]


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(UnderfireError, match="Interpreter 'rts:a' is named twice"):
        AidSettings(model="demo", images="demo", interpreters=("rts:x/a.safetensors", "rts:y/a.safetensors"))
