"""The audit: its worst case, its curve, who is attacked by what, its record, and what its flags are raised by."""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from tiny_scorers import BetweenLevels
from underfire.attacks import recipes
from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.core.io import rows_where
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.data.image_set import open_images
from underfire.detection.calibration import Detector, Standardisation
from underfire.detection.registry import Judgement
from underfire.interpreters import registry
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading
from underfire.metrics.betrayal import GRID, Curve, halved, plausible
from underfire.metrics.intervals import wilson
from underfire.metrics.maps import rank_correlation
from underfire.models.classifier import Classifier
from underfire.report import write_report
from underfire.report.verdict import missing_parts
from underfire.runs.attack_settings import AuditSettings
from underfire.runs.compute import Context
from underfire.runs.execute import Manner, perform
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan, Planned
from underfire.studies.audit import Auditing, execute
from underfire.studies.audit_flags import Case, flags
from underfire.studies.audit_walk import Deployed, Trail, Tried, Walk
from underfire.studies.audits import AUDIT, Audit, audit_of
from underfire.studies.base import Subject, select_from
from underfire.studies.detect import Calibrated

SCHEMA = Path(__file__).parents[3] / "docs" / "audit.schema.json"
EPS = 0.03


@pytest.fixture(scope="module")
def short_recipes() -> Iterator[None]:
    """Few steps, so that some images are betrayed and others are not."""
    short = {
        name: replace(
            recipe,
            warm_steps=3,
            plain_steps=4,
            map_attacks={
                each: replace(row, efforts=dict.fromkeys(row.efforts, (4,))) for each, row in recipe.map_attacks.items()
            },
        )
        for name, recipe in (("annealed", recipes.RECIPES["annealed"]), ("flow", recipes.FLOW_RECIPES["annealed"]))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "RECIPES", {"annealed": short["annealed"]})
        patch.setattr(recipes, "FLOW_RECIPES", {"annealed": short["flow"]})
        yield


Start = Callable[..., Run]


@pytest.fixture(scope="module")
def start(short_recipes: None, tiny_model: str, tiny_photos: Path) -> Start:
    """An audit in any folder, with other settings where they are named."""

    def run(out: Path, on_progress: Any = lambda planned, progress: None, **changes: Any) -> Run:
        given = {"model": tiny_model, "images": str(tiny_photos), "n": 5, "normalize": "none", "eps": EPS}
        settings = AuditSettings(**{**given, "interpreters": ("cam",), **changes})
        subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
        return execute(settings, subject, out, Manner("test", 2, on_progress=on_progress))

    return run


