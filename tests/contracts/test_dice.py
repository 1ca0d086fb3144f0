"""The law of dice: the draws that score a result never reach its attack, and no belief repeats those of another."""

from dataclasses import dataclass, field
from typing import Any

import torch

from tiny_attacks import a_goal, attack
from tiny_networks import classifier, images
from underfire.attacks import engine
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters import CAM, Replay, Smooth
from underfire.interpreters.mask.interpreter import MASK
from underfire.interpreters.mask.solver import Solution, Solver
from underfire.interpreters.protocol import Interpreter
from underfire.models.classifier import Classifier

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
