"""The one loop: what it returns, when it stops, what it asks of its parts, and what it reports."""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tiny_attacks import FEW, RULES, Redness, a_goal, attack, differing_fields, interpreter_of
from tiny_networks import classifier, images, network
from underfire.attacks import engine
from underfire.attacks.attack import Attack, CrossEntropy, ExtraTerm
from underfire.attacks.engine import Progress
from underfire.attacks.perturbations import Pixels
from underfire.attacks.steps import MomentumSignStep, NoState, Objective, SignStep
from underfire.core import rows
from underfire.core.losses import confidence, map_distance
from underfire.core.schedules import Constant, InTurn
from underfire.core.types import Goal, Images, Keys, Labels, Maps, Outcome, Reading, Row, Terms
from underfire.interpreters import CAM, GRAD, Blind
from underfire.interpreters.protocol import NoBelief
from underfire.metrics.maps import linf, map_l1
from underfire.models.classifier import Classifier

N = 5


@pytest.fixture
def model() -> Classifier:
    return classifier("densenet")


@pytest.fixture
def goal(model: Classifier) -> Goal:
    return a_goal(model, CAM(), images(N))


@dataclass(frozen=True)
class Recorded:
    """A sign step that remembers where it has been."""

    path: list[Tensor] = field(default_factory=list)

    def init(self, theta: Tensor) -> NoState:
        return NoState()

    def step(self, objective: Objective, theta: Tensor, state: NoState, step: Labels) -> tuple[Tensor, Any, Terms]:
        self.path.append(theta)
        return SignStep(Constant(4 / 255)).step(objective, theta, state, step)


@dataclass(frozen=True)
class Uphill:
    """A sign step the other way."""

    def init(self, theta: Tensor) -> NoState:
        return NoState()

    def step(self, objective: Objective, theta: Tensor, state: NoState, step: Labels) -> tuple[Tensor, Any, Terms]:
        downhill, state, terms = SignStep(Constant(4 / 255)).step(objective, theta, state, step)
        return 2 * theta - downhill, state, terms


def rank_of(an_attack: Attack, model: Classifier, goal: Goal, theta: Tensor) -> Tensor:
    """By the deployed interpreter, on the image itself."""
    x = an_attack.perturbation.decode(goal.image, theta)
    with torch.no_grad():
        logits = model(x)
    maps = an_attack.interpreter.explain(model, x, goal.target, goal.key)
    return an_attack.rank(logits, exposure(an_attack, model, goal, x, maps[:, None]), goal.target)


def exposure(an_attack: Attack, model: Classifier, goal: Goal, x: Tensor, maps: Tensor) -> Tensor:
    """By these maps, and by terms that ask for the image alone."""
    further = {term.name: term(model, None, None, x, goal, goal.key) for term in an_attack.extra_terms}  # type: ignore[arg-type]
    return an_attack.exposure({"map": map_distance(maps, goal.target_map), **further})


def rank_by_reading(an_attack: Attack, model: Classifier, goal: Goal, theta: Tensor) -> Tensor:
    """By the attacker's model of the interpreter."""
    x = an_attack.perturbation.decode(goal.image, theta).requires_grad_()
    belief = an_attack.interpreter.begin(model, x, goal.target, goal.key)
    reading = an_attack.interpreter.read(model, belief, x, goal.target)
    return an_attack.rank(reading.logits, exposure(an_attack, model, goal, x, reading.maps), goal.target).detach()


def test_a_start_stands_in_for_the_warm_start(model: Classifier, goal: Goal) -> None:
    warmed = attack(CAM())
    assert warmed.warm_start is not None
    start = engine.run(warmed.warm_start, model, goal, batch_size=N).theta
    whole, from_start = engine.run(warmed, model, goal, N), engine.run(warmed, model, goal, N, start=start)
    assert differing_fields(whole, from_start) == []
    assert differing_fields(whole, engine.run(warmed, model, goal, N, start=torch.zeros_like(start))) != []


