"""How much an attacker must know: surrogates that are the model itself, seeds, budgets, and what counts as betrayed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from underfire.core.errors import UnderfireError
from underfire.core.io import rows_where
from underfire.data.image_set import open_images
from underfire.interpreters import CAM, GRAD, MASK
from underfire.metrics.intervals import share
from underfire.models.classifier import Classifier
from underfire.models.committee import Committee
from underfire.runs.execute import Manner, execute
from underfire.runs.folder import Run
from underfire.runs.plan import AttackPlan
from underfire.runs.specs import CraftElsewhere, Select, key
from underfire.runs.study_settings import SCALES, StudySettings
from underfire.studies import blackbox, blackbox_views
from underfire.studies.base import Subject
from underfire.studies.blackbox import Attackers, Attempt, BlackboxSettings
from underfire.studies.figures import Level, growing

N = 3
NAMES = ["PGD", "white box", "surrogate", "queries", "seeded queries"]


@pytest.fixture(scope="module")
def settings(tiny_model: str, tiny_photos: Path) -> BlackboxSettings:
    """On photos of which white-box attacks succeed within a large budget."""
    given: dict[str, Any] = {"model": tiny_model, "images": str(tiny_photos), "normalize": "none", "n": N, "steps": 4}
    return BlackboxSettings(**given, interpreters=("cam",), eps=60 / 255, queries=6, surrogates=(tiny_model,))


@pytest.fixture(scope="module")
def executed(tiny_model: str, tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    def run(wanted: BlackboxSettings) -> Run:
        classifier = Classifier.load(tiny_model, None, "none")
        made = blackbox.experiment(wanted, Subject(classifier, open_images(tiny_photos)))
        out = tmp_path_factory.mktemp("blackbox") / "run"
        return execute(made, out, classifier, Manner("test", batch_size=2))

    return run


@pytest.fixture(scope="module")
def run(executed: Callable[..., Run], settings: BlackboxSettings) -> Run:
    return executed(settings)


def attempts_of(run: Run, settings: BlackboxSettings, model: str | None) -> dict[str, Attempt]:
    select = Select(run.info["model"]["fingerprint"], run.info["spec"]["images_digest"], settings.n, settings.seed)
    made = Attackers(settings, AttackPlan.of(settings.attacks(), select), model)
    return {each.attacker: each for each in made.attempts()}


def test_a_surrogate_that_is_the_model_gives_the_white_boxs_numbers(run: Run, settings: BlackboxSettings) -> None:
    attempts = attempts_of(run, settings, run.info["model"]["fingerprint"])
    white, surrogate = (attempts[name].craft for name in ("white box", "surrogate"))
    assert isinstance(surrogate, CraftElsewhere)
    assert key(white) != key(surrogate)
    for name in ("image", "theta", "probabilities", "success", "steps"):
        assert torch.equal(*(run.store.read(key(each), name, run.ids) for each in (white, surrogate))), name
    table = blackbox_views.attempts(run).drop_columns("attacker")
    whole = blackbox_views.attempts(run)
    assert list(dict.fromkeys(whole["attacker"].to_pylist())) == NAMES
    places = {name: [i for i, each in enumerate(whole["attacker"].to_pylist()) if each == name] for name in NAMES}
    assert table.take(places["white box"]).equals(table.take(places["surrogate"]))


def test_queries_begin_where_the_surrogates_attack_ended(run: Run, settings: BlackboxSettings) -> None:
    attempts = attempts_of(run, settings, run.info["model"]["fingerprint"])
    seeded = attempts["seeded queries"].craft
    assert seeded.start == attempts["surrogate"].craft
    assert attempts["queries"].craft.start is None
    before, after = (run.store.read(key(each), "probabilities", run.ids) for each in (seeded.start, seeded))
    assert bool((after.argmax(1) == before.argmax(1)).all())


def test_a_row_is_betrayed_where_class_and_map_are_the_attackers(run: Run) -> None:
    rows = blackbox_views.attempts(run).to_pylist()
    assert len(rows) == N * len(NAMES)
    for row in rows:
        fooled, nothing = row["class_predicted"] == row["class_target"], row["iou_mean"] is None
        assert row["betrayed_overlap"] == (fooled and (nothing or row["iou_mean"] > 0.5))
        assert row["betrayed_natural"] == (fooled and row["map_l1"] <= row["natural_l1"])
        assert (row["queries"] is None) == ("queries" not in row["attacker"])
    assert any(row["class_predicted"] == row["class_target"] for row in rows)
    summary = {each.attacker: each for each in blackbox_views.summarise(blackbox_views.attempts(run))}
    white = rows_where(blackbox_views.attempts(run), attacker="white box")
    assert summary["white box"].betrayed.value == pytest.approx(sum(white["betrayed_overlap"].to_pylist()) / N)
    assert summary["white box"].betrayed.n == N


def test_without_surrogates_nothing_is_seeded(settings: BlackboxSettings) -> None:
    alone = settings.model_copy(update={"surrogates": (), "queries": 2000})
    made = Attackers(alone, AttackPlan.of(alone.attacks(), Select("m", "i", N, 0)), None)
    assert [(each.attacker, each.queries) for each in made.attempts()] == [
        ("PGD", None),
        ("white box", None),
        ("queries", 1000),
        ("queries", 2000),
    ]


def test_explanations_that_take_long_are_asked_for_where_that_is_wanted(settings: BlackboxSettings) -> None:
    assert [settings.budgets(each) for each in (CAM(), GRAD(), MASK())] == [(6,), (6,), ()]
    request = StudySettings(model="demo", images="demo", scale="quick")
    by_scale, by_number = (blackbox.settings_for(each) for each in (request, request.model_copy(update={"queries": 9})))
    assert (by_scale.queries, by_scale.dear_queries) == (SCALES["quick"].queries, 0)
    assert (by_number.queries, by_number.dear_queries, by_number.budgets(MASK())) == (9, 9, (9,))


def test_several_surrogates_are_attacked_as_one(
    executed: Callable[..., Run], settings: BlackboxSettings, tiny_model: str
) -> None:
    wanted = settings.model_copy(update={"surrogates": (tiny_model, tiny_model), "n": 2})
    run = executed(wanted)
    model = Classifier.load(tiny_model, None, "none")
    both = Classifier(Committee([model, model]), (0.0,) * 3, (1.0,) * 3).fingerprint()
    surrogate = attempts_of(run, wanted, both)["surrogate"].craft
    assert run.info["spec"]["surrogate_fingerprint"] == both
    assert bool(run.store.read(key(surrogate), "success", run.ids).all())
    goal = surrogate.goal
    assert goal is not None
    assert run.store.read(key(goal), "map", run.ids).shape[1:] == (32, 16), "one map below the other"


def test_surrogates_of_other_classes_are_refused(
    executed: Callable[..., Run], settings: BlackboxSettings, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text("from tiny_networks import network\n\n\ndef build():\n    return network('resnet')\n")
    with pytest.raises(UnderfireError, match="The surrogates have 5 classes and the model has 3; name others"):
        executed(settings.model_copy(update={"surrogates": (f"{other}:build",)}))


def test_budgets_head_the_axis_and_attackers_keep_their_colours() -> None:
    few = share([True, False, False])
    asking = [Level("queries", cost, few) for cost in (1000, 5000)]
    drawn = growing({"CAM": [Level("white box", None, few), *asking], "GRAD": asking[:1]}, "queries", "share")
    ticks = [[label.get_text() for label in axes.get_xticklabels()] for axes in drawn.axes]
    assert ticks == [["1,000", "5,000"], ["1,000"]]
    colours = {axes.containers[0].lines[0].get_color() for axes in drawn.axes}
    assert len(colours) == 1
    assert all(axes.get_xlim()[0] < 1000 < axes.get_xlim()[1] for axes in drawn.axes)


def test_tables_and_figure_name_every_attacker(run: Run, tmp_path: Path) -> None:
    (table,) = blackbox_views.tables(run)
    assert [row.names[0] for row in table.rows] == ["PGD", "white box", "surrogate", "6 queries", "6 seeded queries"]
    assert table.columns == ("CAM",)
    (figure,) = blackbox.STUDY.figures(run)
    labels = [text.get_text() for text in figure.draw().legends[0].get_texts()]
    assert sorted(labels) == sorted(NAMES)
