"""The one loop: slots of images that are filled, run for a quantum of steps, judged, retired and refilled.

Only between quanta does the deployed interpreter judge: the best iterate of the quantum, by the
attacker's own reading, is explained and kept if it beats the best one so far; beliefs begin anew;
finished images leave their slots to waiting ones. Where a rung of the attack's effort ends, images that
are settled are finished, and the others go on from the best iterate of all, or begin afresh. The number of slots never
changes within a run, so an image's result does not depend on which images share the batch.

The dice of an interpreter that draws are the attacker's own: the loop derives them from the image's key, anew for
every belief, so that no choice made here has seen the draws by which the result is scored.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from underfire.attacks.attack import Attack
from underfire.core import rng, rows
from underfire.core.losses import confidence, map_distance
from underfire.core.types import Flags, Goal, Keys, Labels, Logits, Outcome, Row
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier


@dataclass(frozen=True)
class Progress:
    """How far a run is: images finished and succeeded, image-steps done of those planned."""

    images: int
    successes: int
    steps: int
    planned_steps: int


@dataclass(frozen=True)
class Iterate:
    """A theta and its rank (see `Attack.rank`): row record."""

    theta: Tensor
    rank: Row


@dataclass(frozen=True)
class Slots:
    """Everything the loop remembers of the images at work: row record."""

    goal: Goal
    start: Tensor  # the first theta
    theta: Tensor
    state: Any  # the step rule's
    belief: Any  # the interpreter's
    step: Labels
    candidate: Iterate  # best of this quantum by the attacker's reading
    best: Iterate  # best of all quanta by the deployed interpreter
    closest: Row  # the smallest rank by the attacker's reading, and that before the last fifth of the steps
    closest_before: Row


@dataclass(frozen=True)
class Paused:
    """How far some images are, at the end of a quantum: their places among the goals, and rows by name."""

    index: tuple[int, ...]
    rows: Mapping[str, Tensor]


def run(
    attack: Attack,
    classifier: Classifier,
    goal: Goal,
    batch_size: int = 16,
    on_step: Callable[[Progress], None] = lambda progress: None,
    start: Tensor | None = None,
) -> Outcome:
    """Attack all N images, `batch_size` at a time, after what must be run first; outcomes in the order of the goals.

    A `start` takes the place of the warm start; it is projected into the budget first.
    """
    if start is None and attack.warm_start is not None:
        start = run(attack.warm_start, classifier, goal, batch_size, on_step).theta
    if attack.anchor is not None:
        goal = replace(goal, anchor=run(attack.anchor, classifier, goal, batch_size, on_step).probabilities)
    indices, outcomes = zip(*stream(attack, classifier, goal, batch_size, on_step, start), strict=True)
    outcome: Outcome = rows.cat(list(outcomes))
    return rows.take(outcome, torch.cat(indices).argsort())


def stream(
    attack: Attack,
    classifier: Classifier,
    goal: Goal,
    batch_size: int = 16,
    on_step: Callable[[Progress], None] = lambda progress: None,
    start: Tensor | None = None,
    resume: Paused | None = None,
    on_quantum: Callable[[Paused], None] = lambda paused: None,
) -> Iterator[tuple[Labels, Outcome]]:
    """Yield (indices into goal, outcomes) as images finish. `start` gives each image its first theta.

    With fewer images than slots the spare slots repeat the first image, so that the batch size holds. Images to
    `resume`, as `on_quantum` was given them at the end of a quantum, go on from there.
    """
    start = attack.perturbation.init(goal.image) if start is None else start
    total = len(goal.key)
    waiting = list(range(batch_size, total))
    image_in = [slot if slot < total else 0 for slot in range(batch_size)]
    idle = set(range(total, batch_size))
    report = _Reporter(on_step, total * attack.steps)
    fill = partial(_fill, attack, classifier, goal, start, resume)
    slots = fill(image_in)
    while len(idle) < batch_size:
        working = [slot for slot in range(batch_size) if slot not in idle]
        slots = _quantum(attack, classifier, slots, partial(report.step, working))
        judged = _judge(attack, classifier, slots)
        settled = _settled(attack, classifier, judged)
        finished = (judged.step >= attack.steps) | settled
        slots = _next(attack, classifier, judged)
        done = [slot for slot in finished.nonzero()[:, 0].tolist() if slot not in idle]
        if unfinished := [slot for slot in working if slot not in done]:
            on_quantum(_pause(slots, unfinished, image_in))
        if not done:
            continue
        index = torch.tensor(done, device=classifier.device)
        outcome = rows.to(rows.take(_outcome(attack, classifier, judged, settled), index), goal.image.device)
        report.finish(outcome, attack.steps)
        yield torch.tensor([image_in[slot] for slot in done]), outcome
        refill = done[: len(waiting)]
        idle |= set(done[len(waiting) :])
        if refill:
            for slot in refill:
                image_in[slot] = waiting.pop(0)
            refilled = index[: len(refill)]
            fresh = fill(image_in)  # all slots, so that the batch size holds here too
            slots = rows.put(slots, refilled, rows.take(fresh, refilled))


def _pause(slots: Slots, chosen: list[int], image_in: list[int]) -> Paused:
    """What these slots hold beside their goals; the candidates of a quantum that ended are judged."""
    held = rows.leaves(rows.take(slots, torch.tensor(chosen, device=slots.theta.device)))
    lasting = {name: leaf for name, leaf in held.items() if not name.startswith(("goal.", "candidate."))}
    return Paused(tuple(image_in[slot] for slot in chosen), lasting)


def _fill(
    attack: Attack, classifier: Classifier, goal: Goal, start: Tensor, resume: Paused | None, chosen: list[int]
) -> Slots:
    """The slots with these images, those that were paused as they were."""
    fresh = _fresh(attack, classifier, goal, start, chosen)
    begun = [] if resume is None else [slot for slot, image in enumerate(chosen) if image in resume.index]
    if resume is None or not begun:
        return fresh
    places = torch.tensor([resume.index.index(chosen[slot]) for slot in begun])
    held = {name: leaf[places].to(classifier.device) for name, leaf in resume.rows.items()}
    index = torch.tensor(begun, device=classifier.device)
    return rows.put(fresh, index, rows.with_leaves(rows.take(fresh, index), held))


def _fresh(attack: Attack, classifier: Classifier, goal: Goal, start: Tensor, chosen: list[int]) -> Slots:
    index = torch.tensor(chosen)
    goal = rows.to(rows.take(goal, index), classifier.device)
    theta = attack.perturbation.project(goal.image, start[index].to(classifier.device))
    x = attack.image(goal, theta)
    unranked = Iterate(theta, torch.full((len(index),), torch.inf, dtype=theta.dtype, device=theta.device))
    return Slots(
        goal=goal,
        start=theta,
        theta=theta,
        state=attack.rule.init(theta),
        belief=attack.interpreter.begin(classifier, x, goal.target, _dice(goal, "belief", torch.zeros_like(goal.key))),
        step=torch.zeros_like(goal.key),
        candidate=unranked,
        best=unranked,
        closest=unranked.rank,
        closest_before=unranked.rank,
    )


def _quantum(attack: Attack, classifier: Classifier, slots: Slots, on_step: Callable[[list[bool]], None]) -> Slots:
    """Up to `attack.quantum` steps; an image whose rung ends stays where it is.

    How many each takes is asked of the device once, so that no step waits for it.
    """
    left = (attack.end_of_rung(slots.step) - slots.step).clamp_max(attack.quantum)
    counts: list[int] = left.tolist()
    for done in range(max(counts)):
        moved = _step(attack, classifier, slots)
        slots = moved if done < min(counts) else rows.where(done < left, moved, slots)
        on_step([done < count for count in counts])
    return slots


def _step(attack: Attack, classifier: Classifier, slots: Slots) -> Slots:
    goal, theta = slots.goal, slots.theta
    x = attack.image(goal, theta)
    belief = attack.interpreter.advance(classifier, slots.belief, x, goal.target)
    objective = attack.objective(classifier, goal, belief, slots.step)
    moved, state, terms = attack.rule.step(objective, theta, slots.state, slots.step)
    with torch.no_grad():
        rank = attack.rank(terms.logits, attack.exposure(terms.parts), goal.target).to(theta.dtype)
    closest, early = torch.minimum(slots.closest, rank), slots.step < attack.steps - attack.steps // 5
    return replace(
        slots,
        theta=attack.perturbation.project(goal.image, moved),
        state=state,
        belief=belief,
        step=slots.step + 1,
        candidate=_better(Iterate(theta, rank), slots.candidate),
        closest=closest,
        closest_before=torch.where(early, closest, slots.closest_before),
    )


def _judge(attack: Attack, classifier: Classifier, slots: Slots) -> Slots:
    """Rank the quantum's candidates by the maps of the attack's judges, and by what else gives them away."""
    goal, theta = slots.goal, slots.candidate.theta
    x = attack.image(goal, theta)
    with torch.no_grad():
        logits = classifier(x)
    distances = []
    for number, judge in enumerate(attack.judges or (attack.interpreter,)):
        dice = _dice(goal, "judge", torch.full_like(goal.key, number))
        distances.append(map_distance(judge.explain(classifier, x, goal.target, dice)[:, None], goal.target_map))
    parts = _extra_parts(attack, classifier, slots, theta) | {"map": torch.stack(distances).mean(0)}
    rank = attack.rank(logits, attack.exposure(parts), goal.target).to(theta.dtype)
    return replace(
        slots,
        candidate=Iterate(theta, torch.full_like(rank, torch.inf)),
        best=_better(Iterate(theta, rank), slots.best),
    )


def _next(attack: Attack, classifier: Classifier, slots: Slots) -> Slots:
    """The slots at the start of the next quantum, with beliefs anew; on a new rung the rule is at rest."""
    first = slots.start if attack.afresh else slots.best.theta
    at_rest = replace(slots, theta=first, state=attack.rule.init(first))
    slots = rows.where(attack.ends_rung(slots.step), at_rest, slots)
    x = attack.image(slots.goal, slots.theta)
    belief = attack.interpreter.begin(classifier, x, slots.goal.target, _dice(slots.goal, "belief", slots.step))
    return replace(slots, belief=belief)


def _dice(goal: Goal, purpose: str, step: Labels) -> Keys:
    """The attacker's draws for these images: one judge for the whole attack, another belief from each step on."""
    return rng.derived(goal.key, f"attacker's {purpose}", step)


