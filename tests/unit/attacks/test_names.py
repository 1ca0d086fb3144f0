"""Names: what attacks and detectors are called, and in which order they are shown."""

from itertools import permutations

import pytest

from underfire.attacks.names import (
    ATTACKS,
    attack_name,
    attacker,
    class_blindness,
    detector_name,
    detector_part,
    in_order,
    made_for,
)


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        *ATTACKS.items(),
        ("adv2-evading-fs:median:3", "ADV² evading median 3×3"),
        ("adv2-evading-fs:bits:2+nlm:11-3-4", "ADV² evading 2 bits + non-local means 11-3-4"),
        ("adv2-stadv-evading-fs", "ADV² on StAdv evading feature squeezing"),
        ("adv2-evading-fs+consistency:cam", "ADV² evading feature squeezing and self-consistency (CAM)"),
        ("adv2-evading-consistency:cam:jpeg", "ADV² evading self-consistency (CAM under JPEG)"),
        ("adv2-ensemble", "ADV² on the ensemble"),
        ("adv2-stadv-ensemble", "ADV² on StAdv and the ensemble"),
        ("noise", "random noise"),
    ],
)
def test_attacks_have_names(attack: str, name: str) -> None:
    assert attack_name(attack) == name
    assert made_for(attack, None) == name
    assert made_for(attack, "cam") == f"{name} for CAM"


@pytest.mark.parametrize("attack", ["", "deepfool", "pgd-ensemble", "x-evading-fs", "adv2-", "<b>"])
def test_unknown_attacks_keep_theirs(attack: str) -> None:
    assert attacker(attack) is None
    assert attack_name(attack) == attack


@pytest.mark.parametrize(
    ("detector", "name", "part"),
    [
        ("fs", "feature squeezing", "combined"),
        ("fs:median:3", "feature squeezing (median 3×3)", "median 3×3"),
        ("fs:bits:2", "feature squeezing (2 bits)", "2 bits"),
        ("consistency", "self-consistency", "combined"),
        ("consistency:cam", "self-consistency (CAM)", "CAM"),
        ("consistency:grad:noise", "self-consistency (GRAD under noise)", "GRAD under noise"),
        ("ensemble:cam+grad", "ensemble disagreement (CAM and GRAD)", "CAM and GRAD"),
        ("fs:blur", "feature squeezing (blur)", "blur"),
        ("other:{0}", "other ({0})", "{0}"),
    ],
)
def test_detectors_have_names_alone_and_within_their_family(detector: str, name: str, part: str) -> None:
    assert (detector_name(detector), detector_part(detector)) == (name, part)


def test_attacks_are_shown_solver_by_solver_in_any_order_of_the_table() -> None:
    shown = ["pgd", "adv2", "adv2-evading-fs", "adv2-ensemble", "stadv", "deepfool"]
    for given in permutations(shown):
        assert in_order([*given, *given]) == shown


def test_images_of_plain_attacks_and_of_those_on_the_ensemble_are_shared() -> None:
    names = ("pgd", "stadv", "adv2-ensemble", "adv2-stadv-ensemble", "adv2", "adv2-evading-fs", "adv2-stadv")
    known = {name: attacker(name) for name in names}
    assert [each.shared for each in known.values() if each] == [True] * 4 + [False] * 3
    assert [name for name, each in known.items() if each and each.evades] == [
        "adv2-ensemble", "adv2-stadv-ensemble", "adv2-evading-fs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sentences"), [("rollout", 1), ("smooth-rollout", 1), ("grad-rollout", 0), ("cam", 0)]
)
def test_what_explains_no_class_is_said_to(name: str, sentences: int) -> None:
    assert len(list(class_blindness(name))) == sentences
