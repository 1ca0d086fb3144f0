"""Benign images and what somebody else's attack made of them, matched by name.

    attacked = paired(photos, open_attacked(Path("theirs"), photos))      # their pictures under the names of ours

Files have equal names up to their ending (a.jpg and a.png, a.jpg.png); images of an .npz go by their place, or by its
array `index` of places among the benign ones.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from underfire.core.errors import UnderfireError
from underfire.core.text import counted
from underfire.data.arrays import read_places
from underfire.data.decode import ArraySource, FileSource
from underfire.data.folders import is_image
from underfire.data.image_set import ImageSet, open_images
from underfire.data.names import PREDICTED


def open_attacked(path: Path, benign: ImageSet) -> ImageSet:
    """The pictures at `path`, a folder or an .npz, as they are; UnderfireError as of `open_images`."""
    attacked = open_images(path, PREDICTED)
    if not isinstance(attacked.source, ArraySource):
        return attacked
    if isinstance(benign.source, FileSource):
        raise UnderfireError(f"The images in {path} have no names, and the benign ones are files: give both alike.")
    places = read_places(path)
    if places is None and len(attacked) != len(benign):
        raise UnderfireError(
            f"{path} holds {counted(len(attacked), 'image')}, and there are {len(benign)} benign ones: give as many, "
            "or beside images an array index that says of which benign image each is made."
        )
    places = list(range(len(benign))) if places is None else places
    if beyond := [place for place in places if not 0 <= place < len(benign)]:
        raise UnderfireError(f"index in {path} names {beyond[0]}, but benign images go from 0 to {len(benign) - 1}.")
    return replace(attacked, ids=tuple(benign.ids[place] for place in places))


def paired(benign: ImageSet, attacked: ImageSet) -> ImageSet:
    """The attacked images under the names of their benign ones, in the order of these.

    UnderfireError names the first that has no benign image, or has one that is another's or not clear.
    """
    known: dict[str, list[int]] = {}
    for place, name in enumerate(benign.ids):
        for called in {name, _without_ending(name)}:
            known.setdefault(called, []).append(place)
    made: dict[int, int] = {}
    for i, name in enumerate(attacked.ids):
        place = _place(name, known, benign.ids)
        if place in made:
            raise UnderfireError(
                f"The attacked images {attacked.ids[made[place]]} and {name} are both made of {benign.ids[place]}: "
                "keep one."
            )
        made[place] = i
    order = sorted(made)
    return replace(attacked.take([made[place] for place in order]), ids=tuple(benign.ids[place] for place in order))


def _place(name: str, known: dict[str, list[int]], ids: Sequence[str]) -> int:
    """Where the benign image of that name is."""
    found = next((known[called] for called in (name, _without_ending(name)) if called in known), [])
    if not found:
        raise UnderfireError(
            f"The attacked image {name} has no benign one of its name (these are called like {ids[0]}): give files "
            "equal names and folders, whatever their endings."
        )
    if len(found) > 1:
        raise UnderfireError(
            f"The attacked image {name} may be made of {ids[found[0]]} or of {ids[found[1]]}: call it like one of "
            "them, with its ending."
        )
    return found[0]


def _without_ending(name: str) -> str:
    return name.rpartition(".")[0] if is_image(name) else name


def made_of(benign: ImageSet, attacked: ImageSet) -> ImageSet:
    """The attacked pictures of these benign images, with their labels; UnderfireError if one cannot be read or is of
    another size."""
    places = {name: i for i, name in enumerate(attacked.ids)}
    made, size = attacked.take([places[name] for name in benign.ids]), benign.read(0).shape
    for i, name in enumerate(made.ids):
        if (shape := made.read(i).shape) != size:
            sizes = ["×".join(map(str, each[:-3:-1])) for each in (size, shape)]
            raise UnderfireError(
                f"{name} has {sizes[0]} pixels benign and {sizes[1]} attacked: give benign images of the size that was "
                "attacked, or say by --resize and --crop how it came from them."
            )
    return replace(made, labels=benign.labels)