@pytest.fixture(scope="module")
def run(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Of GRAD, some of whose maps survive so few steps: three of five images are betrayed."""
    return start(tmp_path_factory.mktemp("audits") / "audit", interpreters=("grad",))


@pytest.fixture(scope="module")
def audited(run: Run, tiny_model: str, tiny_photos: Path) -> Auditing:
    spec = {name: run.info["spec"][name] for name in AuditSettings.model_fields}
    settings, subject = (
        AuditSettings(**spec),
        Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos)),
    )
    plan = AttackPlan.of(settings.attacks(), select_from(settings, subject.classifier, subject.image_set))
    return Auditing(settings, subject, plan)


@pytest.fixture(scope="module")
def trails(audited: Auditing, run: Run) -> list[Trail]:
    """What the walk finds once everything is in the store."""
    return list(audited.walk(run, run.ids, lambda stages, ids: None).trails())


def test_the_worst_case_is_no_better_than_any_member_on_any_image(trails: list[Trail]) -> None:
    for trail in trails:
        assert 0 < len(trail.betrayed_by(trail.definition)) < len(trail.ids)
        for definition in ("natural", "overlap"):
            betrayed = set(trail.betrayed_by(definition))
            by_members = {name for each in trail.everything for name in each.betrays(definition)}
            assert betrayed == by_members


def test_joint_robust_accuracy_is_the_share_that_nothing_betrays_by_the_stricter_definition(run: Run) -> None:
    for each in audit_of(run).interpreters:
        n = len(run.ids)
        assert each.robust.value == 1 - len(each.betrayed) / n
        assert each.robust == each.robust_by[each.definition]
        assert each.robust.value == max(share.value or 0 for share in each.robust_by.values())
        assert (each.robust.low, each.robust.high) == wilson(n - len(each.betrayed), n)


def test_later_members_meet_only_what_resisted_by_some_definition(trails: list[Trail], run: Run) -> None:
    outcomes = run.outcomes().to_pylist()
    for trail in trails:
        assert trail.members[0].ids == run.ids
        for place, member in enumerate(trail.members[1:], 1):
            before = (trail.plain, *trail.members[:place])
            betrayed = [{name for each in before for name in each.betrays(d)} for d in ("natural", "overlap")]
            assert set(member.ids) == set(run.ids) - (betrayed[0] & betrayed[1])
            rows = {
                row["id"] for row in outcomes if (row["attack"], row["interpreter"]) == (member.name, trail.shown.name)
            }
            assert rows == set(member.ids)


def test_a_report_does_not_call_an_audit_unfinished_whose_later_members_meet_fewer(run: Run, tmp_path: Path) -> None:
    assert missing_parts(run.outcomes(), run.info), "some member meets fewer images"
    page = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"covers \d+ of \d+ images", page)


def test_the_curve_never_falls_and_ends_where_the_attack_itself_does(trails: list[Trail]) -> None:
    for trail in trails:
        shares = [each.share for each in trail.curve.points()]
        assert shares == sorted(shares)
        within = {name for name, eps in trail.smallest.items() if eps <= EPS}
        assert within == set(trail.first.betrays(trail.definition))
        assert set(trail.smallest.values()) <= {*trail.grid, inf}


def test_the_detector_sees_the_files_that_class_and_map_are_judged_on(
    audited: Auditing, run: Run, trails: list[Trail], tmp_path: Path
) -> None:
    """One that suspects only what lies between the levels of 8 bits flags nothing of what betrays."""
    copy, context = Run(shutil.copytree(run.path, tmp_path / "copy")), Context(audited.subject.classifier, 2)

    def compute(stages: Iterable[Planned], ids: tuple[str, ...]) -> None:
        perform(stages, ids, context, copy, Manner("test"))

    judgement = Judgement("between levels", "own", (BetweenLevels(),))
    deployed = Deployed(judgement, Calibrated((Standardisation(),), Detector(0.0)))
    found = list(Walk(audited.plan, run.ids, copy.store, compute, deployed).trails())
    for seen, unseen in zip(found, trails, strict=True):
        assert seen.betrayed_by(seen.definition) == unseen.betrayed_by(unseen.definition)
        assert seen.smallest == unseen.smallest


def test_each_solver_first_hides_from_the_detector_and_then_does_not(start: Start, tmp_path: Path) -> None:
    deployed = {"detector": "fs:bits:3", "benign": 8, "fpr": 0.3}
    (found,) = audit_of(start(tmp_path / "audit", n=4, interpreters=("grad",), **deployed)).interpreters
    assert [each.attack for each in found.members] == [
        "pgd", "adv2-evading-fs:bits:3", "adv2", "adv2-stadv-evading-fs:bits:3", "adv2-stadv"
    ]  # fmt: skip
    assert found.curve.attack == "adv2-evading-fs:bits:3"


def test_a_killed_audit_goes_on_to_the_same_record(start: Start, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(planned: Planned, progress: Progress) -> None:
        if planned.label.startswith("within"):
            raise Killed

    small: dict[str, Any] = {"n": 2, "interpreters": ("cam",), "suite": "quick"}
    with pytest.raises(Killed):
        start(tmp_path / "killed", kill, **small)
    assert not (tmp_path / "killed" / AUDIT).exists()
    resumed, whole = start(tmp_path / "killed", **small), start(tmp_path / "whole", **small)
    assert audit_of(resumed) == audit_of(whole)
    assert resumed.outcomes().equals(whole.outcomes())


@pytest.mark.extended
def test_a_finished_audit_computes_nothing_anew_and_a_larger_one_goes_on(start: Start, tmp_path: Path) -> None:
    begun = list[str]()
    given: dict[str, Any] = {"interpreters": ("cam",), "suite": "quick"}
    small = audit_of(start(tmp_path / "audit", n=3, **given))
    start(tmp_path / "audit", lambda planned, progress: begun.append(planned.label), n=3, **given)
    assert not begun
    grown = audit_of(start(tmp_path / "audit", n=4, **given))
    assert (small.n, grown.n) == (3, 4)
    with pytest.raises(UnderfireError, match="other settings"):
        start(tmp_path / "audit", n=4, interpreters=("cam",), suite="standard")
    assert audit_of(Run(tmp_path / "audit")) == grown


def test_the_schema_in_the_docs_is_that_of_the_record(run: Run) -> None:
    assert json.loads(SCHEMA.read_text()) == Audit.model_json_schema()
    written = json.loads((run.path / AUDIT).read_text())
    assert set(written) == set(Audit.model_json_schema()["required"]) | {"version"}


def test_flags_of_a_small_audit_name_their_numbers(run: Run) -> None:
    for each in audit_of(run).interpreters:
        flags = {flag.name: flag for flag in each.flags}
        assert flags["few images"].raised
        assert flags["few images"].number == 5
        assert not flags["clipped selection"].raised
        assert not flags["own noise"].raised
        assert flags["own noise"].number == 0


# ------------------------------------------------------------------ explanations that explain nothing


@dataclass(frozen=True)
class _Constant(ClosedForm):
    """A map that is the same whatever the picture."""

    draws: ClassVar[bool] = False
    name: ClassVar[str] = "constant"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return x.new_full((len(x), 4, 4), 0.5)

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return reading(classifier(x), self.explain(classifier, x, y, y), y)


@dataclass(frozen=True)
class _Random(_Constant):
    """Another map each time."""

    draws: ClassVar[bool] = True
    name: ClassVar[str] = "random"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return torch.stack([torch.rand(4, 4, generator=torch.Generator().manual_seed(int(key))) for key in keys])


def _flags(start: Start, out: Path, patch: pytest.MonkeyPatch, kind: type[_Constant]) -> dict[str, bool]:
    patch.setattr(registry, "INTERPRETERS", {**registry.INTERPRETERS, kind.name: lambda argument: kind()})
    found = audit_of(start(out, interpreters=(kind.name,), n=4, suite="quick")).interpreters[0]
    return {flag.name: flag.raised for flag in found.flags}


def test_a_constant_map_is_called_insensitive(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = _flags(start, tmp_path / "audit", monkeypatch, _Constant)
    assert flags["interpreter insensitive"]
    found = audit_of(Run(tmp_path / "audit")).interpreters[0]
    assert found.plausible_under_pgd.value == 1
    assert found.robust.value is not None
    assert found.robust.value <= (found.plain_robust.value or 0)


@pytest.mark.extended
def test_a_random_map_is_told_by_its_own_noise_and_by_its_weights_that_do_not_matter(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = _flags(start, tmp_path / "audit", monkeypatch, _Random)
    assert flags["own noise"]


# ------------------------------------------------------------------ definitions and curves


def test_plausible_by_both_definitions_and_where_there_is_nothing_to_see() -> None:
    found = plausible([0.1, 0.1, 0.3, 0.3], [0.6, 0.4, np.nan, 0.4], [0.2, 0.05, 0.2, 0.2], [False, False, False, True])
    assert found["natural"].tolist() == [True, False, False, True]
    assert found["overlap"].tolist() == [True, False, True, True]


def test_the_median_budget_is_where_half_are_betrayed_and_none_beyond_the_grid() -> None:
    curve = Curve((1.0, 2.0, 3.0), (1.0, 2.0, 2.0, inf))
    assert [each.share for each in curve.points()] == [0.25, 0.75, 0.75]
    assert curve.median[0] == 2.0
    assert Curve((1.0, 2.0), (inf, inf, 2.0)).median[0] is None


def test_bisection_tries_every_budget_of_the_grid_from_one_other() -> None:
    def parents(budgets: Any, parent: float | None) -> dict[float, float | None]:
        if not budgets:
            return {}
        below, eps, above = halved(budgets)
        return {eps: parent, **parents(below, eps), **parents(above, eps)}

    assert set(parents(GRID, None)) == set(GRID)
    assert len(GRID) == len(parents(GRID, None))


# ------------------------------------------------------------------ each flag both ways


@dataclass(frozen=True)
class _Stored(Case):
    """Case of which some rows are given, by stage and tensor."""

    given: Mapping[str, Tensor] = field(default_factory=dict)

    def read(self, spec: Any, name: str) -> Tensor:
        return self.given.get(f"{type(spec).__name__}.{name}", super().read(spec, name))


@pytest.fixture(scope="module")
def evidence(audited: Auditing, run: Run, trails: list[Trail]) -> Callable[..., _Stored]:
    """Of GRAD, with other columns of the outcomes, other facts of the trail or other rows where they are named."""

    def made(columns: Mapping[str, Any] | None = None, given: Any = None, n: int = 5, **facts: Any) -> _Stored:
        trail = replace(trails[0], **facts)
        table = rows_where(run.outcomes(), interpreter=trail.shown.name)
        for name, value in (columns or {}).items():
            place = table.column_names.index(name)
            table = table.set_column(place, table.schema.field(place), pa.array([value] * table.num_rows))
        walk = audited.walk(run, run.ids, lambda stages, ids: None)
        settings = audited.settings.model_copy(update={"n": n})
        return _Stored(trail, table, walk, settings, audited.subject.classifier, given or {})

    return made


N = 5
CLOSE, FAR = torch.full((N,), 0.1), torch.full((N,), 0.2)
FLAGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what raises each, and what does not
    "interpreter insensitive": (
        {"columns": {"benign_l1_png": 0.0, "benign_iou_png": 1.0}},
        {"columns": {"benign_l1_png": 0.9, "benign_iou_png": 0.1}},
    ),
    "own noise": ({"columns": {"repeat_l1": 0.2, "benign_l1_png": 0.3}}, {"columns": {"repeat_l1": 0.0}}),
    "stale belief": ({"given": {"Believed.map_l1": FAR}}, {"given": {"Believed.map_l1": torch.zeros(N)}}),
    "budget not monotone": ({"lost": ("a",), "doubled": 3}, {"lost": (), "doubled": 3}),
    "8 bits": (
        {"columns": {"success": True, "benign_l1": 0.0, "benign_iou": 1.0, "success_png": False}},
        {"columns": {"success_png": True, "benign_l1_png": 0.0, "benign_iou_png": 1.0}},
    ),
    "clipped selection": ({"n": 6}, {"n": 5}),
    "steps not enough": (
        {"given": {"Craft.closest": CLOSE, "Craft.closest_before": FAR, "Craft.settled": torch.zeros(N).bool()}},
        {"given": {"Craft.closest": CLOSE, "Craft.closest_before": CLOSE, "Craft.settled": torch.zeros(N).bool()}},
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_is_raised_by_its_case_and_silent_on_a_healthy_one(name: str, evidence: Callable[..., _Stored]) -> None:
    raising, healthy = FLAGS[name]
    for given, expected in ((raising, True), (healthy, False)):
        (flag,) = [each for each in flags(evidence(**given)) if each.name == name]
        assert flag.raised is expected, flag.sentence


def test_images_that_pgd_alone_betrays_show_that_white_box_attacks_are_weak(
    evidence: Callable[..., _Stored], trails: list[Trail]
) -> None:
    trail = trails[0]

    def betraying(tried: Tried, every: bool) -> Tried:
        return replace(tried, betrayed={name: np.full(len(tried.ids), every) for name in tried.betrayed})

    for aware, expected in ((False, True), (True, False)):
        members = tuple(betraying(each, aware) for each in trail.members)
        of = evidence(plain=betraying(trail.plain, True), members=members)
        (flag,) = [each for each in flags(of) if each.name == "ignorance wins"]
        assert flag.raised is expected


def test_images_that_queries_alone_betray_show_it_too(evidence: Callable[..., _Stored], trails: list[Trail]) -> None:
    first = trails[0].members[0]
    every, none = (
        {name: np.full_like(each, value) for name, each in first.betrayed.items()} for value in (True, False)
    )
    asked, nothing = replace(first, name="adv2-square", betrayed=every), replace(first, betrayed=none)
    plain = replace(nothing, name="pgd")
    for white, expected in ((nothing, True), (replace(asked, name="adv2"), False)):
        of = evidence(plain=plain, members=(white, asked))
        (flag,) = [each for each in flags(of) if each.name == "black box beats white box"]
        assert flag.raised is expected, flag.sentence
    assert not [each for each in flags(evidence(plain=plain, members=(nothing,))) if "black box" in each.name]


def test_thorough_suites_ask_interpreters_of_which_an_explanation_is_cheap(audited: Auditing) -> None:
    made = audited.settings.model_copy(update={"suite": "thorough"}).attacks()
    assert made.solvers == ("pgd", "stadv", "square")
    assert (made.effort, made.queries) == ("thorough", 5000)
    assert audited.settings.model_copy(update={"suite": "standard"}).attacks().queries is None


def test_maps_that_random_weights_leave_alike_do_not_depend_on_what_was_learned(
    evidence: Callable[..., _Stored],
) -> None:
    maps = torch.rand(N, 4, 4, generator=torch.Generator().manual_seed(0))
    for random, expected in ((maps, True), (1 - maps, False)):
        of = evidence(given={"Explain.map": maps, "ExplainRandomised.map": random})
        (flag,) = [each for each in flags(of) if each.name == "weights do not matter"]
        assert flag.raised is expected


def test_maps_that_random_weights_leave_alike_by_chance_raise_nothing(evidence: Callable[..., _Stored]) -> None:
    """Of independent maps one half of all draws resemble each other more than those of other images do."""
    raised, above = 0, 0
    for seed in range(20):
        maps, random = torch.rand(2, 32, 4, 4, generator=torch.Generator().manual_seed(seed))
        of = evidence(given={"Explain.map": maps, "ExplainRandomised.map": random})
        (flag,) = [each for each in flags(of) if each.name == "weights do not matter"]
        raised += flag.raised
        above += float(rank_correlation(maps, random).mean()) > float(rank_correlation(maps, maps.roll(1, 0)).mean())
    assert raised <= 2 < 5 < above
