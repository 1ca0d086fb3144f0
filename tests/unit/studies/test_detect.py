"""The study of detection: its table follows from the run's images, and it says what a run lacks."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from underfire.attacks import recipes
from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import to_8bit
from underfire.core.io import read_json, write_json, write_table
from underfire.core.rng import halves, image_keys
from underfire.data.image_set import ImageSet, open_images
from underfire.detection.calibration import roc
from underfire.detection.registry import judgements_named
from underfire.detection.scores import look
from underfire.interpreters import CAM
from underfire.metrics.intervals import share
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run, open_run
from underfire.runs.plan import Planned
from underfire.runs.store import Store
from underfire.studies import detect, effectiveness
from underfire.studies.base import Subject
from underfire.studies.detect import DetectSettings, attacked
from underfire.studies.detections import (
    COLUMNS,
    DETECTORS,
    MATRIX,
    MATRIX_COLUMNS,
    TABLE,
    calibrations,
    detections,
    matrix,
)

SQUEEZERS = ("fs:bits:3", "fs:median:3")
FAMILIES = "fs:bits:3+median:3,consistency:cam:crop+grad:blur,ensemble"
SINGLE = (*SQUEEZERS, "consistency:cam:crop", "consistency:grad:blur", "ensemble:cam+grad")
NAMES = (*SQUEEZERS, "fs", "consistency:cam:crop", "consistency:grad:blur", "consistency", "ensemble:cam+grad")
N, BENIGN, FPR = 4, 8, 0.3
Found = dict[str, Any]
Detected = Callable[..., Run]


@pytest.fixture(scope="module")
def run(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with four of the twelve photos attacked, in so few steps that not every attack succeeds."""
    settings = AttackSettings(
        model=tiny_model,
        images=str(tiny_photos),
        n=N,
        steps=5,
        eps=0.02,
        interpreters=("cam", "grad"),
        normalize="none",
    )
    with pytest.MonkeyPatch.context() as patch:
        short = replace(recipes.RECIPES["annealed"], warm_steps=2, plain_steps=5)
        patch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
        subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
        return effectiveness.execute(
            settings, subject, tmp_path_factory.mktemp("runs") / "attacked", Manner("test")
        ).path


def detect_in(
    folder: Path,
    classifier: Classifier,
    image_set: ImageSet,
    on_progress: Any = lambda planned, progress: None,
    **changes: Any,
) -> Run:
    settings = DetectSettings(**{"detector": FAMILIES, "benign": BENIGN, "fpr": FPR, **changes})
    manner = Manner("test", batch_size=2, on_progress=on_progress)
    return detect.execute(settings, open_run(folder), Subject(classifier, image_set), manner)


@pytest.fixture
def detected(run: Path, classifier: Classifier, image_set: ImageSet, tmp_path: Path) -> Detected:
    """A copy of that run with detections."""

    def execute(name: str = "copy", **given: Any) -> Run:
        out = tmp_path / name
        if not out.exists():
            shutil.copytree(run, out)
        return detect_in(out, classifier, image_set, **given)

    return execute


