"""Attacks on tensors, in the field's own calling convention.

model  = Classifier.load("torchvision:resnet50", weights="DEFAULT")
attack = adv2(model, CAM(), eps=8 / 255)
result = attack(images, target=classes)      # result.adversarial, result.success, result.map_l1
attack(loader).save("result")                # see `underfire.attacks.result`
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from underfire.attacks import engine, solvers
from underfire.attacks.attack import Attack
from underfire.attacks.evasion import Evaded
from underfire.attacks.names import SOLVERS
from underfire.attacks.result import Result
from underfire.attacks.target_classes import RandomClass, TargetClass, check_targets
from underfire.attacks.target_maps import Pool, TargetMap, Wanted
from underfire.core import rng, rows
from underfire.core.checks import check_count, check_seed
from underfire.core.errors import UnderfireError
from underfire.core.image_ops import check_images, to_8bit
from underfire.core.types import Goal, Images, Labels, Maps, Outcome
from underfire.data.datasets import all_images
from underfire.data.regions import Inside, Region
from underfire.interpreters import Blind, Interpreter
from underfire.interpreters.protocol import REPEATED, check_maps, draws, explained, scoring_draws
from underfire.metrics.maps import DECEIVING, compare_draws, is_faint, judged, linf, map_l1
from underfire.models.classifier import Classifier
from underfire.models.outputs import check_logits


@dataclass(frozen=True)
class Attacker:
    """An attack bound to a classifier and the interpreter that judges it."""

    classifier: Classifier
    attack: Attack
    interpreter: Interpreter
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        check_wrapped(self.classifier)
        check_seed(self.seed)
        check_count("batch", self.batch)

    def __call__(
        self,
        images: "Images | DataLoader[Any] | Dataset[Any]",
        target: Labels | Sequence[int] | int | TargetClass | None = None,
        target_map: Maps | TargetMap | None = None,
        *,
        ids: Iterable[str | int] | None = None,
        region: Region | Tensor | None = None,
    ) -> Result:
        """Attack N images in [0, 1], `batch` at a time; results lie on the images' device. A DataLoader or a dataset of
        torchvision or Hugging Face is read as a whole (see `data.datasets`).

        target: the class to be reported, for each image or for all, other than the predicted one; or a rule that gives
        one. By default a random one. True labels are not asked for.
        target_map: maps in [0, 1] on the interpreter's grid, or a rule that gives them; by default the benign maps of
        the predicted classes.
        ids: a name for each image, from which all that is random is drawn; by default its place. With the same names
        a part of the images gives what all of them give.
        region: where images may be changed, Nhw or hw, or as `data.regions` describes it; by default everywhere.
        UnderfireError for images, classes or maps that do not fit.
        """
        with torch.inference_mode(False), torch.no_grad():
            x0 = check_images(all_images(images)).detach().clone()
            names = _check_ids(ids, len(x0))
            keys = rng.image_keys(names).to(x0.device)
            logits = check_logits(self._each(self.classifier, x0), names)
            labels = logits.argmax(1)
            target = RandomClass() if target is None else target
            if isinstance(target, TargetClass):
                target = target.choose(names, labels, logits, self.seed)
            target = check_targets(target, labels, logits.shape[1])
            benign = self._explain(x0, labels, names, 0)
            if isinstance(target_map, TargetMap):
                target_map, _ = target_map.maps(Wanted(keys, target, Pool(keys, labels, benign)), self.seed)
            goal_map = benign if target_map is None else _check_maps(target_map, benign)
            noise = map_l1(benign, self._explain(x0, labels, names, REPEATED)) if draws(self.interpreter) else None
            inside = _inside(region, names, x0)
            with torch.enable_grad():
                goal = Goal(keys, x0, target, goal_map, noise=noise, region=inside)
                outcome = engine.run(self.attack, self.classifier, goal, min(self.batch, len(x0)))
            unattacked = self._scored(x0, labels, names) if draws(self.interpreter) else [benign]
            wanted = unattacked if target_map is None else [goal_map]
            return self._result(names, labels, goal, outcome, unattacked, wanted)

    def _result(
        self,
        names: tuple[str, ...],
        labels: Labels,
        goal: Goal,
        outcome: Outcome,
        benign: list[Maps],
        wanted: list[Maps],
    ) -> Result:
        """What is measured on the attacked images; maps are by each draw that scores."""
        maps = self._scored(outcome.image, outcome.predicted, names)
        on_file = self._each(lambda x: self.classifier(x).argmax(1), to_8bit(outcome.image))
        return Result(
            ids=names,
            images=goal.image,
            adversarial=outcome.image,
            maps=maps[0],
            benign_maps=benign[0],
            labels=labels,
            target=goal.target,
            target_map=wanted[0],
            predicted=outcome.predicted,
            success=outcome.success,
            success_8bit=on_file == goal.target,
            confidence=outcome.confidence,
            **_distances(maps, wanted, benign),
            linf=linf(outcome.image, goal.image),
        )

    def _scored(self, x: Images, y: Labels, names: tuple[str, ...]) -> list[Maps]:
        """The maps by each draw that scores."""
        return [self._explain(x, y, names, draw) for draw in scoring_draws(self.interpreter)]

    def _explain(self, x: Images, y: Labels, names: tuple[str, ...], draw: int) -> Maps:
        keys = rng.image_keys(names, draw).to(x.device)
        maps = self._each(lambda *batch: explained(self.interpreter, self.classifier, *batch), x, y, keys)
        return check_maps(self.interpreter.name, maps, names)

    def _each(self, compute: Callable[..., Tensor], *records: Tensor) -> Tensor:
        """What `compute` gives on the classifier's device, batch by batch, beside the records."""

        def there_and_back(*batch: Tensor) -> Tensor:
            return compute(*(each.to(self.classifier.device) for each in batch)).to(batch[0].device)

        return rows.by_batch(there_and_back, self.batch, *records)