@pytest.mark.parametrize("name", ["grad-differences", "cam", "rts"])
@pytest.mark.parametrize("threshold", [0.0, pytest.param(0.5, marks=pytest.mark.extended), 0.99])
@pytest.mark.parametrize("further", [(), (Redness(weight=20.0),)], ids=["the map", "the map and a term"])
def test_the_best_iterate_is_returned(
    model: Classifier, name: str, threshold: float, further: tuple[ExtraTerm, ...]
) -> None:
    """The attacker proposes one iterate per quantum, the deployed interpreter chooses: the best of the whole path
    where the two agree. Ranks are equal to float32's rounding, about 1e-6. What is read of MASK depends on the path
    that led there, so that no single theta tells."""
    interpreter, rule = interpreter_of(name, model), Recorded()
    goal = a_goal(model, interpreter, images(N))
    swinging = attack(interpreter, rule=rule, confidence=threshold, warm_start=None, extra_terms=further)
    outcome = engine.run(swinging, model, goal, batch_size=N)
    deployed, read = (
        torch.stack([rank(swinging, model, goal, theta) for theta in rule.path]) for rank in (rank_of, rank_by_reading)
    )
    proposed = torch.stack([torch.arange(q, q + 2)[read[q : q + 2].argmin(0)] for q in (0, 2, 4)])
    own = rank_of(swinging, model, goal, outcome.theta)
    torch.testing.assert_close(own, deployed.gather(0, proposed).amin(0), rtol=0, atol=1e-6)
    if name != "grad-smoothed":
        torch.testing.assert_close(own, deployed.amin(0), rtol=0, atol=1e-6)


@dataclass(frozen=True)
class Drift:
    """Brighter by 1/255 at every step, whatever the objective says."""

    def init(self, theta: Tensor) -> NoState:
        return NoState()

    def step(self, objective: Objective, theta: Tensor, state: NoState, step: Labels) -> tuple[Tensor, Any, Terms]:
        return theta + 1 / 255, state, objective(theta)


@dataclass(frozen=True)
class Deceived(Blind):
    """The attacker believes that brightness spoils the map; in truth it is what the map needs."""

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return 1 - x.mean((1, 2, 3)).view(-1, 1, 1)

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        return replace(Blind.read(self, classifier, belief, x, y), maps=x.mean((1, 2, 3)).view(-1, 1, 1, 1))


def test_every_quantum_proposes_anew(model: Classifier, goal: Goal) -> None:
    """The attacker proposes the first iterate of each quantum, 0, 2 and 4 steps from the start: the last is best."""
    reached = replace(goal, target=model(goal.image).argmax(1), target_map=torch.zeros(N, 1, 1))
    drifting = attack(Deceived(), rule=Drift(), confidence=0.0, warm_start=None)
    outcome = engine.run(drifting, model, reached, batch_size=N)
    assert outcome.success.all()
    expected = drifting.perturbation.project(goal.image, torch.full_like(goal.image, 4 / 255))
    torch.testing.assert_close(outcome.theta, expected, rtol=0, atol=1e-6)


@dataclass(frozen=True)
class Dark:
    """Takes brightness for what spoils a map, and remembers the dice that it was given."""

    seen: list[Keys] = field(default_factory=list)
    name: str = "dark"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        self.seen.append(keys)
        return x.mean((1, 2, 3)).view(-1, 1, 1)


def test_judges_choose_in_place_of_the_interpreter_and_each_has_dice_of_its_own(model: Classifier, goal: Goal) -> None:
    """All but the start are brighter, which these judges do not like, though the deployed interpreter does."""
    reached = replace(goal, target=model(goal.image).argmax(1), target_map=torch.zeros(N, 1, 1))
    judge = Dark()
    attacks = [
        attack(Deceived(), rule=Drift(), confidence=0.0, warm_start=None, judges=j) for j in ((), (judge, judge))
    ]
    asked, judged = (engine.run(each, model, reached, batch_size=N).theta for each in attacks)
    assert judged.abs().max() == 0
    assert asked.abs().max() > 0
    first, second = judge.seen[:2]
    assert not (first == second).any()
    assert torch.equal(judge.seen[2], first), "all quanta are judged alike"


def test_a_later_success_counts_less_than_an_earlier_nearer_one(model: Classifier, goal: Goal) -> None:
    """Starting at the best, an attack that only gets worse returns its start."""
    best = engine.run(attack(CAM()), model, goal, batch_size=N).theta
    uphill = attack(CAM(), rule=Uphill())
    ((_, outcome),) = engine.stream(uphill, model, goal, batch_size=N, start=best)
    assert torch.equal(outcome.theta, best)