@pytest.fixture(scope="module")
def found(run: Path, tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its detections, for tests that change nothing."""
    out = shutil.copytree(run, tmp_path_factory.mktemp("runs") / "found")
    return detect_in(out, Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))


@pytest.fixture
def whole(found: Run, tmp_path: Path) -> Run:
    """A copy of them, for tests that go on there."""
    return open_run(shutil.copytree(found.path, tmp_path / "whole"))


def rows_of(run: Run, **wanted: Any) -> list[Found]:
    return [row for row in detections(run).to_pylist() if all(row[name] == value for name, value in wanted.items())]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ the table


def test_there_is_a_row_for_each_image_attack_and_detector(found: Run) -> None:
    assert detections(found).schema == COLUMNS
    attacks = {("benign", None), ("pgd", None), ("adv2", "cam"), ("adv2", "grad")}
    assert list(dict.fromkeys(row["detector"] for row in rows_of(found))) == list(NAMES)
    for detector in NAMES:
        rows = rows_of(found, detector=detector)
        assert {row["family"] for row in rows} == {detector.partition(":")[0]}
        assert {(row["attack"], row["interpreter"]) for row in rows if row["part"] == "run"} == attacks
        assert len(rows) == BENIGN + N * len(attacks)
        assert [sum(row["part"] == part for row in rows) for part in ("fit", "check")] == [4, 4]
        assert len({(row["id"], row["part"], row["attack"], row["interpreter"]) for row in rows}) == len(rows)
        assert all((row["success"] is None) == (row["attack"] == "benign") for row in rows)
        assert all(row["correct"] is (True if row["attack"] == "benign" else None) for row in rows)
        assert all(row["flagged"] == (row["score"] > row["threshold"]) for row in rows)


def test_scores_are_those_of_the_stored_images_as_png_files(found: Run, classifier: Classifier) -> None:
    for attack, interpreter in (("benign", None), ("pgd", None), ("adv2", "grad")):
        ids, images = found.images(attack, interpreter)
        for name in SINGLE:
            ((scorer,),) = (each.parts for each in judgements_named(name))
            seen = look(classifier, to_8bit(torch.from_numpy(images)), image_keys(ids), scorer.interpreters)
            expected = scorer.scores(classifier, seen).tolist()
            rows = rows_of(found, detector=name, attack=attack, interpreter=interpreter, part="run")
            assert [row["id"] for row in rows] == list(ids)
            assert [row["score"] for row in rows] == pytest.approx(expected, abs=1e-5)


def scores_of(run: Run, detector: str) -> dict[tuple[str, ...], float]:
    names = ("part", "attack", "interpreter", "id")
    return {tuple(row[name] for name in names): row["score"] for row in rows_of(run, detector=detector)}


def test_feature_squeezing_is_the_maximum_of_its_squeezers(found: Run) -> None:
    single = [scores_of(found, name) for name in SQUEEZERS]
    assert scores_of(found, "fs") == {image: max(each[image] for each in single) for image in single[0]}


def test_consistency_is_the_maximum_in_units_of_the_fitting_half(found: Run) -> None:
    single = [scores_of(found, name) for name in ("consistency:cam:crop", "consistency:grad:blur")]
    fitted = [[score for (part, *_), score in each.items() if part == "fit"] for each in single]
    expected = {
        image: max((each[image] - np.mean(own)) / np.std(own, ddof=1) for each, own in zip(single, fitted, strict=True))
        for image in single[0]
    }
    assert scores_of(found, "consistency") == pytest.approx(expected)


def test_success_is_that_of_the_attack(found: Run) -> None:
    successes = {(row["id"], row["attack"], row["interpreter"]): row["success"] for row in found.outcomes().to_pylist()}
    for row in rows_of(found, part="run"):
        if row["attack"] != "benign":
            assert row["success"] == successes[row["id"], row["attack"], row["interpreter"] or "cam"]


def test_calibration_images_are_others_classified_correctly_and_halved(
    found: Run, classifier: Classifier, image_set: ImageSet
) -> None:
    parts = {part: {row["id"] for row in rows_of(found, part=part)} for part in ("fit", "check", "run")}
    assert not parts["fit"] & parts["check"]
    assert not parts["run"] & (parts["fit"] | parts["check"])
    assert parts["run"] == set(found.images("benign")[0])
    ids = Store(found.path).done(read_json(found.path / DETECTORS)["benign"]["stage"])
    assert {ids[i] for i in halves(ids, 0)[0].tolist()} == parts["fit"]
    for name in ids:
        i = image_set.ids.index(name)
        assert classifier(image_set.read(i)[None]).argmax(1).item() == image_set.labels[i]


def test_misclassified_images_are_checked_and_never_fitted_to(
    run: Path, classifier: Classifier, image_set: ImageSet, tmp_path: Path
) -> None:
    """Of eight benign images the labels of three are wrong, so that three of five correct ones are left to check."""
    copy = open_run(shutil.copytree(run, tmp_path / "copy"))
    others = [i for i, name in enumerate(image_set.ids) if name not in copy.ids]
    labels = image_set.labels.clone()
    labels[others[:3]] = (labels[others[:3]] + 1) % 3
    settings = DetectSettings(detector="fs:bits:3", benign=BENIGN, fpr=0.4)
    for _ in range(2):  # the second time from the store
        detect.execute(settings, copy, Subject(classifier, replace(image_set, labels=labels)), Manner("test"))
        rows = [row for row in rows_of(copy) if row["part"] != "run"]
        wrong = {image_set.ids[i] for i in others[:3]}
        assert {row["id"]: row["correct"] for row in rows} == {row["id"]: row["id"] not in wrong for row in rows}
        assert [row["correct"] for row in rows if row["part"] == "fit"] == [True, True]
        checked = [row["flagged"] for row in rows if row["part"] == "check"]
        (found,) = calibrations(detections(copy))
        assert found.false_positives.overall == share(checked)
        assert (found.false_positives.correct.n, found.fitted) == (3, 2)
        benign = read_json(copy.path / DETECTORS)["benign"]
        assert (benign["requested"], benign["found"], benign["misclassified"]) == (BENIGN, 5, 3)


def test_thresholds_come_from_one_half_and_rates_from_the_other(found: Run) -> None:
    noted = {each["name"]: each for each in read_json(found.path / DETECTORS)["detectors"]}
    for each in calibrations(detections(found)):
        fitted = sorted(row["score"] for row in rows_of(found, detector=each.detector, part="fit"))
        flags = [row["flagged"] for row in rows_of(found, detector=each.detector, part="check")]
        # floor(5 * .3) = 1 of four and a new one may exceed it; left out of its own scale, the largest grows
        combined = each.detector == "consistency"
        assert each.threshold > fitted[-1] if combined else each.threshold == fitted[-1]
        assert each.false_positives.overall == each.false_positives.correct == share(flags)
        told, rate = noted[each.detector], each.false_positives.overall
        assert (told["threshold"], told["fpr"], told["fpr_target"]) == (each.threshold, rate.value, FPR)
        assert (told["fitted"], told["held_out"], told["correct"], told["misclassified"]) == (4, 4, 4, 0)
        assert (told["fpr_low"], told["fpr_high"], told["fpr_misclassified"]) == (rate.low, rate.high, None)


def test_the_matrix_counts_the_table(found: Run) -> None:
    cells = matrix(detections(found))
    assert [(each.calibration.detector, each.attack, each.interpreter) for each in cells] == [
        (detector, attack, interpreter)
        for detector in NAMES
        for attack, interpreter in (("pgd", None), ("adv2", "cam"), ("adv2", "grad"))
    ]
    for each in cells:
        detector = each.calibration.detector
        rows = rows_of(found, detector=detector, attack=each.attack, interpreter=each.interpreter)
        assert each.successes == share([row["flagged"] for row in rows if row["success"]])
        assert each.failures == share([row["flagged"] for row in rows if not row["success"]])
        scores = [row["score"] for row in rows if row["success"]]
        held_out = [row["score"] for row in rows_of(found, detector=detector, part="check")]
        if each.auc is None:
            assert not scores
        else:
            expected = roc(torch.tensor(held_out).double(), torch.tensor(scores).double()).auc
            assert each.auc == pytest.approx(expected)


def test_the_matrix_is_written_too(found: Run) -> None:
    lines = (found.path / MATRIX).read_text(encoding="utf-8").splitlines()
    cells, rows = matrix(detections(found)), list(csv.DictReader(lines))
    assert len(rows) == len(cells) == len(NAMES) * 3
    for cell, row in zip(cells, rows, strict=True):
        assert list(row) == MATRIX_COLUMNS.names
        assert (row["detector"], row["attack"], row["interpreter"]) == (
            cell.calibration.detector, cell.attack, cell.interpreter or ""
        )  # fmt: skip
        for value, names in (
            (cell.successes, ("n", "detected", "low", "high")),
            (cell.failures, ("failures", "failures_detected", "failures_low", "failures_high")),
            (cell.calibration.false_positives.overall, ("held_out", "fpr", "fpr_low", "fpr_high")),
        ):
            told = [row[name] for name in names]
            assert told[0] == str(value.n)
            if value.n:
                assert [float(each) for each in told[1:]] == pytest.approx([value.value, value.low, value.high])
            else:
                assert told[1:] == ["", "", ""]
        assert row["auc"] == "" if cell.auc is None else float(row["auc"]) == pytest.approx(cell.auc)
        assert float(row["threshold"]) == pytest.approx(cell.calibration.threshold)


def test_one_part_is_its_own_family(detected: Detected) -> None:
    found = detected(detector="fs:bits:3,consistency:cam:blur")
    assert {row["detector"] for row in rows_of(found)} == {"fs:bits:3", "consistency:cam:blur"}


def test_an_attack_can_be_chosen(detected: Detected) -> None:
    found = detected(attacks=("adv2",), detector="fs:bits:3")
    attacks = {("benign", None), ("adv2", "cam"), ("adv2", "grad")}
    assert {(row["attack"], row["interpreter"]) for row in rows_of(found)} == attacks
    with pytest.raises(UnderfireError, match="contains no attack 'stadv'; it contains pgd, adv2"):
        detected(attacks=("pgd", "stadv"), detector="fs:bits:3")


def test_an_interpreter_need_not_be_one_of_the_run(detected: Detected) -> None:
    found = detected(detector="ensemble:cam+grad-cam")
    assert {row["detector"] for row in rows_of(found)} == {"ensemble:cam+grad-cam"}


def test_maps_are_computed_once_and_shared(detected: Detected, monkeypatch: pytest.MonkeyPatch) -> None:
    """CAM's maps of 8 benign images and 4 x 4 of the run serve its consistency and the ensemble; a map of one image
    comes first, to see whether there are any."""
    explained = list[int]()

    def explain(self: CAM, classifier: Classifier, x: Tensor, y: Tensor, keys: Tensor) -> Tensor:
        explained.append(len(x))
        return whole(self, classifier, x, y, keys)

    whole = CAM.explain
    monkeypatch.setattr(CAM, "explain", explain)
    detected(detector="ensemble:cam+grad,consistency:cam:crop")
    assert sum(explained) == 1 + 2 * (BENIGN + N * 4)
    explained.clear()
    detected(detector="ensemble:cam+grad-cam,consistency:cam:crop")
    assert sum(explained) == 1


def test_an_image_that_cannot_be_explained_stops_it_before_anything_is_written(
    run: Path, detected: Detected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def explain(*inputs: object) -> Tensor:
        raise MemoryError("out of memory")

    monkeypatch.setattr(CAM, "explain", explain)
    with pytest.raises(UnderfireError, match="The model cannot be explained by cam: out of memory"):
        detected(detector="consistency:cam:crop")
    assert snapshot(tmp_path / "copy") == snapshot(run)


# ------------------------------------------------------------------ resuming


def test_detecting_again_computes_nothing(whole: Run, detected: Detected) -> None:
    before = snapshot(whole.path)
    computed: list[Planned] = []
    detected("whole", on_progress=lambda planned, progress: computed.append(planned))
    assert not computed
    assert snapshot(whole.path) == before


def test_another_rate_takes_no_new_scores(whole: Run, detected: Detected) -> None:
    stages = {path for path in snapshot(whole.path) if path.startswith("stages")}
    computed: list[Planned] = []
    again = detected("whole", on_progress=lambda planned, progress: computed.append(planned), fpr=0.5)
    assert not computed
    assert {path for path in snapshot(again.path) if path.startswith("stages")} == stages
    assert read_json(again.path / DETECTORS)["spec"]["fpr"] == 0.5
    assert {row["fpr_target"] for row in read_json(again.path / DETECTORS)["detectors"]} == {0.5}


@pytest.mark.parametrize("killed_after", [6, 40, *(pytest.param(n, marks=pytest.mark.extended) for n in (1, 20, 70))])
def test_killed_and_run_again_is_as_if_never_killed(found: Run, detected: Detected, killed_after: int) -> None:
    steps = 0

    def give_up(planned: Planned, progress: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        detected("killed", on_progress=give_up)
    resumed = detected("killed")
    assert detections(resumed) == detections(found)
    assert (resumed.path / MATRIX).read_bytes() == (found.path / MATRIX).read_bytes()
    assert read_json(resumed.path / DETECTORS) == read_json(found.path / DETECTORS)


def test_the_run_itself_stays_as_it_was(run: Path, found: Run) -> None:
    before, after = snapshot(run), snapshot(found.path)
    assert {path for path in before if before[path] != after[path]} == {"run.json"}
    old, new = (json.loads(files["run.json"]) for files in (before, after))
    assert {name for name in new if new[name] != old[name]} == {"wall_seconds"}
    added = {"reported maps, cam", "reported maps, grad", *SINGLE}
    assert added == set(new["wall_seconds"]) - set(old["wall_seconds"])


# ------------------------------------------------------------------ partial and hostile folders


def with_info(run: Path, tmp_path: Path, **changes: Any) -> Run:
    out = shutil.copytree(run, tmp_path / "changed")
    write_json(out / "run.json", {**read_json(out / "run.json"), **changes})
    return open_run(out)


def test_a_run_that_was_killed_is_scored_as_far_as_it_got(run: Path, detected: Detected, tmp_path: Path) -> None:
    partial = shutil.copytree(run, tmp_path / "partial")
    last = next(e["key"] for e in reversed(read_json(run / "run.json")["stages"]) if e["kind"] == "image")
    shutil.rmtree(partial / "stages" / last)
    (partial / "outcomes.parquet").unlink()
    found = detected("partial", detector="fs:bits:3")
    assert {(row["attack"], row["interpreter"]) for row in rows_of(found, part="run")} == {
        ("benign", None), ("pgd", None), ("adv2", "cam")
    }  # fmt: skip


def test_a_run_without_attacks_is_refused(run: Path, tmp_path: Path) -> None:
    stages = [each for each in read_json(run / "run.json")["stages"] if each["attack"] == "benign"]
    with pytest.raises(UnderfireError, match="contains no attacked images, so there is nothing to detect"):
        attacked(with_info(run, tmp_path, stages=stages))


@pytest.mark.parametrize("stages", [None, 3, ["a"], [{"kind": "image"}], [{}]])
def test_a_run_that_does_not_list_its_stages_is_refused(run: Path, tmp_path: Path, stages: Any) -> None:
    with pytest.raises(UnderfireError, match=r"run\.json in .* does not list its stages"):
        attacked(with_info(run, tmp_path, stages=stages))


def test_nothing_is_written_where_too_few_benign_images_are_left(run: Path, detected: Detected, tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match="at least 19 benign images to calibrate on, and there are 4"):
        detected(fpr=0.05, benign=100)
    with pytest.raises(UnderfireError, match="at least 3 benign images to calibrate on, and there are 2"):
        detected(benign=5)
    assert snapshot(tmp_path / "copy") == snapshot(run)


def test_a_run_that_attacked_everything_is_refused(run: Path, classifier: Classifier, image_set: ImageSet) -> None:
    seen = open_run(run).images("benign")[0]
    only = image_set.take([image_set.ids.index(name) for name in seen])
    with pytest.raises(UnderfireError, match="attacked all of its 4 images and leaves none to calibrate on"):
        detect.execute(DetectSettings(fpr=FPR), open_run(run), Subject(classifier, only), Manner("test"))


def test_scores_that_do_not_differ_are_refused(detected: Detected) -> None:
    with pytest.raises(UnderfireError, match=r"The detector fs:bits:8 cannot be calibrated\. All 4 benign images have"):
        detected(detector="fs:bits:8")


def test_a_constant_part_of_a_combined_score_is_refused(
    run: Path, detected: Detected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(CAM, "explain", lambda self, classifier, x, y, keys: torch.zeros(len(x), 4, 4))
    with pytest.raises(UnderfireError, match=r"consistency:cam:noise cannot be calibrated\. All 4 benign images have"):
        detected(detector="consistency:cam")
    assert not (tmp_path / "copy" / TABLE).exists()
    assert not (tmp_path / "copy" / MATRIX).exists()


def test_a_run_that_does_not_list_its_interpreters_is_refused(run: Path, tmp_path: Path) -> None:
    for i, spec in enumerate((None, {}, {"interpreters": "cam"}, {"interpreters": [3]})):
        changed = with_info(run, tmp_path / str(i), spec=spec)
        with pytest.raises(UnderfireError, match=r"run\.json in .* does not list its interpreters"):
            detect.judgements(DetectSettings(), changed)


def test_a_run_without_detections_says_so(run: Path, whole: Run) -> None:
    with pytest.raises(UnderfireError, match="contains no detections; make them with: underfire detect"):
        detections(open_run(run))
    table = detections(whole)
    (whole.path / TABLE).write_bytes(b"PAR1")
    with pytest.raises(UnderfireError, match="missing or damaged; delete it and run the command again"):
        detections(whole)
    write_table(whole.path / TABLE, table.drop_columns("family"))
    with pytest.raises(UnderfireError, match="has columns other than those this version writes"):
        detections(whole)