def pgd(
    classifier: Classifier,
    interpreter: Interpreter | None = None,
    *,
    eps: float | None = None,
    norm: str = "linf",
    recipe: str = "annealed",
    steps: int | None = None,
    on_grid: bool = False,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """Plain PGD within eps in the norm linf or l2; the interpreter, if given, only measures its maps."""
    attack = solvers.pgd(eps=eps, norm=norm, recipe=recipe, steps=steps, on_grid=on_grid)
    return Attacker(classifier, attack, interpreter or Blind(), seed, batch)


def adv2(
    classifier: Classifier,
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    norm: str = "linf",
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Evaded] = (),
    on_grid: bool = False,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """ADV2 on PGD against the classifier and one interpreter, or an Ensemble.

    It may also evade detectors: squeezers, and `Consistency` of this interpreter or of another in closed form.

    effort is quick, standard (the default) or thorough; `steps` are taken by every image instead. on_grid keeps every
    iterate on the grid of 8 bits, so that the result is what a PNG file holds.
    """
    attack = solvers.adv2(
        interpreter,
        eps=eps,
        norm=norm,
        recipe=recipe,
        effort=effort,
        steps=steps,
        map_weight=map_weight,
        evade=evade,
        on_grid=on_grid,
        seed=seed,
    )
    return Attacker(classifier, attack, attack.interpreter, seed, batch)


def stadv(
    classifier: Classifier,
    interpreter: Interpreter | None = None,
    *,
    recipe: str = "annealed",
    steps: int | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """Plain StAdv, which bends the image; the interpreter, if given, only measures its maps."""
    return Attacker(classifier, solvers.stadv(recipe=recipe, steps=steps), interpreter or Blind(), seed, batch)


def adv2_stadv(
    classifier: Classifier,
    interpreter: Interpreter,
    *,
    recipe: str = "annealed",
    effort: str | None = None,
    steps: int | None = None,
    map_weight: float | None = None,
    evade: Sequence[Evaded] = (),
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """ADV2 on StAdv against the classifier and one interpreter, or an Ensemble; it may evade detectors, as `adv2`."""
    attack = solvers.adv2_stadv(
        interpreter, recipe=recipe, effort=effort, steps=steps, map_weight=map_weight, evade=evade, seed=seed
    )
    return Attacker(classifier, attack, attack.interpreter, seed, batch)


def square(
    classifier: Classifier,
    interpreter: Interpreter | None = None,
    *,
    eps: float | None = None,
    queries: int | None = None,
    on_grid: bool = False,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """Square, which asks for logits and follows no gradient; the interpreter, if given, only measures its maps."""
    attack = solvers.plain(SOLVERS["square"], queries=queries, on_grid=on_grid, eps=eps)
    return Attacker(classifier, attack, interpreter or Blind(), seed, batch)


def adv2_square(
    classifier: Classifier,
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    effort: str | None = None,
    queries: int | None = None,
    map_weight: float | None = None,
    on_grid: bool = False,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """ADV2 by queries: asks for logits and deployed maps, and follows no gradient."""
    asked: dict[str, Any] = {"effort": effort, "queries": queries, "map_weight": map_weight, "eps": eps}
    attack = solvers.map_aware(SOLVERS["square"], interpreter, on_grid=on_grid, **asked)
    return Attacker(classifier, attack, interpreter, seed, batch)


def check_wrapped(model: object) -> None:
    """UnderfireError unless it is a Classifier."""
    if not isinstance(model, Classifier):
        raise UnderfireError(
            f"Attacks must know how images are normalised, which a {type(model).__name__} does not say; "
            "wrap it: underfire.Classifier(net, mean=..., std=...)."
        )


def _distances(maps: list[Maps], wanted: list[Maps], benign: list[Maps]) -> dict[str, Any]:
    """From the maps that they should look like, by which they are judged, and from the benign ones."""
    found, noise = compare_draws(maps, wanted), compare_draws(benign, benign)["map_l1"]
    judgement = judged(found["map_l1"], found["iou_mean"], noise, is_faint(wanted[0]))
    return {
        "map_l1": found["map_l1"],
        "iou": found["iou_mean"],
        "plausible": torch.tensor([each in DECEIVING for each in judgement], device=noise.device),
        "benign_l1": compare_draws(maps, benign)["map_l1"],
    }


def _check_ids(ids: Iterable[str | int] | None, images: int) -> tuple[str, ...]:
    """A name for each image."""
    names = tuple(map(str, range(images) if ids is None else ids))
    if isinstance(ids, str) or len(names) != images or len(set(names)) < images:
        raise UnderfireError(f"ids= takes as many different names as there are images, here {images}.")
    return names


def _inside(region: Region | Tensor | None, names: tuple[str, ...], x0: Images) -> Inside | None:
    """Where each image may be changed; None for everywhere."""
    height, width = x0.shape[2:]
    if region is None:
        return None
    if not isinstance(region, Tensor):
        return region.inside(names, height, width).to(x0.device)
    if region.dtype != torch.bool or region.shape not in ((height, width), (len(x0), height, width)):
        raise UnderfireError(
            f"The region is {region.dtype} of shape {tuple(region.shape)}; it must be bool, ({height}, {width}) or one "
            "such mask for each image."
        )
    return region.to(x0.device).expand(len(x0), height, width)


def _check_maps(maps: Tensor, benign: Maps) -> Maps:
    if not isinstance(maps, Tensor):
        raise UnderfireError(f"The target maps must be a tensor, not {type(maps).__name__}.")
    if maps.shape != benign.shape:
        raise UnderfireError(
            f"The target maps have shape {tuple(maps.shape)}; this interpreter's maps have {tuple(benign.shape)}."
        )
    if not bool(((maps >= 0) & (maps <= 1)).all()):
        raise UnderfireError("The target maps must lie in [0, 1]; normalise them first.")
    return maps.detach().to(benign)
