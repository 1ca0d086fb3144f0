"""AID: train a masker that tells attacked images from benign ones (Eq. 15 and 16).

    init = RTS.load("masker.safetensors")
    recipe = recipe_for(init.masker, steps=400)
    defended = train_aid(classifier, init, training_set, recipe, Path("masker-aid.safetensors"))

Steps on Eq. 15 (= Eq. 8, see `underfire.training.rts`) and on the defence (see `underfire.training.adversary`)
take turns:

    distillation    weight l_aid + fidelity l_fid                       (Eq. 16)
    augmentation    Eq. 15 on A(x) + fidelity l_fid                     the plain baseline

A(x) are images of a pool, looked at as they are. Whenever an image comes up, or every `refresh` times, its attack goes
on against the masker of that moment from where it stopped. At each check the attack is run anew, for longer, on a few
held-out images; one row of numbers per check goes to a CSV file beside the masker.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from underfire.core.types import Images, Labels, Maps, Row
from underfire.interpreters import RTS
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier
from underfire.models.copying import fingerprint
from underfire.models.masker import Masker, MaskerNetwork
from underfire.runs.compute import in_one_sentence
from underfire.runs.dispatch import Crew
from underfire.training.adversary import Adversary, Alternation, AttackBatch, distillation, excess_drift, rank
from underfire.training.dataset import Batch, TrainingSet, split
from underfire.training.log import Curves
from underfire.training.loop import shuffled
from underfire.training.recipes import AidRecipe
from underfire.training.rts import (
    FeatureExtractor,
    MaskerTask,
    Scores,
    eq8,
    finished,
    follow,
    identify,
    masks_of,
    measure,
    moving,
)

CURVES = ("step", "drift", "separation", "success", "area", "kept", "removed", "localisation_error")
INHERITED = ("width", "roughness", "area", "removed", "power")  # of the recipe of the masker that is defended


def recipe_for(init: Masker, **values: Any) -> AidRecipe:
    """The recipe that goes on with the weights of Eq. 8 under which the masker was trained."""
    held = init.manifest.training
    return AidRecipe.model_validate({**{name: held[name] for name in INHERITED if name in held}, **values})


def train_aid(
    classifier: Classifier,
    init: RTS,
    training_set: TrainingSet,
    recipe: AidRecipe,
    out: Path,
    on_step: Callable[[int, float], None] | None = None,
    crew: Crew | None = None,
) -> Masker:
    """Train, judge and write a defended masker, going on from its checkpoint; one that is already there is only read.

    A crew runs the attacks, which are most of the work, in place of this process.

    UnderfireError if `out` holds another masker, or if `init` is for another classifier.
    """
    encoder = init.masker.manifest.encoder
    extractor = FeatureExtractor(classifier, init.encoder, (encoder.reference, encoder.weights, encoder.normalize))
    identity = {**identify(extractor, training_set, recipe), "made_from": init.digest}
    if out.exists():
        return finished(out, identity)
    fitted, judged = split(training_set.ids, recipe.held_out, recipe.seed)
    first = training_set.batch(fitted[:1], classifier.device)
    with in_one_sentence(f"The model failed on images of {'×'.join(map(str, first.images.shape[:1:-1]))} pixels"):
        init.explain(classifier, first.images, torch.zeros_like(first.keys), first.keys)
    objective = AidObjective(extractor, init, recipe, crew)
    network = copy.deepcopy(init.masker.network).to(classifier.device).requires_grad_(True)
    batches = AidBatches(objective, network, training_set, fitted)
    validator = AidValidator(objective, training_set, judged, out.with_suffix(".csv"))
    training = {**identity, "size": list(first.images.shape[2:])}
    task = MaskerTask(
        identity,
        init.masker.manifest.model_copy(update={"training": training}),
        batches,
        lambda network, batch: batch(network),
        validator.judge,
        validator.scores,
        {"theta": batches.theta, "curves": validator.curves.rows},
    )
    return follow(task, network, recipe, out, on_step)


# --- one step ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Benign images and what the adversary has made of them."""

    benign: Batch
    attack_batch: AttackBatch
    attacked: Images