def _better(new: Iterate, old: Iterate) -> Iterate:
    """The iterate with the smaller rank; of equals the later one."""
    return rows.where(new.rank <= old.rank, new, old)


def _settled(attack: Attack, classifier: Classifier, slots: Slots) -> Flags:
    """Whether an image is at the end of a rung which is not its last, and further ones have nothing to win.

    Its best iterate is then a confident success, its deployed map as close as two maps of one image are, or as
    `attack.settled`, and each extra term is at its own `settled`.
    """
    goal, best = slots.goal, slots.best
    settled = attack.ends_rung(slots.step) & (slots.step < attack.steps) & (best.rank < 1)
    if not bool(settled.any()):
        return settled
    x = attack.image(goal, best.theta)
    maps = attack.interpreter.explain(classifier, x, goal.target, _dice(goal, "last look", slots.step))
    noise = torch.zeros_like(best.rank) if goal.noise is None else goal.noise.to(best.rank.dtype)
    settled &= map_l1(maps, goal.target_map) <= noise.clamp_min(attack.settled)
    parts = _extra_parts(attack, classifier, slots, best.theta)
    for term in attack.extra_terms:
        settled &= parts[term.name] <= term.settled
    return settled


def _extra_parts(attack: Attack, classifier: Classifier, slots: Slots, theta: Tensor) -> dict[str, Row]:
    """The extra terms there, by name."""
    if not attack.extra_terms:
        return {}
    with torch.no_grad():
        parts = attack.objective(classifier, slots.goal, slots.belief, slots.step)(theta).parts
    return {term.name: parts[term.name] for term in attack.extra_terms}


