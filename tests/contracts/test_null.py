"""Law 5, Null: with weight zero on the map an attack takes the path of plain PGD, bit for bit, or of plain StAdv."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from law_cases import pairs
from tiny_attacks import BENT, INTERPRETERS, a_goal, attack, interpreter_of
from tiny_networks import NETWORKS, SMOOTH, classifier, images
from underfire.attacks import engine
from underfire.attacks.attack import Attack
from underfire.attacks.steps import Objective, StepRule
from underfire.core.schedules import Constant
from underfire.core.types import Goal, Labels, Terms
from underfire.interpreters import Blind
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Recorded:
    """A step rule that remembers where it has been."""

    rule: StepRule
    path: list[Tensor] = field(default_factory=list)

    def init(self, theta: Tensor) -> Any:
        return self.rule.init(theta)

    def step(self, objective: Objective, theta: Tensor, state: Any, step: Labels) -> tuple[Tensor, Any, Terms]:
        self.path.append(theta)
        return self.rule.step(objective, theta, state, step)


def path(an_attack: Attack, model: Classifier, goal: Goal) -> Tensor:
    rule = Recorded(an_attack.rule)
    parameters = vars(an_attack) | {"rule": rule}
    engine.run(Attack(**parameters), model, goal, batch_size=3)
    return torch.stack(rule.path)


@pytest.mark.parametrize(
    ("net", "name"), pairs([*NETWORKS, *SMOOTH], [name for name in INTERPRETERS if name != "blind"])
)
def test_weight_zero_is_pgd(net: str, name: str) -> None:
    model = classifier(net, torch.float64)
    interpreter = interpreter_of(name, model)
    goal = a_goal(model, interpreter, images(3, dtype=torch.float64))
    plain = path(attack(Blind()), model, goal)
    assert len(plain.unique(dim=0)) == 6, "every step must move"
    nothing = {term: Constant(0.0) for term in ("map", "encoder")}
    assert torch.equal(path(attack(interpreter, weights=nothing), model, goal), plain)
    heavy = attack(interpreter, weights={"map": Constant(1e4)})
    assert not torch.equal(path(heavy, model, goal), plain), "other weights must leave the path"


@pytest.mark.parametrize("net", ["resnet", "tanh"])
@pytest.mark.parametrize("name", [name for name in INTERPRETERS if name != "blind"])
def test_weight_zero_is_stadv(net: str, name: str) -> None:
    model = classifier(net, torch.float64)
    interpreter = interpreter_of(name, model)
    goal = a_goal(model, interpreter, images(3, dtype=torch.float64))
    cost = {"cost": BENT["weights"]["cost"]}
    plain = path(attack(Blind(), **BENT), model, goal)
    assert len(plain.unique(dim=0)) == 6, "every step must move"
    nothing = BENT | {"weights": cost | {term: Constant(0.0) for term in ("map", "encoder")}}
    assert torch.equal(path(attack(interpreter, **nothing), model, goal), plain)
    heavy = BENT | {"weights": cost | {"map": Constant(1e4)}}
    assert not torch.equal(path(attack(interpreter, **heavy), model, goal), plain), "other weights must leave the path"
