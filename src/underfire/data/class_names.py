"""Which class of a classifier a name means, and image sets whose labels are the classifier's own.

    photos = for_classifier(open_images("photos"), classifier)      # labels are the classifier's class indices
    photos = with_classes_of(open_images("photos"), ("mel", "nv"), count=2)

Names are the same whatever their case, spaces, hyphens and underscores. WordNet ids stand for ImageNet's names, and the
diagnoses of HAM10000 for their abbreviations.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import torch

from underfire.core.errors import UnderfireError
from underfire.data.decode import Picture
from underfire.data.image_set import ImageSet, Numbering, UnreadableImage
from underfire.models.classifier import Classifier

_SHOWN = 8  # names of a list in a sentence
_DIAGNOSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "akiec": (
            "actinic keratoses and intraepithelial carcinoma",
            "actinic keratoses",
            "actinic keratosis",
            "intraepithelial carcinoma",
            "Bowen's disease",
        ),
        "bcc": ("basal cell carcinoma",),
        "bkl": ("benign keratosis-like lesions", "benign keratosis-like lesion", "benign keratosis"),
        "df": ("dermatofibroma", "dermatofibromas"),
        "mel": ("melanoma", "melanomas"),
        "nv": ("melanocytic nevi", "melanocytic nevus", "nevus", "nevi"),
        "vasc": ("vascular lesions", "vascular lesion"),
    }
)


class ClassNames:
    """The names of a classifier's classes, in their order."""

    def __init__(self, names: Sequence[str]) -> None:
        self._tiers: list[dict[str, set[int]]] = [{}, {}, {}, {}, {}]
        for index, name in enumerate(names):
            for tier, spellings in zip(self._tiers, _spellings(name), strict=True):
                for spelling in spellings:
                    tier.setdefault(spelling, set()).add(index)

    def index(self, name: str) -> int | None:
        """The class that a name means: as written, spelt otherwise, or by a synonym; None if none or several."""
        for tier, spellings in zip(self._tiers, _spellings(name), strict=True):
            found = set[int]().union(*(tier.get(spelling, set()) for spelling in spellings))
            if found:
                return found.pop() if len(found) == 1 else None
        return None


def _spellings(name: str) -> tuple[set[str], ...]:
    """What may stand for a name, what is closest to it first: a name may be several, separated by commas."""
    first = name.partition(",")[0]
    parts = {_plain(part) for part in (name, *name.split(","))} - {""}
    synonyms = {abbreviation for part in parts if (abbreviation := _abbreviations().get(part))}
    wnid = re.match(r"n\d{8}(?!\d)", name)
    of_wnid = {imagenet_names()[imagenet_wnids()[wnid[0]]]} if wnid and wnid[0] in imagenet_wnids() else set[str]()
    return {name} | of_wnid, {_plain(name)}, {first}, {_plain(first)} | synonyms, parts | synonyms


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


@cache
def _abbreviations() -> Mapping[str, str]:
    return {_plain(name): short for short, names in _DIAGNOSES.items() for name in (short, *names)}


@cache
def imagenet_wnids() -> Mapping[str, int]:
    """The class of each WordNet id of ImageNet, in the standard order."""
    lines = files("underfire.data").joinpath("imagenet_wnids.txt").read_text(encoding="utf-8").split()
    return {wnid: index for index, wnid in enumerate(lines)}


@cache
def imagenet_names() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, as torchvision's weights bring them."""
    from torchvision.models import AlexNet_Weights

    return tuple(AlexNet_Weights.DEFAULT.meta["categories"])


# --- labels ---------------------------------------------------------------------------------


def for_classifier(image_set: ImageSet, classifier: Classifier) -> ImageSet:
    """The images with the classifier's own class indices; UnderfireError as `with_classes_of`.

    A classifier that brings no names is asked for the number of its outputs, by the first image that can be read.
    Images without labels get the names of its classes.
    """
    names = classifier.origin.classes if classifier.origin else ()
    if image_set.numbering is Numbering.PREDICTED:
        return replace(
            image_set, classes=names or image_set.classes or _numerals(outputs_of(classifier, image_set) or 0)
        )
    if not names and image_set.numbering is Numbering.STATED:
        return image_set
    count = len(names) or outputs_of(classifier, image_set)
    return with_classes_of(image_set, names, count) if count and len(image_set) else image_set


