"""The query attack: what is counted as a query is what is asked, and no gradient is asked for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import underfire as uf
from tiny import Tiny, build
from tiny_attacks import a_goal, differing_fields
from tiny_networks import images
from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.names import BUDGETS, SOLVERS, Effort
from underfire.attacks.queries import Queried, looks_within, queries_of
from underfire.core.errors import UnderfireError
from underfire.core.types import Goal, Outcome
from underfire.detection.squeezers import Median
from underfire.interpreters import CAM, GRAD, Blind, Interpreter, Smooth
from underfire.models.classifier import Classifier

SQUARE = SOLVERS["square"]
MEASURED = 2  # passes that measure the result: its best and its last iterate


def tiny(network: nn.Module | None = None) -> Classifier:
    return Classifier(network or build(), (0.0,) * 3, (1.0,) * 3)


def passes(model: Classifier, run: Callable[[], Any]) -> int:
    """How many images the network is shown meanwhile."""
    shown: list[int] = []
    hook = model.network.register_forward_pre_hook(lambda _, inputs: shown.append(len(inputs[0])))
    run()
    hook.remove()
    return sum(shown)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return tiny()


@pytest.fixture(scope="module")
def goal(model: Classifier) -> Goal:
    x = images(3)
    model.locate_head(x)  # finding it takes passes of its own
    return a_goal(model, CAM(), x)


def ours(interpreter: Interpreter | None, **length: Any) -> Attack:
    if interpreter is None:
        return solvers.plain(SQUARE, **length)
    return solvers.map_aware(SQUARE, interpreter, **length)


@pytest.mark.parametrize("queries", [4, 103, 110])
@pytest.mark.parametrize("interpreter", [None, CAM()], ids=["plain", "map-aware"])
def test_queries_are_the_passes_and_explanations_made(
    model: Classifier, goal: Goal, interpreter: Interpreter | None, queries: int
) -> None:
    """Of CAM an explanation is one pass."""
    attack = ours(interpreter, queries=queries)
    made = passes(model, lambda: engine.run(attack, model, goal, batch_size=3)) / 3 - MEASURED
    assert made == queries_of(attack, attack.steps) <= queries
    one_more = Attack("longer", attack.interpreter, rungs=(attack.steps + 1,))
    assert queries_of(one_more, one_more.steps) > queries, "none is left over"


@pytest.mark.parametrize("effort", BUDGETS)
def test_each_effort_spends_its_budget(effort: Effort) -> None:
    attack = ours(CAM(), effort=effort)
    assert BUDGETS[effort] - 5 < queries_of(attack, attack.steps) <= BUDGETS[effort]
    plain = ours(None)
    assert BUDGETS["standard"] - 5 < queries_of(plain, plain.steps) <= BUDGETS["standard"]


def test_where_a_rung_ends_one_explanation_tells_whether_to_go_on(model: Classifier, goal: Goal) -> None:
    attack = replace(ours(CAM()), rungs=(20, 20), confidence=0.0, settled=0.0)
    made = passes(model, lambda: engine.run(attack, model, goal, batch_size=3)) / 3 - MEASURED
    assert made == queries_of(attack, 40) == 2 * (20 + 1 + 20 + 1) + 1
    assert queries_of(attack, 20) == 2 * (20 + 1) + 1


class Refusing(torch.autograd.Function):
    """Whoever asks for a gradient fails."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise AssertionError("a gradient was asked for")


class OneWay(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Refusing.apply(x))


def one_way() -> nn.Module:
    network = OneWay()
    network.load_state_dict(build().state_dict())
    return network


def test_no_gradient_is_asked_for(model: Classifier, goal: Goal) -> None:
    """With gradients off, and on a network that has none, it is the same attack; PGD fails on that."""
    closed, attack = tiny(one_way()), ours(CAM(), queries=60)
    expected = engine.run(attack, model, goal, batch_size=3)
    assert torch.equal(expected.image, engine.run(attack, closed, goal, batch_size=3).image)
    with torch.no_grad():
        assert differing_fields(expected, engine.run(attack, model, goal, batch_size=3)) == []
    with pytest.raises(UnderfireError, match="have no gradient in the image"):
        engine.run(solvers.pgd(steps=1), closed, goal, batch_size=3)


