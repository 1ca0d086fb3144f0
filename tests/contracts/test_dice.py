"""The law of dice: the draws that score a result never reach its attack, and no belief repeats those of another."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import pytest
import torch

from tiny_attacks import INTERPRETERS, a_goal, attack, interpreter_of
from tiny_networks import classifier, images
from underfire.attacks import engine
from underfire.core.rng import image_keys
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters import CAM, Replay, Smooth
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.mask.solver import Solution, Solver
from underfire.interpreters.protocol import Interpreter
from underfire.metrics.maps import compare_draws, map_l1
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.plan import AttackPlan
from underfire.runs.specs import Explain, Select, key

N = 3


@dataclass(frozen=True)
class Overheard:
    """An interpreter that notes which keys it is given, by purpose."""

    inside: Interpreter
    begun: list[Keys] = field(default_factory=list)
    explained: list[Keys] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inside.name

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        self.explained.append(keys)
        return self.inside.explain(classifier, x, y, keys)

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Any:
        self.begun.append(keys)
        return self.inside.begin(classifier, x, y, keys)

    def advance(self, classifier: Classifier, belief: Any, x: Images, y: Labels) -> Any:
        return self.inside.advance(classifier, belief, x, y)

    def read(self, classifier: Classifier, belief: Any, x: Images, y: Labels) -> Reading:
        return self.inside.read(classifier, belief, x, y)


def test_the_scoring_stream_never_reaches_the_engine() -> None:
    model, spy = classifier("resnet"), Overheard(CAM())
    goal = a_goal(model, CAM(), images(N))
    engine.run(attack(spy), model, goal, batch_size=2)
    seen = torch.cat([*spy.begun, *spy.explained])
    assert len(spy.explained) > 3, "every quantum is judged"
    assert not torch.isin(seen, goal.key).any()


@pytest.mark.parametrize("target_map", ["benign", "random-class"])
def test_no_stage_of_an_attack_holds_maps_by_which_it_is_scored(target_map: str) -> None:
    settings = AttackSettings(model="m", images="i", interpreters=("mask", "smooth:cam"), target_map=target_map)
    plan = AttackPlan.of(settings, Select("model", "images", 4, 0))
    scoring = {key(each) for shown in plan.interpreters for each in shown.benign}
    scoring |= {key(each) for made in plan.attacks for maps in made.scored.maps.values() for each in maps}
    assert len(scoring) == 2 * 4 * 3, "benign maps, PGD and ADV², by four draws"
    for made in plan.attacks:
        assert not {key(each) for each in within(made.craft) if isinstance(each, Explain)} & scoring


def within(spec: Any) -> Iterator[Any]:
    """A spec and all that it is computed from."""
    yield spec
    for part in (getattr(spec, each.name) for each in fields(spec) if each.init):
        if is_dataclass(part):
            yield from within(part)


def test_distances_are_means_over_draws_that_no_two_maps_share() -> None:
    maps, references = (list(torch.rand(2, 4, N, 3, 3, generator=torch.Generator().manual_seed(0))[k]) for k in (0, 1))
    beside = [1, 2, 3, 0]
    expected = sum(map_l1(maps[k], references[beside[k]]) for k in range(4)) / 4
    torch.testing.assert_close(compare_draws(maps, references)["map_l1"], expected)
    torch.testing.assert_close(
        compare_draws(maps, references[:1])["map_l1"], sum(map_l1(each, references[0]) for each in maps) / 4
    )


def test_one_judge_and_another_belief_in_every_quantum() -> None:
    model, spy = classifier("resnet"), Overheard(CAM())
    engine.run(attack(spy, warm_start=None), model, a_goal(model, CAM(), images(N)), batch_size=N)
    quanta = 3
    assert len(torch.stack(spy.explained).unique()) == N
    assert len(torch.stack(spy.begun).unique()) == N * (quanta + 1)
    assert not torch.isin(torch.stack(spy.begun), torch.stack(spy.explained)).any()


def test_noisy_copies_do_not_come_again() -> None:
    """Neither Smooth's copies nor MASK's jitter: a counter that starts anew meets another key."""
    model, x = classifier("resnet"), images(N)
    noise, shifts = list[torch.Tensor](), list[torch.Tensor]()

    class Told(Smooth):
        def _noisy(self, x: Images, whose: str, keys: Keys, step: Labels) -> list[Images]:
            copies = super()._noisy(x, whose, keys, step)
            if whose == "attacker":
                noise.append(torch.stack([copy - x for copy in copies], 1).detach())
            return copies

    class Jittered(Solver):
        def offsets(self, solution: Solution, deletion: Any, purpose: str) -> Any:
            if purpose != "mask":
                shifts.append(torch.stack([solution.key, solution.drawn], 1))
            return super().offsets(solution, deletion, purpose)

    smooth = Told(CAM(), copies=3)
    engine.run(attack(smooth, warm_start=None), model, a_goal(model, smooth, x), batch_size=N)
    steps = torch.stack(noise).flatten(1)
    assert len(steps) == 6
    assert min((steps[i] - steps[j]).abs().max().item() for i in range(6) for j in range(i)) > 1e-3

    mask = MASK(Jittered(steps=2), Replay(follow=1, horizon=2))
    engine.run(attack(mask, warm_start=None), model, a_goal(model, mask, x), batch_size=N)
    begun = [pairs for pairs in shifts if not pairs[:, 1].any()]
    assert len(torch.cat(begun)[:, 0].unique()) == N * 3, "each quantum's first iteration has dice of its own"


@pytest.mark.parametrize("name", [name for name in INTERPRETERS if name != "blind"])
def test_images_without_keys_are_named_by_their_places(name: str) -> None:
    model, x, y = classifier("resnet"), images(N), torch.tensor([0, 3, 4])
    interpreter = interpreter_of(name, model)
    named = interpreter.explain(model, x, y, image_keys(["0", "1", "2"]))
    assert torch.equal(interpreter.explain(model, x, y), named)