@pytest.mark.parametrize("name", FEW)
def test_numbers_are_measured_on_the_returned_images(model: Classifier, name: str) -> None:
    goal = a_goal(model, interpreter_of(name, model), images(N))
    an_attack = attack(interpreter_of(name, model))
    outcome = engine.run(an_attack, model, goal, batch_size=2)
    assert torch.equal(an_attack.perturbation.decode(goal.image, outcome.theta), outcome.image)
    with torch.no_grad():
        logits = model(outcome.image)
    assert torch.equal(outcome.predicted, logits.argmax(1))
    assert torch.equal(outcome.success, logits.argmax(1) == goal.target)
    torch.testing.assert_close(outcome.confidence, confidence(logits, goal.target), rtol=0, atol=1e-6)
    assert not outcome.image.requires_grad


def met(model: Classifier, goal: Goal, share: float = 0.5) -> Goal:
    """The same but for the targets of the last images: they report them as they are."""
    reported = model(goal.image).argmax(1)
    at_once = torch.arange(len(goal.key)) >= (1 - share) * len(goal.key)
    return replace(goal, target=torch.where(at_once, reported, goal.target))


def test_on_one_rung_every_image_spends_its_budget(model: Classifier, goal: Goal) -> None:
    outcome = engine.run(attack(CAM(), rungs=(5,), settled=1.0, confidence=0.0), model, goal, batch_size=2)
    assert outcome.steps.tolist() == [5] * N
    assert not outcome.settled.any()


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("settled", [0.0, 0.01, 1.0])
def test_images_leave_after_the_first_rung_on_which_they_are_settled(
    model: Classifier, goal: Goal, settled: float, noisy: bool
) -> None:
    """As shorter ladders tell: what they hold when they end is what the longer one judged there."""
    goal = met(model, goal)
    goal = replace(goal, noise=torch.linspace(0, 0.05, N)) if noisy else goal
    ladder = attack(CAM(), rungs=(1, 2, 3), settled=settled, confidence=0.0, warm_start=None)
    outcome = engine.run(ladder, model, goal, batch_size=N)
    reach = torch.full((N,), settled) if goal.noise is None else goal.noise.clamp_min(settled)
    left = torch.zeros(N, dtype=torch.bool)
    for rungs in ((1,), (1, 2), (1, 2, 3)):
        held = engine.run(replace(ladder, rungs=rungs, settled=0.0), model, goal, batch_size=N)
        maps = CAM().explain(model, held.image, goal.target, goal.key)
        near = held.success & (map_l1(maps, goal.target_map) <= reach)
        leaving = (outcome.steps == sum(rungs)) & ~left
        assert torch.equal(leaving, ~left & (near if sum(rungs) < ladder.steps else torch.ones_like(near)))
        assert differing_fields(rows.take(outcome, leaving), rows.take(held, leaving)) in ([], ["settled"])
        assert outcome.settled[leaving].all() if sum(rungs) < ladder.steps else not outcome.settled[leaving].any()
        left |= leaving
    assert left.all()


@pytest.mark.parametrize("name", FEW)
def test_a_ladder_of_one_rung_is_the_attack_without_one(model: Classifier, name: str) -> None:
    """Bit for bit, and whatever would settle its images."""
    interpreter = interpreter_of(name, model)
    goal = a_goal(model, interpreter, images(N))
    plain = attack(interpreter, rungs=(6,))
    alpha = InTurn((plain.rule.alpha,), (6,))
    one = replace(plain, rule=SignStep(alpha), settled=1.0)
    outcomes = [engine.run(each, model, goal, batch_size=N) for each in (plain, one)]
    assert differing_fields(*outcomes) in ([], ["settled"])