def with_classes_of(image_set: ImageSet, names: Sequence[str], count: int) -> ImageSet:
    """The images with the class indices of a classifier of `count` outputs and these class names, empty if unknown.

    Without names 1,000 outputs are taken for ImageNet's where the images' names are. Names of which none is the
    classifier's are class indices if they are numbers, and keep their order if there are as many as outputs.
    UnderfireError if labels go beyond the outputs, or names and classifier do not belong together.
    """
    if image_set.numbering is Numbering.STATED:
        return _stated(image_set, names, count)
    used = sorted(set(image_set.labels.tolist()))
    known = tuple(names) or (imagenet_names() if count == len(imagenet_wnids()) else ())
    places = _places(image_set, known, used)
    if len(places) == len(used):
        return _renumbered(image_set, places, known, Numbering.MATCHED)
    if not places:
        numbers = {label: int(name) for label in used if (name := image_set.classes[label]).isdecimal()}
        if len(set(numbers.values())) == len(used) and max(numbers.values()) < count:
            return _renumbered(image_set, numbers, known or _numerals(count), Numbering.INDICES)
        if len(image_set.classes) == count:
            return image_set
    strange = [image_set.classes[label] for label in used if label not in places] if places else []
    unknown = f"; it does not know {shortened(strange)}" if strange else ""
    of_images = shortened(image_set.classes[label] for label in used)
    raise UnderfireError(
        f"The images are of {len(used)} classes ({of_images}), the classifier knows {count} ("
        f"{shortened(names) if names else 'it brings no names'}){unknown}: name folders or diagnoses as the "
        "classifier does or by its class indices, or give a table with the column class_index (--labels)."
    )


def _stated(image_set: ImageSet, names: Sequence[str], count: int) -> ImageSet:
    """Indices stand as stated unless most of the classes' names are the classifier's names of other indices."""
    used = sorted(set(image_set.labels.tolist()))
    if used[-1] >= count:
        raise UnderfireError(
            f"the labels go up to {used[-1]}, but the classifier knows classes 0 to {count - 1}: "
            "use the labels it was trained with"
        )
    bearers = Counter(image_set.classes)
    named = [i for i in used if (name := image_set.classes[i]) != str(i) and bearers[name] == 1]
    places = _places(image_set, names, named)
    elsewhere = [label for label, place in places.items() if place != label]
    if 2 * len(elsewhere) <= len(places):
        own = {i: image_set.classes[i] for i in used if image_set.classes[i] != str(i)}
        classes = tuple(own.get(i, name) for i, name in enumerate(names or _numerals(count)))
        return replace(image_set, classes=classes)
    if len(places) < len(used):
        label = elsewhere[0]
        raise UnderfireError(
            f"the labels give class {label} the name {image_set.classes[label]}, which is class {places[label]} of the "
            "classifier: use its class indices, or leave them out and give each class a name of the classifier"
        )
    return _renumbered(image_set, places, names, Numbering.MATCHED)


def _places(image_set: ImageSet, names: Sequence[str], labels: Iterable[int]) -> dict[int, int]:
    """The classifier's index of each of these labels whose name it knows."""
    known = ClassNames(names)
    found = {label: known.index(image_set.classes[label]) for label in labels}
    return {label: place for label, place in found.items() if place is not None}


def _renumbered(
    image_set: ImageSet, places: Mapping[int, int], classes: Sequence[str], numbering: Numbering
) -> ImageSet:
    labels = torch.tensor([places[label] for label in image_set.labels.tolist()], dtype=torch.int64)
    return replace(image_set, labels=labels, classes=tuple(classes), numbering=numbering)


def outputs_of(classifier: Classifier, image_set: ImageSet) -> int | None:
    """How many classes the classifier knows; None where no image tells, which is for the selection to complain of."""
    picture = first_picture(image_set)
    if picture is None:
        return None
    try:
        with torch.no_grad():
            return classifier(picture[None].to(classifier.device)).shape[1]
    except Exception:  # whatever a model raises; the selection says it in a sentence that names sizes
        return None


def first_picture(image_set: ImageSet) -> Picture | None:
    """The first that can be read, 3hw; None if there is none."""
    for i in range(len(image_set)):
        with suppress(UnreadableImage):
            return image_set.read(i)
    return None


def _numerals(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def shortened(names: Iterable[str]) -> str:
    """The first of the names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
