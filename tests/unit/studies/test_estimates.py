"""How long studies will take: attacks cut short, formulas on a clock of our own, nothing timed or counted twice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from underfire.attacks.solvers import adv2, pgd
from underfire.attacks.target_maps import target_map_named
from underfire.data.corruptions import PNG
from underfire.data.image_set import open_images
from underfire.interpreters import CAM, GRAD, MASK
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Experiment, Manner, execute
from underfire.runs.plan import Planned
from underfire.runs.specs import (
    CalibratedNoise,
    Craft,
    Explain,
    Saved,
    Select,
    SignNoise,
    TargetClasses,
    TargetMaps,
    key,
)
from underfire.runs.store import Store
from underfire.studies import effectiveness, estimates
from underfire.studies.base import Subject
from underfire.studies.estimates import Stopwatch, shortened, stopwatch

SELECT = Select("model", "images", 4, 0)
TARGETS, BENIGN = TargetClasses(SELECT, 0), Explain(SELECT, CAM())
RULE = target_map_named("patch")
N = 3


def craft(interpreter: Any = None, goal: Any = BENIGN) -> Craft:
    attack = adv2(CAM() if interpreter is None else interpreter)
    assert attack.warm_start is not None
    return Craft(TARGETS, attack, goal, Craft(TARGETS, attack.warm_start, None, None))


# ------------------------------------------------------------------ shortened


@pytest.mark.parametrize(
    "spec", [SELECT, TARGETS, BENIGN, Explain(SELECT, MASK()), CalibratedNoise(SELECT, "normal", 0.3, 0)]
)
def test_what_holds_no_attack_keeps_its_key(spec: Any) -> None:
    assert shortened(spec, 1) is spec


OUTER: tuple[Callable[[Craft], Any], ...] = (
    lambda of: of,
    lambda of: Saved(of, PNG()),
    lambda of: SignNoise(of, 0),
    lambda of: Explain(of, GRAD()),
    lambda of: Explain(SignNoise(of, 0), CAM()),
)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("outer", OUTER)
def test_every_attack_is_cut_however_deep_it_lies(outer: Callable[[Craft], Any], steps: int) -> None:
    short = shortened(outer(craft()), steps)
    assert type(short) is type(outer(craft()))
    while not isinstance(short, Craft):
        short = short.of
    assert (short.attack.steps, short.start.attack.steps) == (steps, steps)
    assert short.attack.weights == craft().attack.weights
    assert (short.of, short.goal) == (TARGETS, BENIGN)


def test_an_attack_that_is_shorter_stays_as_it_is() -> None:
    attack = pgd(steps=2)
    assert shortened(Craft(TARGETS, attack, None, None), 3).attack.steps == 2


def test_target_maps_become_benign_ones() -> None:
    assert RULE is not None
    target_maps = TargetMaps(TARGETS, BENIGN, RULE, 0)
    assert shortened(target_maps, 1) is BENIGN
    assert shortened(craft(goal=target_maps), 1) == shortened(craft(), 1)


# ------------------------------------------------------------------ estimates


@dataclass
class Clock:
    """Stages take the time that their type and steps are said to take, and do nothing but be noted."""

    now: float = 0.0
    computed: list[Any] = field(default_factory=list)

    def run_stage(self, spec: Any, ids: tuple[str, ...], store: Any, context: Any) -> bool:
        assert len(ids) == 1
        self.computed.append(spec)
        self.now += 10.0 + 2.0 * spec.attack.steps if isinstance(spec, Craft) else 0.5
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(estimates, "run_stage", made.run_stage)
    monkeypatch.setattr(estimates, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


@pytest.fixture
def experiment(tiny_model: str, tiny_photos: Path, classifier: Classifier) -> Callable[..., Experiment]:
    def made(**changes: Any) -> Experiment:
        given = {"model": tiny_model, "images": str(tiny_photos), "n": N, "normalize": "none"}
        settings = AttackSettings(**{**given, "interpreters": ("cam",), "steps": 120, **changes})
        return effectiveness.experiment(settings, Subject(classifier, open_images(tiny_photos)))

    return made


@pytest.fixture
def watch(classifier: Classifier, tmp_path: Path) -> Iterator[Stopwatch]:
    with stopwatch(classifier, Store(tmp_path / "held")) as made:
        yield made


def test_an_attack_takes_its_quanta_and_its_steps(
    experiment: Callable[..., Experiment], watch: Stopwatch, clock: Clock, tmp_path: Path
) -> None:
    asked = experiment()
    expected = watch.estimate(asked, asked.plan)
    crafts = [each.spec for each in asked.plan if isinstance(each.spec, Craft)]
    assert len(crafts) == 3  # warm start, plain, ADV2
    for planned, found in zip(asked.plan[1:], expected, strict=True):
        assert (found.label, found.images) == (planned.label, N)
        if isinstance(planned.spec, Craft):
            attack = planned.spec.attack
            quanta = -(-attack.steps // attack.quantum)
            assert found.seconds == pytest.approx(N * (10 * quanta + 2 * attack.steps))
        else:
            assert found.seconds == pytest.approx(N * 0.5)
    assert [each.attack.steps for each in clock.computed if isinstance(each, Craft)] == [1, 3] * 3
    assert not (tmp_path / "held").exists()


def test_a_stage_that_two_studies_share_is_counted_and_timed_once(
    experiment: Callable[..., Experiment], watch: Stopwatch, clock: Clock
) -> None:
    first, second = experiment(), experiment(interpreters=("cam", "grad"))
    one = watch.estimate(first, first.plan)
    timed = list(clock.computed)
    two = watch.estimate(second, second.plan)
    shared = {key(each.spec) for each in first.plan}
    assert shared < {key(each.spec) for each in second.plan}
    for planned, found in zip(second.plan[1:], two, strict=True):
        assert (found.images == 0) == (found.seconds == 0) == (key(planned.spec) in shared)
    assert all(found.images == N for found in one)
    later = clock.computed[len(timed) :]
    assert not {key(spec) for spec in timed} & {key(spec) for spec in later}


def test_the_noise_of_all_images_is_sought_once(
    watch: Stopwatch, experiment: Callable[..., Experiment], clock: Clock
) -> None:

    asked = experiment()
    noise = Planned("noise", CalibratedNoise(asked.plan[0].spec, "normal", 0.3, 0), "image", "noise", None)
    (found,) = watch.estimate(asked, [asked.plan[0], noise])
    assert (found.images, found.seconds) == (N, pytest.approx(0.5))


def test_nothing_is_timed_where_all_is_there_and_only_the_rest_where_some_is(
    experiment: Callable[..., Experiment], classifier: Classifier, clock: Clock, tmp_path: Path
) -> None:
    asked = experiment(steps=2)
    run = execute(asked, tmp_path / "all", classifier, Manner("test", batch_size=2))
    with stopwatch(classifier, run.store) as made:
        assert {(each.images, each.seconds) for each in made.estimate(asked, asked.plan)} == {(0, 0.0)}
    assert clock.computed == []
    *_, last = asked.plan
    shard, *_ = sorted((run.path / "stages" / key(last.spec)).glob("shard-*"))
    shard.unlink()
    with stopwatch(classifier, run.store) as made:
        *others, found = made.estimate(asked, asked.plan)
    lost = N - len(run.store.done(key(last.spec)))
    assert 0 < lost < N
    assert (found.label, found.images, found.seconds) == (last.label, lost, pytest.approx(0.5 * lost))
    assert {each.seconds for each in others} == {0.0}
