"""What a suite leaves: no member leaves less than the worst case, and what nobody fooled is counted apart."""

import numpy as np
import pytest

from underfire.attacks.suite import suite
from underfire.attacks.target_classes import RandomClass
from underfire.interpreters import CAM, GRAD
from underfire.metrics.intervals import share
from underfire.runs.specs import Craft, Explain, RandomPoints, Select, TargetClasses, key
from underfire.studies.worst_case import WorstCase, crafted, worst_case

SELECT = Select("model", "images", 4, 0)
TARGETS = TargetClasses(SELECT, 0, RandomClass())


def drawn(seed: int, images: int = 40) -> WorstCase:
    """Five members of which each fools most images, and none the last."""
    rng = np.random.default_rng(seed)
    fooled = rng.random((5, images)) < 0.8
    fooled[:, -1] = False
    return worst_case([f"member {i}" for i in range(5)], rng.beta(1, 6, (5, images)), fooled)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_case_is_one_of_the_members_and_above_none(seed: int) -> None:
    left = drawn(seed)
    for distances in left.distances:
        succeeded = ~np.isnan(distances)
        assert (left.smallest[succeeded] <= distances[succeeded]).all()
    seen = ~np.isnan(left.smallest)
    assert (left.distances == left.smallest)[:, seen].any(0).all()
    assert sum(left.closest(member).value for member in left.members) == pytest.approx(left.success.value)


def test_an_image_that_nobody_fools_has_no_distance_and_lowers_the_success() -> None:
    left = worst_case(["a", "b"], [[0.1, 0.5, 0.0], [0.3, 0.2, 0.0]], [[True, True, False], [True, True, False]])
    assert left.success == share([True, True, False])
    assert (left.map_l1.value, left.map_l1.n) == (pytest.approx(0.15), 2)
    assert [left.closest(member).value for member in "ab"] == pytest.approx([1 / 3, 1 / 3])


def test_a_map_that_fails_to_fool_is_not_the_closest() -> None:
    left = worst_case(["a", "b"], [[0.01, 0.5], [0.3, 0.5]], [[False, True], [True, True]])
    assert left.smallest.tolist() == [0.3, 0.5]
    assert (left.success_of("a").value, left.map_l1_of("a").value) == (0.5, 0.5)
    assert [left.closest(member).value for member in "ab"] == [0.5, 0.5], "of equals the first"


def test_a_ratio_compares_the_images_that_both_suites_fooled() -> None:
    undefended = worst_case(["a"], [[0.1, 0.2, 0.9]], [[True, True, False]])
    defended = worst_case(["a"], [[0.2, 0.4, 0.1]], [[True, True, True]])
    found = defended.ratio_to(undefended)
    assert (found.value, found.n) == (pytest.approx(2), 2)


def test_members_share_one_warm_start_and_interpreters_every_start() -> None:
    crafts = [
        crafted(member, TARGETS, Explain(SELECT, interpreter), 0)
        for interpreter in (CAM(), GRAD())
        for member in suite(interpreter)
    ]
    assert len({key(craft) for craft in crafts}) == len(crafts)
    starts = {key(craft.start): craft.start for craft in crafts if craft.start is not None}
    assert sorted(type(each).__name__ for each in starts.values()) == [Craft.__name__, RandomPoints.__name__]
