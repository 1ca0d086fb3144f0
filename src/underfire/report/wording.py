"""The words for what a run asks of an explanation: to stay as it was, or to show another map."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from underfire.runs.folder import is_targeted


@dataclass(frozen=True)
class Words:
    """What is said in place of "plausible" and "changed", from the page's title to its cautions."""

    question: str
    headlines: tuple[str, str, str, str]  # for nearly all, most, some and hardly any of the maps
    endings: Mapping[str, str]
    share: str  # the share of such maps, in tables
    alike: str  # such a map
    unlike: str  # any other
    kept: str  # what ADV² did to the maps that count as plausible
    left: str  # what the plain attack did to them
    counted: str  # such maps
    unmoved: str  # said where most maps of the plain attack, which goes in the braces, are such maps
    blank: tuple[str, str]  # one target map, or several, without any structure
    limit: str


HIDING = Words(
    question="Would the explanation have warned you?",
    headlines=(
        "would not have warned you",
        "would mostly not have warned you",
        "would mostly have warned you",
        "would have warned you",
    ),
    endings=MappingProxyType(
        {
            "plausible": "fooled, map plausible",
            "changed": "fooled, map changed",
            "failed": "classifier not fooled",
        }
    ),
    share="Plausible",
    alike="plausible",
    unlike="changed",
    kept="kept the map plausible",
    left="left the map plausible",
    counted="plausible maps",
    unmoved="{} ignores the map, and still most maps stay plausible: this interpreter hardly reacts, and "
    "hiding from it takes no effort.",
    blank=(
        "1 benign image has a map that shows nothing; any structure at all would give an attack away there.",
        "{} benign images have maps that show nothing; any structure at all would give an attack away there.",
    ),
    limit="A map counts as plausible if its IoU with the map of the benign picture exceeds 0.5. Nobody has that map at "
    "hand when a picture arrives: a changed map warns only those who know what to expect.",
)
SHOWING = Words(
    question="Could the explanation be made to show another map?",
    headlines=(
        "could be made to show the wanted map",
        "could mostly be made to show the wanted map",
        "could mostly not be made to show the wanted map",
        "could not be made to show the wanted map",
    ),
    endings=MappingProxyType(
        {
            "plausible": "fooled, map as wanted",
            "changed": "fooled, map not as wanted",
            "failed": "classifier not fooled",
        }
    ),
    share="As wanted",
    alike="as wanted",
    unlike="not as wanted",
    kept="made the map look like the wanted one",
    left="left the map like the wanted one",
    counted="maps that look like the wanted one",
    unmoved="{} ignores the map, and still most maps look like the wanted one: the wanted maps are too much like what "
    "this interpreter shows anyway, so that showing them proves little.",
    blank=(
        "1 wanted map shows nothing; to look like it takes a map without any structure.",
        "{} wanted maps show nothing; to look like them takes maps without any structure.",
    ),
    limit="A map counts as wanted if its IoU with the wanted map exceeds 0.5. Whether it would also convince anyone is "
    "not measured: a wanted map need not fit the picture.",
)


def wording(info: Mapping[str, Any]) -> Words:
    """The words that fit a run."""
    return SHOWING if is_targeted(info) else HIDING