def test_it_fools_and_the_map_counts(model: Classifier, goal: Goal) -> None:
    """Within a large budget; the map-aware attack leaves maps nearer to their goal than the plain one."""

    def run(attack: Attack) -> tuple[Outcome, float]:
        outcome = engine.run(attack, model, goal, batch_size=3)
        maps = CAM().explain(model, outcome.image, goal.target, goal.key)
        return outcome, float((maps - goal.target_map).abs().mean())

    (plain, moved), (aware, kept) = (run(ours(each, queries=200, eps=0.3)) for each in (None, CAM()))
    assert bool(plain.success.all() & aware.success.all())
    assert kept < moved


def test_a_killed_attack_goes_on_from_its_last_quantum(model: Classifier, goal: Goal) -> None:
    attack, paused = ours(CAM(), queries=160), list[engine.Paused]()
    ((_, whole),) = engine.stream(attack, model, goal, batch_size=3, on_quantum=paused.append)
    assert len(paused) == 1
    ((_, resumed),) = engine.stream(attack, model, goal, batch_size=3, resume=paused[0])
    assert differing_fields(whole, resumed) == []


def test_a_start_is_where_the_search_begins(model: Classifier, goal: Goal) -> None:
    seed = engine.run(solvers.adv2(CAM(), eps=8 / 255, steps=20), model, goal, batch_size=3).theta
    attack = ours(CAM(), queries=4)
    assert attack.steps == 1
    assert torch.equal(engine.run(attack, model, goal, batch_size=3, start=seed).theta, seed)
    assert ours(CAM()).warm_start is None


def test_in_python_it_is_called_as_the_others_are() -> None:
    model, x = tiny(one_way()), images(2)
    asked, plain = uf.adv2_square(model, uf.CAM(), queries=40, eps=0.3)(x), uf.square(model, uf.CAM(), queries=40)(x)
    for result, eps in ((asked, 0.3), (plain, 8 / 255)):
        assert bool((result.linf <= eps + 1e-6).all())
        assert torch.equal(result.maps, CAM().explain(model, result.adversarial, result.predicted, result.target))
    assert bool((asked.linf > 0).any())


def test_a_look_shows_the_deployed_maps(model: Classifier, goal: Goal) -> None:
    queried = Queried(CAM())
    belief = queried.begin(model, goal.image, goal.target, goal.key)
    read = queried.read(model, queried.advance(model, belief, goal.image, goal.target), goal.image, goal.target)
    assert torch.equal(read.maps[:, 0], CAM().explain(model, goal.image, goal.target, goal.key))
    assert (queried.name, queried.draws) == ("cam", False)


def test_an_interpreter_that_draws_is_asked_anew_each_time(model: Classifier, goal: Goal) -> None:
    queried = Queried(Smooth(CAM(), copies=3, sigma=0.2))
    first = queried.begin(model, goal.image, goal.target, goal.key)
    second = queried.advance(model, first, goal.image, goal.target)
    looks = [queried.read(model, belief, goal.image, goal.target).maps for belief in (first, second)]
    assert queried.draws
    assert not torch.equal(*looks)


def test_what_it_cannot_do_is_said_in_a_sentence() -> None:
    with pytest.raises(UnderfireError, match="2 queries do not suffice"):
        looks_within(2, Queried(GRAD()))
    assert looks_within(2, Blind()) == 1
    with pytest.raises(UnderfireError, match="Solver 'square' has no recipe 'paper'; it has annealed"):
        ours(CAM(), recipe="paper")
    with pytest.raises(UnderfireError, match="hides from no detector"):
        ours(CAM(), evade=(Median(3),))
    with pytest.raises(UnderfireError, match="leave nothing for the effort"):
        ours(CAM(), effort="quick", queries=100)
