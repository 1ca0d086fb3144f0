"""How stages are cut, what they read, and what is said of their progress."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from underfire.attacks.engine import Paused, Progress
from underfire.attacks.solvers import adv2, pgd
from underfire.attacks.target_maps import Patch, RandomClassMap
from underfire.core.errors import UnderfireError
from underfire.core.types import Images, Logits
from underfire.data.corruptions import PNG
from underfire.data.image_set import open_images
from underfire.interpreters import CAM, GRAD
from underfire.models.classifier import Classifier
from underfire.runs import needs as needs_module
from underfire.runs.choosing import choose, keep
from underfire.runs.compute import Context, compute
from underfire.runs.driver import StageProgress, read_inputs, run_stage
from underfire.runs.needs import Need, StageInputs, left_of, needs, pool_of, shards
from underfire.runs.specs import CalibratedNoise, Craft, Explain, Saved, Select, TargetClasses, TargetMaps, key
from underfire.runs.store import Store

SELECT = Select("model", "images", n=7, seed=0)
TARGETS = TargetClasses(SELECT, seed=0)
MAPS = Explain(SELECT, CAM())
PLAIN = Craft(TARGETS, replace(pgd(steps=2), warm_start=None), None, None)
AFTER_MAPS = Craft(TARGETS, replace(adv2(CAM(), steps=2), warm_start=None), MAPS, PLAIN)
STAGES = (TARGETS, MAPS, PLAIN, AFTER_MAPS, Saved(AFTER_MAPS, PNG()), Explain(Saved(AFTER_MAPS, PNG()), CAM()))


@pytest.fixture
def context(tiny_model: str) -> Context:
    return Context(Classifier.load(tiny_model, None, "none"), batch_size=2)


@pytest.fixture
def store(tmp_path: Path, tiny_photos: Path, context: Context) -> Store:
    """Seven chosen images."""
    store = Store(tmp_path)
    keep(SELECT, choose(SELECT, open_images(tiny_photos), context.classifier).chosen, store)
    return store


# ------------------------------------------------------------------ pieces


@pytest.mark.parametrize(("batch", "size"), [(1, 64), (15, 60), (16, 64), (64, 64), (100, 100)])
def test_shards_are_whole_batches_in_order(batch: int, size: int) -> None:
    ids = tuple(map(str, range(250)))
    cut = list(shards(ids, batch))
    assert [name for shard in cut for name in shard] == list(ids)
    assert {len(shard) for shard in cut[:-1]} == {size}


def test_rows_are_the_same_bits_whatever_is_computed_at_once(
    store: Store, tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, other = store.done(key(SELECT)), Store(tmp_path / "other")
    images = {name: store.read(key(SELECT), name, ids) for name in ("image", "label")}
    other.append(key(SELECT), ids, images)
    for spec in STAGES:
        run_stage(spec, ids, store, context)
    monkeypatch.setattr(needs_module, "SHARD", 2)
    for spec in STAGES:
        run_stage(spec, ids, other, context)
        names = next(iter(compute(spec, read_inputs(spec, ids[:2], store), context)))[1]
        for name in names:
            assert torch.equal(*(each.read(key(spec), name, ids) for each in (store, other))), (spec, name)
    assert len(list((tmp_path / "other" / "stages" / key(TARGETS)).glob("shard-*"))) == 4


@pytest.fixture
def hungry(context: Context, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have a device on which only so many images fit."""
    forward = Classifier.forward

    def fits(images: int) -> None:
        def within_memory(classifier: Classifier, x: Images) -> Logits:
            if len(x) > images:
                raise torch.OutOfMemoryError("out of memory")
            return forward(classifier, x)

        monkeypatch.setattr(Classifier, "forward", within_memory)

    return fits


def test_batches_are_halved_until_they_fit(
    store: Store, tmp_path: Path, context: Context, hungry: Callable[[int], None]
) -> None:
    """Rows are those of the smaller batch, bit for bit."""
    ids, other, said = store.done(key(SELECT)), Store(tmp_path / "other"), list[str]()
    other.append(key(SELECT), ids, {name: store.read(key(SELECT), name, ids) for name in ("image", "label")})
    for spec in STAGES:
        run_stage(spec, ids, store, replace(context, batch_size=3))
    hungry(3)
    for spec in STAGES:
        run_stage(spec, ids, other, replace(context, batch_size=6, on_notice=said.append))
        for name in next(iter(compute(spec, read_inputs(spec, ids[:2], store), context)))[1]:
            assert torch.equal(*(each.read(key(spec), name, ids) for each in (store, other))), (spec, name)
    assert set(said) == {"Memory does not hold 6 images at a time; going on with 3 (--batch)."}
    hungry(0)
    with pytest.raises(UnderfireError, match="does not hold what a single image takes"):
        run_stage(Explain(SELECT, GRAD()), ids, store, context)


