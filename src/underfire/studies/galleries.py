"""Galleries of a run's images and maps in the paper's composition, and what they are put together from."""

from collections.abc import Callable

import torch

from underfire.attacks.names import attack_name, interpreter_name
from underfire.runs.folder import Run
from underfire.studies.averages import Averages
from underfire.studies.figures import Drawing, Panel, gallery

SAMPLES = 3  # images in a gallery


def samples(run: Run) -> list[str]:
    """The first images on which most attacks succeeded, in the order of the run."""
    outcomes = run.outcomes()
    successes: dict[str, int] = {}
    for name, success in zip(outcomes["id"].to_pylist(), outcomes["success"].to_pylist(), strict=True):
        successes[name] = successes.get(name, 0) + bool(success)
    order = list(successes)
    return sorted(sorted(order, key=lambda name: -successes[name])[:SAMPLES], key=order.index)


def image(run: Run, id: str, attack: str = "benign", interpreter: str | None = None) -> Panel:
    """One image, as the attack left it."""
    return torch.from_numpy(run.images(attack, interpreter, only=(id,))[1][0])


def map_of(run: Run, id: str, attack: str, interpreter: str) -> Panel:
    """One map of the image that the attack left, or the target map."""
    return torch.from_numpy(run.maps(attack, interpreter, only=(id,))[1][0])


def by_attack(run: Run, means: Averages) -> Drawing:
    """For each image a row benign and a row per attack: the image, then every interpreter's map.

    ADV2 has another image for every interpreter, so none is shown.
    """
    rows = []
    for id in samples(run):
        for attack in ("benign", *means.basic):
            shown = image(run, id, attack) if attack in ("benign", *means.plain) else None
            rows.append((attack_name(attack), [shown, *(map_of(run, id, attack, name) for name in means.interpreters)]))
    return gallery(["input", *means.headings], rows)


def above_adversarial(
    run: Run, interpreters: list[str], kind: str, image_of: Callable[[Run, str], Panel] = image
) -> Drawing:
    """For each image a row of maps of that kind, and below them those of ADV2; its image is the first interpreter's."""
    rows = []
    for id in samples(run):
        adversarial = image(run, id, "adv2", interpreters[0])
        for attack, shown in ((kind, image_of(run, id)), ("adv2", adversarial)):
            rows.append((attack_name(attack), [shown, *(map_of(run, id, attack, name) for name in interpreters)]))
    return gallery(["input", *map(interpreter_name, interpreters)], rows)
