"""Families: what the names of detectors mean, and how wrong ones are refused."""

from pathlib import Path

import pytest

from tiny_maskers import masker_file
from tiny_networks import classifier
from underfire.core.errors import UnderfireError
from underfire.data.corruptions import Blur, Crop
from underfire.detection.calibration import AS_IT_IS, STANDARDISED
from underfire.detection.registry import Judgement, evaded_named, judgements_named
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing
from underfire.detection.squeezers import BitDepth, Median
from underfire.interpreters import CAM, GRAD, IG, MASK, RTS

RUN = ("cam", "grad")


def names(text: str, of_run: tuple[str, ...] = RUN) -> list[str]:
    return [each.name for each in judgements_named(text, of_run)]


def parts(judgement: Judgement) -> list[str]:
    return [each.name for each in judgement.parts]


def test_feature_squeezing_is_its_squeezers_and_their_maximum() -> None:
    *single, together = judgements_named("fs:bits:2 + median:3")
    assert [each.parts for each in single] == [(FeatureSqueezing(BitDepth(2)),), (FeatureSqueezing(Median(3)),)]
    assert (together.name, together.family, together.scale) == ("fs", "fs", AS_IT_IS)
    assert parts(together) == [each.name for each in single] == ["fs:bits:2", "fs:median:3"]
    assert names("fs") == ["fs:bits:2", "fs:bits:3", "fs:median:3", "fs:nlm:11-3-4", "fs"]
    assert names("fs:bits:2") == ["fs:bits:2"]


def test_consistency_is_interpreters_with_their_changes() -> None:
    judgements = judgements_named("consistency", RUN)
    of_each = [f"consistency:{g}{change}" for g in RUN for change in (":noise", ":jpeg", ":blur", ":crop", "")]
    assert [each.name for each in judgements] == [*of_each, "consistency"]
    assert {each.family for each in judgements} == {"consistency"}
    assert parts(judgements[4]) == of_each[:4]
    assert parts(judgements[-1]) == [name for name in of_each if name.count(":") == 2]
    assert [each.scale for each in judgements if len(each.parts) > 1] == [STANDARDISED] * 3


def test_parts_may_name_one_change() -> None:
    (only,) = judgements_named("consistency:mask:blur")
    assert (only.name, only.parts) == ("consistency:mask:blur", (Consistency(MASK(), Blur()),))
    assert names("consistency:mask:blur+mask:crop+cam:crop") == [
        *("consistency:mask:blur", "consistency:mask:crop", "consistency:mask", "consistency:cam:crop", "consistency")
    ]
    assert judgements_named("consistency:cam:crop")[0].parts == (Consistency(CAM(), Crop()),)
    assert names("consistency", ("cam",))[-1] == "consistency:cam"


def test_an_ensemble_is_its_pairs() -> None:
    judgements = judgements_named("ensemble:cam+grad+ig", RUN)
    assert [each.name for each in judgements] == [
        "ensemble:cam+grad",
        "ensemble:cam+ig",
        "ensemble:grad+ig",
        "ensemble",
    ]
    assert judgements[1].parts == (Disagreement(CAM(), IG()),)
    assert (judgements[-1].family, judgements[-1].scale) == ("ensemble", STANDARDISED)
    assert names("ensemble") == ["ensemble:cam+grad"]


def test_families_are_listed_with_commas() -> None:
    assert names("ensemble, fs:bits:2,consistency:cam:blur") == [
        "ensemble:cam+grad",
        "fs:bits:2",
        "consistency:cam:blur",
    ]


def test_a_name_means_the_interpreter_of_the_run(tmp_path: Path) -> None:
    file = masker_file(tmp_path / "masker.safetensors", classifier("resnet"))
    (pair,) = judgements_named("ensemble:cam+rts", ("grad", f"rts:{file}"))
    assert pair.parts == (Disagreement(CAM(), RTS.load(file)),)
    assert pair.name == "ensemble:cam+rts"
    assert names("consistency:rts:crop", (f"rts:{file}",)) == ["consistency:rts:crop"]