@dataclass(frozen=True)
class AidObjective:
    """What both kinds of steps minimise."""

    extractor: FeatureExtractor
    original: RTS
    recipe: AidRecipe
    crew: Crew | None = None

    @property
    def adversary(self) -> Adversary:
        recipe = self.recipe
        return Adversary(self.extractor.classifier, recipe.eps, recipe.seed, recipe.attack_batch, self.crew)

    def as_it_is(self, network: MaskerNetwork) -> RTS:
        """The masker of this moment as an interpreter of its own; the network is only copied."""
        frozen = copy.deepcopy(network).requires_grad_(False).eval()
        digest = fingerprint(frozen)
        return RTS(digest, Masker(self.original.masker.manifest, frozen, digest), self.original.encoder)

    def plain(self, network: MaskerNetwork, batch: Batch) -> Row:
        """Eq. 15."""
        encoder = self.original.masker.manifest.encoder
        return self.recipe.total(eq8(self.extractor, encoder, network, batch, self.recipe))

    def defending(self, network: MaskerNetwork, pairs: Pairs) -> Row:
        """The defence's loss, and what the drift of the benign maps costs."""
        maps = self.maps(network, pairs.attack_batch.image, pairs.attack_batch.label)
        with torch.no_grad():
            original = self.maps(self.original.masker.network, pairs.attack_batch.image, pairs.attack_batch.label)
        loss = DEFENCES[self.recipe.defence](self, network, maps, pairs)
        return loss + self.recipe.fidelity * excess_drift(maps, original, self.recipe.drift)

    def maps(self, network: MaskerNetwork, x: Images, y: Labels) -> Maps:
        """Differentiable in the network's weights."""
        _, features, _ = self.extractor(x, self.original.masker.manifest.encoder.layers)
        return masks_of(network, features, y, x)


def _distil(objective: AidObjective, network: MaskerNetwork, maps: Maps, pairs: Pairs) -> Row:
    attacked = objective.maps(network, pairs.attacked, pairs.attack_batch.target)
    return objective.recipe.weight * distillation(maps, attacked, objective.recipe.margin)


def _augment(objective: AidObjective, network: MaskerNetwork, maps: Maps, pairs: Pairs) -> Row:
    return objective.plain(network, Batch(pairs.attacked, pairs.benign.keys, step=pairs.benign.step))


DEFENCES: Mapping[str, Callable[[AidObjective, MaskerNetwork, Maps, Pairs], Row]] = MappingProxyType(
    {"distillation": _distil, "augmentation": _augment}
)

StepLoss = Callable[[MaskerNetwork], Row]