def test_a_rung_begins_at_the_best_theta_with_a_rule_at_rest(model: Classifier, goal: Goal) -> None:
    """As an attack of its own would that starts there."""
    steady = {"weights": {"map": Constant(20.0)}, "prediction": CrossEntropy(), "settled": 0.0, "warm_start": None}
    ladder = attack(CAM(), rule=MomentumSignStep(Constant(2 / 255)), rungs=(4, 2), **steady)
    second = replace(ladder, rungs=(2,))
    first = engine.run(replace(ladder, rungs=(4,)), model, goal, batch_size=N)
    ((_, expected),) = engine.stream(second, model, goal, batch_size=N, start=first.theta)
    outcome = engine.run(ladder, model, goal, batch_size=N)
    better = rank_of(second, model, goal, expected.theta) <= rank_of(second, model, goal, first.theta)
    expected_theta = rows.where(better, expected.theta, first.theta)
    assert torch.equal(outcome.theta, expected_theta)
    assert not torch.equal(outcome.theta, first.theta)


def test_a_rung_may_begin_where_the_first_one_did(model: Classifier, goal: Goal) -> None:
    rule = Recorded()
    ladder = attack(CAM(), rule=rule, rungs=(2, 2), settled=0.0, afresh=True)
    engine.run(ladder, model, goal, batch_size=N)
    assert len(rule.path) == 4
    assert torch.equal(rule.path[0], rule.path[2])
    assert not torch.equal(rule.path[0], rule.path[1])


@dataclass(frozen=True)
class Unfinished:
    """A term that has done its work on every other image."""

    name: str = "unfinished"
    weight: float = 1.0
    settled: float = 0.5

    def __call__(
        self, classifier: Classifier, belief: Any, reading: Reading, x: Images, goal: Goal, step: Labels
    ) -> Row:
        return (torch.arange(len(x)) % 2).to(x.dtype)


def test_extra_terms_must_have_done_their_work_too(model: Classifier, goal: Goal) -> None:
    ladder = attack(CAM(), rungs=(2, 2), settled=1.0, confidence=0.0, warm_start=None, extra_terms=(Unfinished(),))
    outcome = engine.run(ladder, model, met(model, goal, 1.0), batch_size=N)
    assert outcome.steps.tolist() == [2 if i % 2 == 0 else 4 for i in range(N)]


def test_the_warm_starts_best_iterate_is_where_the_attack_begins(model: Classifier, goal: Goal) -> None:
    rule = Recorded()
    warmed = attack(CAM(), rule=rule)
    engine.run(warmed, model, goal, batch_size=N)
    assert torch.equal(rule.path[0], engine.run(warmed.warm_start, model, goal, batch_size=N).theta)


def test_no_steps_return_the_start(model: Classifier, goal: Goal) -> None:
    outcome = engine.run(attack(CAM(), rungs=(0,), warm_start=None), model, goal, batch_size=2)
    assert torch.equal(outcome.image, goal.image)
    assert outcome.steps.tolist() == [0] * N


@pytest.mark.parametrize("batch_size", [1, 2, N, 8])
def test_the_stream_yields_every_image_once_as_soon_as_it_is_done(
    model: Classifier, goal: Goal, batch_size: int
) -> None:
    goal = met(model, goal)
    stopping = attack(CAM(), rungs=(2, 2, 2), settled=1.0, confidence=0.0, warm_start=None)
    whole = engine.run(stopping, model, goal, batch_size)
    seen: list[int] = []
    for index, outcome in engine.stream(stopping, model, goal, batch_size):
        assert differing_fields(outcome, rows.take(whole, index)) == []
        seen += index.tolist()
    assert sorted(seen) == list(range(N))
    if batch_size == 2:
        assert seen != list(range(N)), "images that finish early must not wait for their neighbours"


@dataclass(frozen=True)
class Belief:
    """How often the attacker has looked at each image since its belief began."""

    looks: Labels


