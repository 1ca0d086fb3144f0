"""Which of the interpreters that were asked for can explain the classifier at all, before anything is computed.

settings, notes = suited(settings, classifier, image_set)
"""

from typing import TypeVar

import torch

from underfire.attacks.names import class_blindness
from underfire.core.errors import UnderfireError
from underfire.data.class_names import first_picture
from underfire.data.image_set import ImageSet
from underfire.interpreters.protocol import check_suited, remarks_on
from underfire.models.classifier import Classifier
from underfire.runs.settings import Explained

N = TypeVar("N", bound=Explained)


def suited(settings: N, classifier: Classifier, image_set: ImageSet) -> tuple[N, list[str]]:
    """The settings without the interpreters that the network is not made for, and a note on each.

    Those that explain no class get a note, too, and others' explanations one on how an attacker follows them.
    Where none would be left all stay, for the run to say what is wrong with the first.
    """
    picture = first_picture(image_set)
    if picture is None:
        return settings, []
    x, impossible, remarks = picture[None].to(classifier.device), dict[str, str](), list[str]()
    for name, interpreter in zip(settings.interpreters, settings.explainers(), strict=True):
        try:
            with torch.no_grad():
                check_suited(interpreter, classifier, x)
                remarks += remarks_on(interpreter, classifier, x)
        except UnderfireError as problem:
            impossible[name] = f"Left out: {name}. {problem}"
    left = tuple(name for name in settings.interpreters if name not in impossible)
    remarks += [note for name in left for note in class_blindness(name)]
    if not impossible or not left:
        return settings, remarks
    given = {**settings.model_dump(exclude_unset=True), "interpreters": left}
    return type(settings).model_validate(given), [*impossible.values(), *remarks]
