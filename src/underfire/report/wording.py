"""The words for what a run asks of an explanation: to stay as it was, or to show another map."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from underfire.metrics.maps import CHANGED, LIKE, UNCHANGED, UNSEEN
from underfire.runs.folder import is_targeted


@dataclass(frozen=True)
class Words:
    """What is said in place of "plausible" and "changed", from the page's title to its cautions."""

    question: str
    headlines: tuple[str, str, str, str]  # for nearly all, most, some and hardly any of the maps
    doubt: str  # what is undecided where it is not even known whether most maps are plausible
    wanted: str  # whose map it should look like
    judgements: Mapping[str, str]  # what is said of a map, by its judgement
    share: str  # the share of maps that are unchanged or plausible, in tables
    kept: str  # what ADV² did to the maps that count as plausible
    left: str  # what the plain attack did to them
    counted: str  # such maps
    aim: str  # of the attack on both
    terms: Mapping[str, str]  # what is meant by the words that the first screen uses
    warned: str  # what a changed map is worth; nothing where that is not the question
    unmoved: str  # said where most maps of the plain attack, which goes in the braces, are such maps
    limit: str

    @property
    def endings(self) -> Mapping[str, str]:
        """How an attack on an image may end, by judgement of the map or "failed"."""
        fooled = {judgement: f"fooled, {text}" for judgement, text in self.judgements.items()}
        return {**fooled, "failed": "classifier not fooled"}


HIDING = Words(
    question="Would the explanation have warned you?",
    headlines=(
        "would not have warned you",
        "would mostly not have warned you",
        "would mostly have warned you",
        "would have warned you",
    ),
    doubt="would have warned you",
    wanted="benign",
    judgements=MappingProxyType(
        {UNCHANGED: "map unchanged", LIKE: "map plausible", CHANGED: "map changed", UNSEEN: "nothing to see"}
    ),
    share="Plausible",
    kept="kept the map plausible",
    left="left the map plausible",
    counted="plausible maps",
    aim="a wrong class, and the map of the benign picture.",
    terms=MappingProxyType(
        {
            "Plausible": "Map and benign map, each cut at its own mean, overlap by more than half (IoU above 0.5), or "
            "differ by no more than the interpreter's own noise.",
        }
    ),
    warned="The map changed visibly. Only who knows the benign map can be warned by that, and nobody has it at hand "
    "when a picture arrives.",
    unmoved="{} ignores the map, and still most maps stay plausible: this interpreter hardly reacts, and "
    "hiding from it takes no effort.",
    limit="A map that changed warns only those who know what to expect: when a picture arrives, nobody has the benign "
    "map at hand.",
)
VARYING = replace(  # where "plausible" would say nothing, because maps of other images often are
    HIDING,
    kept="kept the map within natural variation",
    left="left the map within natural variation",
    counted="maps within natural variation",
    terms=MappingProxyType(
        {
            "Natural variation": "A map is within it if it is no further from the benign one than harmless changes of "
            "the picture move it: JPEG, a shift by one pixel, a crop, noise, brightness.",
        }
    ),
    unmoved="{} ignores the map, and still most maps stay within natural variation: this interpreter hardly reacts, "
    "and hiding from it takes no effort.",
)
SHOWING = Words(
    question="Could the explanation be made to show another map?",
    headlines=(
        "could be made to show the wanted map",
        "could mostly be made to show the wanted map",
        "could mostly not be made to show the wanted map",
        "could not be made to show the wanted map",
    ),
    doubt="could be made to show the wanted map",
    wanted="wanted",
    judgements=MappingProxyType(
        {
            UNCHANGED: "map as wanted to within noise",
            LIKE: "map as wanted",
            CHANGED: "map not as wanted",
            UNSEEN: "nothing to see",
        }
    ),
    share="As wanted",
    kept="made the map look like the wanted one",
    left="left the map like the wanted one",
    counted="maps that look like the wanted one",
    aim="a wrong class, and a map that somebody wants.",
    terms=MappingProxyType(
        {
            "As wanted": "Map and wanted map, each cut at its own mean, overlap by more than half (IoU above 0.5), or "
            "differ by no more than the interpreter's own noise. Whether it would convince anyone is not measured.",
        }
    ),
    warned="",
    unmoved="{} ignores the map, and still most maps look like the wanted one: the wanted maps are too much like what "
    "this interpreter shows anyway, so that showing them proves little.",
    limit="A map counts as wanted if its IoU with the wanted map exceeds 0.5. Whether it would also convince anyone is "
    "not measured: a wanted map need not fit the picture.",
)


def wording(info: Mapping[str, Any]) -> Words:
    """The words that fit a run."""
    return SHOWING if is_targeted(info) else HIDING