@dataclass(frozen=True)
class Counting:
    """Blind with a belief that counts; remembers every belief it was asked to read with."""

    read_with: list[list[int]] = field(default_factory=list)
    name: str = "counting"

    def explain(self, model: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return Blind().explain(model, x, y, keys)

    def begin(self, model: Classifier, x: Images, y: Labels, keys: Keys) -> Belief:
        return Belief(torch.zeros_like(keys))

    def advance(self, model: Classifier, belief: Belief, x: Images, y: Labels) -> Belief:
        return Belief(belief.looks + 1)

    def read(self, model: Classifier, belief: Belief, x: Images, y: Labels) -> Reading:
        self.read_with.append(belief.looks.tolist())
        return Blind().read(model, Blind().begin(model, x, y, y), x, y)


def test_beliefs_advance_every_step_and_begin_anew_every_quantum(model: Classifier, goal: Goal) -> None:
    interpreter = Counting()
    engine.run(attack(interpreter, rungs=(5,), quantum=3, warm_start=None), model, goal, batch_size=N)
    assert interpreter.read_with == [[k] * N for k in (1, 2, 3, 1, 2)]


class Moody(nn.Module):
    """Gives no number for images whose first pixel is black."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network("densenet")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) / (x[:, 0, 0, 0] > 0).float()[:, None].sqrt()


class _Asked(TorchDispatchMode):
    """Counts what the host must wait for the device for: a number read out, or a shape that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if masked or str(func).split(".")[1] in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"):
            self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FEW)
def test_no_step_waits_for_the_device(model: Classifier, name: str, rule: str) -> None:
    interpreter = interpreter_of(name, model)
    goal, chosen = a_goal(model, interpreter, images(N)), attack(interpreter, rungs=(2, 3), quantum=4, **RULES[rule])
    slots = engine._fresh(chosen, model, goal, torch.zeros_like(goal.image), list(range(N)))
    slots = replace(slots, step=torch.tensor([0, 1, *[2] * (N - 2)]))
    with _Asked() as asked:
        moved = engine._quantum(chosen, model, slots, lambda live: None)
    assert asked.operations == []
    assert moved.step.tolist() == [2, 2, *[5] * (N - 2)]


def test_an_image_without_numbers_disturbs_no_other() -> None:
    moody, calm = Classifier(Moody(), (0.0,) * 3, (1.0,) * 3), Classifier(network("densenet"), (0.0,) * 3, (1.0,) * 3)
    x = images(N)
    goal = a_goal(calm, GRAD(), x)
    x[2, 0, 0, 0] = 0
    still = attack(GRAD(), rule=SignStep(Constant(0.0)), warm_start=None)
    outcome = engine.run(still, moody, replace(goal, image=x), batch_size=3)
    expected = engine.run(still, calm, goal, batch_size=3)
    others = torch.tensor([0, 1, 3, 4])
    assert differing_fields(rows.take(outcome, others), rows.take(expected, others)) == []
    assert outcome.steps.tolist() == [6] * N
    assert not outcome.success[2], "NaN has its largest number at class 0, which may be the target"


@pytest.mark.parametrize("batch_size", [2, 3, 4, 12])
@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_progress_counts_what_was_done_and_what_is_left(model: Classifier, batch_size: int, share: float) -> None:
    goal = met(model, a_goal(model, CAM(), images(9)), share)
    stopping = attack(CAM(), rungs=(2, 3), settled=1.0, confidence=0.0, warm_start=None)
    reports: list[Progress] = []
    outcome = engine.run(stopping, model, goal, batch_size, on_step=reports.append)
    last = reports[-1]
    assert (last.images, last.successes) == (9, int(outcome.success.sum()))
    assert last.steps == last.planned_steps == int(outcome.steps.sum())
    for before, after in pairwise(reports):
        assert before.images <= after.images
        assert before.steps <= after.steps
        assert before.planned_steps >= after.planned_steps


def test_a_start_outside_the_budget_is_projected_into_it(model: Classifier, goal: Goal) -> None:
    within = Attack("pgd", Blind(), Pixels(0.01), SignStep(Constant(0.001)), rungs=(1,))
    outcome = engine.run(within, model, goal, batch_size=2, start=torch.full_like(goal.image, 0.5))
    assert float(linf(outcome.image, goal.image).max()) <= 0.01 + 1e-6


def test_the_last_fifth_of_the_steps_is_told_apart(model: Classifier, goal: Goal) -> None:
    def after(steps: int) -> Outcome:
        plain = Attack("pgd", Blind(), Pixels(0.1), SignStep(Constant(0.004)), rungs=(steps,), quantum=3)
        return engine.run(plain, model, goal, batch_size=2)

    whole = after(10)
    assert torch.equal(whole.closest_before, after(8).closest)
    assert (whole.closest <= whole.closest_before).all()
    assert (whole.closest < whole.closest_before).any()