def test_every_name_in_a_table_can_be_asked_for() -> None:
    """And means the same there, where the whole family is that of the run."""
    for family in ("fs", "consistency", "ensemble"):
        for each in judgements_named(family, ("cam", "grad", "grad-cam")):
            again = {one.name: one for one in judgements_named(each.name, ("cam", "grad", "grad-cam"))}
            assert again[each.name] == each


def test_a_run_interpreter_that_is_not_asked_for_is_not_opened() -> None:
    assert names("fs:bits:2,consistency:grad:blur", ("rts:gone.safetensors", "grad")) == [
        "fs:bits:2",
        "consistency:grad:blur",
    ]


def test_families_joined_by_plus_are_one_detector() -> None:
    assert names("fs:bits:2+median:3+consistency:cam:jpeg+grad:blur,fs") == ["fs+consistency", *names("fs")]
    (both,) = judgements_named("fs:bits:2+consistency:cam", RUN)
    assert (both.name, both.family, both.scale) == ("fs:bits:2+consistency:cam", "joint", STANDARDISED)
    assert parts(both) == ["fs:bits:2", *(f"consistency:cam:{each}" for each in ("noise", "jpeg", "blur", "crop"))]
    assert names("fs+consistency+ensemble") == ["fs+consistency+ensemble:cam+grad"]


def test_an_attack_hides_from_squeezers_and_its_own_consistency() -> None:
    assert evaded_named("fs:bits:2+median:3", CAM()) == (FeatureSqueezing(BitDepth(2)), FeatureSqueezing(Median(3)))
    assert [each.name for each in evaded_named("fs:bits:2+consistency", IG(), RUN)] == [
        "fs:bits:2",
        *(f"consistency:ig:{change}" for change in ("noise", "jpeg", "blur", "crop")),
    ]
    assert evaded_named("consistency:grad:blur", CAM(), RUN) == (Consistency(GRAD(), Blur()),)
    with pytest.raises(UnderfireError, match="'ensemble' cannot be evaded in part"):
        evaded_named("ensemble", CAM(), RUN)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("magnet", "There is no detector 'magnet'; there are fs, "),
        ("", "There is no detector ''"),
        ("fs,", "There is no detector ''"),
        ("bits:2", "There is no detector 'bits'"),
        ("fs:bits:2,fs:bits:3", "Detector 'fs' is named twice; name it once, with its parts joined by"),
        ("fs:", "There is no squeezer ''"),
        ("fs:bits:2+", "There is no squeezer ''"),
        ("fs:bits:2+bits:02", "Squeezer 'bits:2' is named twice"),
        ("fs:bits", "write it like bits:2"),
        ("consistency:", "There is no interpreter ''"),
        ("consistency:magic", "There is no interpreter 'magic'"),
        ("consistency:cam:flip", "There is no harmless change 'flip'; there are noise, jpeg, blur, crop"),
        ("consistency:cam:", "There is no harmless change ''"),
        ("consistency:cam:blur:2", "There is no harmless change 'blur:2'"),
        ("consistency:cam+cam:blur", "Change 'blur' of cam is named twice"),
        ("ensemble:cam", "An ensemble takes two interpreters or more"),
        ("ensemble:cam+cam", "Interpreter 'cam' is named twice"),
        ("ensemble:cam+magic", "There is no interpreter 'magic'"),
        ("ensemble:cam+rts:file", "Interpreter 'rts:file' .*leave out ':' and what follows"),
    ],
)
def test_wrong_names_are_refused(text: str, reason: str) -> None:
    with pytest.raises(UnderfireError, match=reason):
        judgements_named(text, RUN)


def test_an_ensemble_of_a_run_with_one_interpreter_is_refused() -> None:
    with pytest.raises(UnderfireError, match="An ensemble takes two interpreters or more; name them"):
        judgements_named("ensemble", ("cam",))


def test_interpreters_may_be_written_as_one_likes() -> None:
    assert names("ensemble:CAM+Grad_CAM") == names("ensemble:cam+grad-cam")
    assert names("consistency:GRAD:blur+grad:crop") == names("consistency:grad:blur+grad:crop")
