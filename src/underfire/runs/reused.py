"""The images of a run folder as images to begin from, as they are stored: floats of the size that the model saw.

photos = images_of_run("runs/x")                          # the benign ones, with their labels
attacked = attacked_of_run("runs/x:adv2:cam")             # what an attack made of them
"""

from dataclasses import replace
from pathlib import Path

import torch

from underfire.core.errors import UnderfireError
from underfire.data.decode import TensorSource
from underfire.data.image_set import ImageSet
from underfire.data.names import PREDICTED
from underfire.runs.folder import Run, open_run

BENIGN = "benign"


def is_run(path: str) -> bool:
    """Whether a folder is that of a run."""
    return (Path(path) / "run.json").is_file()


def images_of_run(path: str, labels: str | None = None, split: str | None = None) -> ImageSet:
    """The chosen images of a run, in their order, with its labels unless they are to be predicted.

    UnderfireError if it holds none, or if other labels or a part of it are asked for.
    """
    for option, given in (("labels", None if labels == PREDICTED else labels), ("split", split)):
        if given is not None:
            raise UnderfireError(f"{path} is a run folder, whose images are chosen and labelled: leave out --{option}.")
    run = open_run(path)
    image_set = _image_set(run, BENIGN, None)
    if labels == PREDICTED:
        return image_set.unlabelled()
    stage = next(each["key"] for each in run.info["stages"] if (each["kind"], each["attack"]) == ("image", BENIGN))
    return replace(image_set, labels=run.store.read(stage, "label", image_set.ids))


def attacked_of_run(named: str) -> ImageSet:
    """The images of RUN:ATTACK[:INTERPRETER], or of the only attack of RUN; UnderfireError says which there are."""
    path, wanted = _parts(named)
    run = open_run(path)
    made = [
        (each["attack"], each["interpreter"])
        for each in run.info.get("stages", ())
        if each["kind"] == "image" and each["attack"] != BENIGN
    ]
    fitting = [pair for pair in made if wanted in ("", pair[0], _joined(*pair))]
    if len(fitting) != 1:
        there = ", ".join(_joined(path, *pair) for pair in made) or "another run"
        raise UnderfireError(f"{named} names {len(fitting)} attacks of that run: give one of {there}.")
    return _image_set(run, *fitting[0]).unlabelled()


def _parts(named: str) -> tuple[str, str]:
    """A run folder and what is named in it; both may hold colons."""
    parts = named.split(":")
    for end in range(len(parts), 0, -1):
        if is_run(path := ":".join(parts[:end])):
            return path, ":".join(parts[end:])
    raise UnderfireError(f"There is no {named}: give a folder of images, an .npz, or RUN:ATTACK[:INTERPRETER].")


def _joined(*names: str | None) -> str:
    return ":".join(filter(None, names))


def _image_set(run: Run, attack: str, interpreter: str | None) -> ImageSet:
    ids, images = run.images(attack, interpreter)
    labels, classes = torch.zeros(len(ids), dtype=torch.int64), tuple(run.info.get("classes", ()))
    return ImageSet(ids, labels, classes, TensorSource(torch.from_numpy(images)))