def test_what_is_left_of_inputs_keeps_its_pool_and_how_far_images_are() -> None:
    spec = TargetMaps(TARGETS, MAPS, RandomClassMap(), 0)
    rows = torch.arange(3.0)
    paused = Paused((0, 2), {"theta": torch.tensor([10.0, 12.0])})
    left = left_of(
        spec, StageInputs(("a", "b", "c"), {"target": rows, "label": rows, "benign": rows}, ("a",), paused), "a"
    )
    assert (left.ids, left.pool, left.paused.index) == (("b", "c"), ("a",), (1,))
    assert {name: held.tolist() for name, held in left.tensors.items()} == {
        "target": [1, 2], "label": [0, 1, 2], "benign": [0, 1, 2],
    }  # fmt: skip
    assert left.paused.rows["theta"].tolist() == [12]


def test_noise_that_is_calibrated_on_all_images_reads_a_batch_at_a_time(
    store: Store, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is left of it where memory was short is the rest of its rows, over the same pool."""
    noise, ids, read, sizes = CalibratedNoise(SELECT, "normal", 0.3, seed=0), store.done(key(SELECT)), Store.read, []

    def noted(self: Store, stage: str, name: str, ids: Iterable[str]) -> Tensor:
        rows = read(self, stage, name, ids)
        sizes.extend([len(rows)] * (name == "image"))
        return rows

    monkeypatch.setattr(Store, "read", noted)
    run_stage(noise, ids, store, replace(context, batch_size=2))
    assert len(sizes) > len(ids), "many deviations are tried"
    assert max(sizes) == 2
    inputs = left_of(noise, read_inputs(noise, ids, store), ids[:3])
    ((computed, rows),) = compute(noise, inputs, replace(context, batch_size=4))
    assert computed == ids[3:]
    assert torch.equal(rows["image"], read(store, key(noise), "image", ids[3:]))


def test_a_stage_can_be_computed_without_a_store(store: Store, context: Context) -> None:
    ids = store.done(key(SELECT))
    images, labels = (store.read(key(SELECT), name, ids) for name in ("image", "label"))
    run_stage(MAPS, ids, store, context)
    inputs = StageInputs(ids[2:4], {"image": images[2:4], "class": labels[2:4]})
    ((computed, rows),) = compute(MAPS, inputs, context)
    assert computed == ids[2:4]
    assert torch.equal(rows["map"], store.read(key(MAPS), "map", computed))


# ------------------------------------------------------------------ needs


def test_a_stage_says_what_it_is_computed_from() -> None:
    assert needs(AFTER_MAPS) == {
        "image": Need(key(SELECT), "image"),
        "target": Need(key(TARGETS), "target"),
        "goal": Need(key(MAPS), "map"),
        "start": Need(key(PLAIN), "theta"),
    }
    saved = Saved(PLAIN, PNG())
    assert needs(Explain(saved, CAM())) == {"image": Need(key(PLAIN), "image"), "class": Need(key(saved), "predicted")}


def test_what_is_chosen_needs_nothing_that_could_be_computed() -> None:
    with pytest.raises(TypeError, match="Select cannot be computed from ids"):
        needs(SELECT)


def test_only_stages_that_look_at_all_images_have_a_pool() -> None:
    borrowing, drawn = (TargetMaps(TARGETS, MAPS, rule, seed=0) for rule in (RandomClassMap(), Patch()))
    noise = CalibratedNoise(SELECT, "normal", 0.3, seed=0)
    assert [pool_of(spec) is None for spec in (*STAGES, drawn)] == [True] * 7
    for spec in (borrowing, noise):
        pool = pool_of(spec)
        assert pool is not None
        assert (pool.stage, pool.n) == (key(SELECT), 7)
        assert {need.pooled for need in needs(spec).values()} == {True, False}


# ------------------------------------------------------------------ progress


def test_the_progress_of_a_stage_is_that_of_its_parts_together() -> None:
    heard: list[Progress] = []
    tally = StageProgress(heard.append, total=5)
    for images in (2, 2, 1):
        on_step = tally.of(images)
        for step in range(1, 11):
            on_step(Progress(images * (step == 10), step == 10, step * images, 10 * images))
    assert {each.planned_steps for each in heard} == {50}
    assert all(before.steps <= after.steps for before, after in pairwise(heard))
    assert heard[-1] == Progress(5, 3, 50, 50)
