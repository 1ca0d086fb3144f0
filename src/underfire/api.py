"""Attacks on tensors, in the field's own calling convention.

model  = Classifier.load("torchvision:resnet50", weights="DEFAULT")
attack = adv2(model, CAM(), eps=8 / 255)
result = attack(images, target=classes)      # result.adversarial, result.success, result.map_l1
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from underfire import engine, presets, rng
from underfire.attack import Attack
from underfire.classifiers import Classifier
from underfire.images import check_images
from underfire.interpreters import Blind, Interpreter
from underfire.metrics import linf, map_l1
from underfire.targets import check_targets, random_class
from underfire.types import Flags, Goal, Images, Labels, Maps, Row, UnderfireError


@dataclass(frozen=True)
class Result:
    """One row per image. Maps come from the deployed interpreter; everything is measured on `adversarial`.

    `maps` explain the target class, `target_map` is what they were to look like, map_l1 their distance.
    """

    adversarial: Images
    maps: Maps
    target: Labels
    target_map: Maps
    predicted: Labels
    success: Flags
    confidence: Row  # p of the target class
    map_l1: Row
    linf: Row


@dataclass(frozen=True)
class Attacker:
    """An attack bound to a classifier and the interpreter that judges it."""

    classifier: Classifier
    attack: Attack
    interpreter: Interpreter
    seed: int = 0
    batch: int = 16

    def __call__(self, images: Images, target: Labels | None = None, target_map: Maps | None = None) -> Result:
        """Attack N images in [0, 1]; results lie on the images' device.

        target: a class other than the predicted one for each image, by default a random one.
        target_map: maps in [0, 1] on the interpreter's grid, by default the benign maps of the predicted classes.
        UnderfireError for images, classes or maps that do not fit.
        """
        with torch.inference_mode(False), torch.no_grad():
            x0 = check_images(images).detach().clone().to(self.classifier.device)
            logits = self.classifier(x0).logits
            labels, classes = logits.argmax(1), logits.shape[1]
            keys = rng.image_keys(map(str, range(len(x0)))).to(x0.device)
            if target is None:
                target = random_class(labels, classes, keys, self.seed)
            target = check_targets(target, labels, classes)
            benign = self.interpreter.explain(self.classifier, x0, labels, keys)
            goal_map = benign if target_map is None else _check_maps(target_map, benign)
            result = self._run(x0, target, goal_map, keys)
        return Result(**{name: value.to(images.device) for name, value in vars(result).items()})

    def _run(self, x0: Images, target: Labels, target_map: Maps, keys: Labels) -> Result:
        goal = Goal(keys, x0, target, target_map)
        with torch.enable_grad():
            outcome = engine.run(self.attack, self.classifier, goal, min(self.batch, len(x0)))
        maps = self.interpreter.explain(self.classifier, outcome.image, target, keys)
        return Result(
            adversarial=outcome.image,
            maps=maps,
            target=target,
            target_map=target_map,
            predicted=outcome.predicted,
            success=outcome.success,
            confidence=outcome.confidence,
            map_l1=map_l1(maps, target_map),
            linf=linf(outcome.image, x0),
        )


def pgd(
    classifier: Classifier,
    interpreter: Interpreter | None = None,
    *,
    eps: float | None = None,
    recipe: str = "annealed",
    steps: int | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """Plain PGD; the interpreter, if given, only measures its maps."""
    attack = presets.pgd(eps=eps, recipe=recipe, steps=steps)
    return Attacker(classifier, attack, interpreter or Blind(), seed, batch)


def adv2(
    classifier: Classifier,
    interpreter: Interpreter,
    *,
    eps: float | None = None,
    recipe: str = "annealed",
    steps: int | None = None,
    map_weight: float | None = None,
    seed: int = 0,
    batch: int = 16,
) -> Attacker:
    """ADV2 on PGD against the classifier and one interpreter."""
    attack = presets.adv2(interpreter, eps=eps, recipe=recipe, steps=steps, map_weight=map_weight, seed=seed)
    return Attacker(classifier, attack, interpreter, seed, batch)


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