def _outcome(attack: Attack, classifier: Classifier, slots: Slots, settled: Flags) -> Outcome:
    image, last = (attack.image(slots.goal, each) for each in (slots.best.theta, slots.theta))
    with torch.no_grad():
        logits, final = classifier(image), classifier(last)
    return Outcome(
        image=image,
        theta=slots.best.theta,
        probabilities=logits.softmax(1),
        predicted=logits.argmax(1),
        confidence=confidence(logits, slots.goal.target),
        success=_reports(logits, slots.goal.target),
        success_last=_reports(final, slots.goal.target),
        steps=slots.step,
        settled=settled,
        closest=slots.closest,
        closest_before=slots.closest_before,
    )


def _reports(logits: Logits, target: Labels) -> Flags:
    return (logits.argmax(1) == target) & logits.isfinite().all(1)


class _Reporter:
    """Counts steps and successes for the progress callback."""

    def __init__(self, on_step: Callable[[Progress], None], planned_steps: int) -> None:
        self._on_step, self._planned = on_step, planned_steps
        self._images = self._successes = self._steps = 0

    def step(self, working: list[int], live: list[bool]) -> None:
        self._steps += sum(live[slot] for slot in working)
        self._on_step(Progress(self._images, self._successes, self._steps, self._planned))

    def finish(self, outcome: Outcome, budget: int) -> None:
        self._images += len(outcome.steps)
        self._successes += int(outcome.success.sum())
        self._planned -= int((budget - outcome.steps).sum())
        self._on_step(Progress(self._images, self._successes, self._steps, self._planned))
