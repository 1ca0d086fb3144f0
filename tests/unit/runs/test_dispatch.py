"""Stages by workers, without Ray: what is ready goes to whoever is free, and nothing that fails stops the rest."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tiny_crew import Loaded, Staff
from underfire.attacks.engine import Progress
from underfire.attacks.solvers import adv2, pgd
from underfire.attacks.target_maps import RandomClassMap
from underfire.core.errors import UnderfireError
from underfire.core.types import Images, Keys, Labels, Maps
from underfire.data.corruptions import PNG
from underfire.data.image_set import open_images
from underfire.interpreters import CAM, GRAD
from underfire.models.classifier import Classifier
from underfire.runs import needs as needs_module
from underfire.runs.choosing import choose, keep
from underfire.runs.compute import Context
from underfire.runs.dispatch import Computed, Ended, Event, compute_parts, dispatch
from underfire.runs.driver import read_inputs, run_stage
from underfire.runs.needs import StageInputs
from underfire.runs.plan import Planned
from underfire.runs.specs import Craft, Explain, Saved, Select, Spec, TargetClasses, TargetMaps, key
from underfire.runs.store import Store
from underfire.runs.workers import Worker

SELECT = Select("model", "images", n=7, seed=0)
TARGETS = TargetClasses(SELECT, seed=0)
MAPS = Explain(SELECT, CAM())
BORROWED = TargetMaps(TARGETS, MAPS, RandomClassMap(), seed=0)
PLAIN = Craft(TARGETS, replace(pgd(steps=2), warm_start=None), None, None)
LED = Craft(TARGETS, replace(adv2(CAM(), steps=2), warm_start=None), BORROWED, PLAIN)
SAVED = Saved(LED, PNG())
STAGES = (TARGETS, MAPS, BORROWED, PLAIN, LED, SAVED, Explain(SAVED, CAM()))


def planned(*specs: Spec) -> list[Planned]:
    return [Planned(f"{place} {type(spec).__name__}", spec, "step", "", None) for place, spec in enumerate(specs)]


@pytest.fixture
def context(tiny_model: str) -> Context:
    return Context(Classifier.load(tiny_model, None, "none"), batch_size=2)


@pytest.fixture
def stored(tmp_path: Path, tiny_photos: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Store]:
    """A store of seven chosen images, as often as one is wanted; pieces are of two images."""
    monkeypatch.setattr(needs_module, "SHARD", 2)
    selection, count = choose(SELECT, open_images(tiny_photos), context.classifier), 0

    def made() -> Store:
        nonlocal count
        count += 1
        store = Store(tmp_path / str(count))
        keep(SELECT, selection.chosen, store)
        return store

    return made


@pytest.fixture
def alone(stored: Callable[[], Store], context: Context) -> Store:
    """What this process computes by itself."""
    store = stored()
    for spec in STAGES:
        run_stage(spec, store.done(key(SELECT)), store, context)
    return store


def same(one: Store, other: Store, *specs: Spec) -> bool:
    ids = one.done(key(SELECT))
    names = {"map", "image", "theta", "predicted", "target", "steps", "confidence", "donor"}
    for spec in specs:
        (first, *_) = (one.root / "stages" / key(spec)).glob("shard-*")
        held = names & set(_names(first))
        assert held
        assert sorted(other.done(key(spec))) == sorted(ids)
        if not all(torch.equal(*(each.read(key(spec), name, ids) for each in (one, other))) for name in held):
            return False
    return True


def _names(path: Path) -> list[str]:
    with safe_open(path, "pt") as file:
        return list(file.keys())


def rows(store: Store) -> int:
    """Stored for all stages, those that were stored twice counted twice."""
    return sum(len(json.loads(safe_open(path, "pt").metadata()["ids"])) for path in store.root.glob("stages/*/shard-*"))


# ------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_workers_gives_the_same_bits(
    stored: Callable[[], Store], alone: Store, context: Context, count: int
) -> None:
    store, staff = stored(), Staff(count, context.classifier)
    done = [each.spec for each, _ in dispatch(planned(*STAGES), store.done(key(SELECT)), store, context, staff)]
    assert same(alone, store, *STAGES)
    assert sorted(map(key, done)) == sorted(map(key, STAGES))
    assert staff.most == count
    assert "TargetMaps" not in staff.begun, "whoever looks at all images is computed here"
    assert rows(store) == rows(alone)


def test_lost_workers_cost_what_they_had_at_hand(stored: Callable[[], Store], alone: Store, context: Context) -> None:
    """Every third piece is lost, some of its rows already stored."""
    pieces = 0

    def lose(events: list[Event]) -> list[Event]:
        nonlocal pieces
        pieces += 1
        return events if pieces % 3 else [*events[:1], Ended("lost")] if pieces % 2 else [Ended("lost")]

    store, staff = stored(), Staff(2, context.classifier, lose)
    list(dispatch(planned(*STAGES), store.done(key(SELECT)), store, context, staff))
    assert same(alone, store, *STAGES)
    assert rows(store) == rows(alone)


def test_what_is_there_is_not_computed_again(stored: Callable[[], Store], context: Context) -> None:
    store, staff = stored(), Staff(2, context.classifier)
    ids = store.done(key(SELECT))
    run_stage(TARGETS, ids, store, context)
    run_stage(MAPS, ids[:4], store, context)
    assert len(list(dispatch(planned(TARGETS, MAPS), ids, store, context, staff))) == 1
    assert staff.begun == ["Explain", "Explain"]
    assert not list(dispatch(planned(TARGETS, MAPS), ids, store, context, Staff(0, context.classifier)))


# ------------------------------------------------------------------ failures


@dataclass(frozen=True)
class Allergic(CAM):
    """Raises at one image, whoever is beside it."""

    @property
    def name(self) -> str:
        return "allergic"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        if bool((x == PICTURE[0]).flatten(1).all(1).any()):
            raise ValueError("cannot look at this")
        return super().explain(classifier, x, y, keys)


PICTURE: list[Tensor] = []


def test_an_image_that_fails_three_times_is_named_and_the_rest_goes_on(
    stored: Callable[[], Store], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs_module, "SHARD", 4)  # two batches
    store, staff = stored(), Staff(2, context.classifier)
    ids = store.done(key(SELECT))
    PICTURE[:] = [store.read(key(SELECT), "image", ids[1:2])[0]]
    failing = Explain(SELECT, Allergic())
    after = Craft(TARGETS, replace(adv2(CAM(), steps=2), warm_start=None), failing, None)
    stages = planned(TARGETS, failing, after, Explain(SELECT, GRAD()))
    with pytest.raises(
        UnderfireError,
        match=rf"^1 Explain failed 3 times on {ids[0]}, {ids[1]}: ValueError: cannot look at this All that does not",
    ):
        list(dispatch(stages, ids, store, context, staff))
    assert sorted(store.done(key(failing))) == sorted(ids[2:])
    assert sorted(store.done(key(after))) == sorted(ids[4:]), "a shard waits for all of its images"
    assert sorted(store.done(key(Explain(SELECT, GRAD())))) == sorted(ids)


# ------------------------------------------------------------------ progress


def test_one_progress_over_all(stored: Callable[[], Store], context: Context) -> None:
    store, heard = stored(), list[Progress]()
    told = replace(context, on_step=heard.append)
    list(dispatch(planned(*STAGES), store.done(key(SELECT)), store, told, Staff(2, context.classifier)))
    assert all(before.steps <= after.steps for before, after in pairwise(heard))
    assert {each.planned_steps for each in heard} == {7 * (5 + 2 * 2)}
    assert (heard[-1].images, heard[-1].steps) == (7, heard[-1].planned_steps)


def test_a_worker_gives_rows_in_memory_and_ends(stored: Callable[[], Store], context: Context) -> None:
    store = stored()
    ids = store.done(key(SELECT))[:3]
    images, labels = (store.read(key(SELECT), name, ids) for name in ("image", "label"))
    reference = Loaded({}, "tiny", "", context.classifier)
    inputs = StageInputs(ids, {"image": images, "class": labels})
    *computed, end = Worker("cpu", threads=1).whole(MAPS, inputs, reference, 2)
    assert [each.ids for each in computed if isinstance(each, Computed)] == [ids[:2], ids[2:]]
    assert end == Ended()


# ------------------------------------------------------------------ what is not stored


def parts_of(store: Store) -> list[StageInputs]:
    """What PLAIN is computed from, two images at a time."""
    ids = store.done(key(SELECT))
    return [read_inputs(PLAIN, ids[start : start + 2], store) for start in range(0, len(ids), 2)]


def test_parts_come_back_in_their_order_whoever_computes_them(alone: Store, context: Context) -> None:
    ids, crew = alone.done(key(SELECT)), Staff(3, context.classifier)
    for who in (None, crew):
        found = compute_parts(PLAIN, parts_of(alone), context, who)
        assert torch.equal(torch.cat([each["image"] for each in found]), alone.read(key(PLAIN), "image", ids))
    assert crew.most == 3


def test_a_part_whose_worker_is_lost_is_computed_again(alone: Store, context: Context) -> None:
    lost = list[int]()

    def lose_two(events: list[Event]) -> list[Event]:
        if len(lost) < 2:
            lost.append(len(lost))
            return [Ended("the worker was lost")]
        return events

    found = compute_parts(PLAIN, parts_of(alone), context, Staff(2, context.classifier, lose_two))
    ids = alone.done(key(SELECT))
    assert torch.equal(torch.cat([each["image"] for each in found]), alone.read(key(PLAIN), "image", ids))


def test_a_part_that_fails_three_times_ends_it(alone: Store, context: Context) -> None:
    crew = Staff(2, context.classifier, lambda events: [Ended("no memory")])
    with pytest.raises(UnderfireError, match="Workers failed 3 times: no memory"):
        compute_parts(PLAIN, parts_of(alone), context, crew)
    assert not crew._at_work


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.uint8])
def test_rows_are_the_same_after_a_journey(dtype: torch.dtype) -> None:
    rows = (torch.arange(12).view(3, 4) % 2).to(dtype)
    for sent in (StageInputs(("a", "b", "c"), {"x": rows}), Computed(("a", "b", "c"), {"x": rows})):
        back = pickle.loads(pickle.dumps(sent, protocol=5))
        assert type(back) is type(sent)
        assert back.ids == sent.ids
        assert back.tensors["x"].dtype is dtype
        assert torch.equal(back.tensors["x"], rows)
        back.tensors["x"][0] = 0
        assert torch.equal(back.tensors["x"][1:], rows[1:]), "it may be written to"