class AidBatches:
    """Step -> what it minimises; `theta` is what has become of each image of the pool."""

    def __init__(
        self, objective: AidObjective, network: MaskerNetwork, training_set: TrainingSet, fitted: Labels
    ) -> None:
        self.objective, self.network, self.training_set = objective, network, training_set
        recipe, self.device = objective.recipe, objective.extractor.classifier.device
        self.turns = Alternation(recipe.plain_steps, recipe.defending_steps)
        self.moving = moving(training_set, fitted, recipe, self.device)
        size = min(recipe.batch, recipe.pool, len(fitted))
        self.pool = fitted[: min(recipe.pool, len(fitted)) // size * size]  # so that an epoch visits all
        self.visits = len(self.pool) // size
        self.order = shuffled(len(self.pool), size, recipe.seed)
        self.theta = torch.zeros(len(self.pool), *training_set.pixels.shape[1:])

    def __call__(self, step: int) -> StepLoss:
        turn = self.turns(step)
        if not turn.defends:
            batch = self.moving(turn.count)
            return lambda network: self.objective.plain(network, batch)
        pairs = self.pairs(turn.count)
        return lambda network: self.objective.defending(network, pairs)

    def pairs(self, count: int) -> Pairs:
        """The images of this visit, attacked as they come up for the first time and every `refresh` visits."""
        adversary, recipe = self.objective.adversary, self.objective.recipe
        epoch, place = count // self.visits, self.order(count)
        benign = self.training_set.batch(self.pool[place], self.device)
        attack_batch = adversary.batch_of(benign.images, benign.keys)
        if epoch % recipe.refresh == 0:
            start = adversary.warm_up(attack_batch) if epoch == 0 else self.theta[place].to(self.device)
            interpreter = self.objective.as_it_is(self.network)
            self.theta[place] = adversary.attack(interpreter, attack_batch, recipe.attack_steps, start).theta.cpu()
        attacked = adversary.decode(attack_batch, self.theta[place].to(self.device))
        return Pairs(Batch(benign.images, benign.keys, step=count), attack_batch, attacked)


# --- one check --------------------------------------------------------------------------------


class AidValidator:
    """What held-out images say of a network; `curves` holds a row of CURVES per check, the first of the original."""

    def __init__(self, objective: AidObjective, training_set: TrainingSet, judged: Labels, path: Path) -> None:
        self.objective, self.training_set, self.judged = objective, training_set, judged
        self.device = objective.extractor.classifier.device
        self.curves = Curves(CURVES, objective.recipe.steps // objective.recipe.judge_every + 2, path)

    def judge(self, network: MaskerNetwork) -> float:
        """Note the scores and rank them; lower is better."""
        if not len(self.curves):
            self._note(self.scores(self.objective.original.masker.network))
        scores = self.scores(network)
        self._note(scores)
        return rank(scores["drift"] or 0.0, scores["separation"] or 0.0, self.objective.recipe.drift)

    def scores(self, network: MaskerNetwork) -> Scores:
        """Those of any masker; how far benign maps have drifted; how far attacked images' maps are from the benign ones
        and how many attacks on the classifier succeed, the attacker knowing this network."""
        recipe, adversary = self.objective.recipe, self.objective.adversary
        interpreter, encoder = self.objective.as_it_is(network), self.objective.original.masker.manifest.encoder
        batches = list(self.training_set.batches(self.judged, recipe.batch, self.device))
        drift = torch.cat([self._drift(interpreter, batch) for batch in batches])
        attack_batch, start = self._few
        outcome = adversary.attack(interpreter, attack_batch, recipe.judge_steps, start)
        return {
            **measure(self.objective.extractor, encoder, network, iter(batches)),
            "drift": drift.mean().item(),
            "separation": self._separation(interpreter, attack_batch, outcome.image).mean().item(),
            "success": outcome.success.double().mean().item(),
        }

    @cached_property
    def _few(self) -> tuple[AttackBatch, Tensor]:
        """The images that are attacked at each check, and where the attack starts."""
        few = self.training_set.batch(self.judged[: self.objective.recipe.judged_attacks], self.device)
        attack_batch = self.objective.adversary.batch_of(few.images, few.keys)
        return attack_batch, self.objective.adversary.warm_up(attack_batch)

    def _drift(self, interpreter: RTS, batch: Batch) -> Row:
        attack_batch = self.objective.adversary.batch_of(batch.images, batch.keys)
        maps, original = (
            each.explain(self.objective.extractor.classifier, batch.images, attack_batch.label, batch.keys)
            for each in (interpreter, self.objective.original)
        )
        return map_l1(maps, original)

    def _separation(self, interpreter: RTS, attack_batch: AttackBatch, attacked: Images) -> Row:
        classifier = self.objective.extractor.classifier
        benign = interpreter.explain(classifier, attack_batch.image, attack_batch.label, attack_batch.key)
        return map_l1(interpreter.explain(classifier, attacked, attack_batch.target, attack_batch.key), benign)

    def _note(self, scores: Scores) -> None:
        recipe = self.objective.recipe
        self.curves.note(min(len(self.curves) * recipe.judge_every, recipe.steps), scores)
