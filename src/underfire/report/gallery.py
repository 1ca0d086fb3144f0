"""The cards of the gallery, one for each image, and the album of pictures that they show.

A picture is encoded once and drawn wherever it is needed: the benign image and that of the plain attack belong to the
rows of every interpreter. The page gets cards and album as data and draws the few that are on display. Attacks that
evade a detector are numbers without pictures: to the eye their images are those of the ADV² beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from underfire.attacks.names import ENSEMBLE, attack_name, in_order, interpreter_name
from underfire.core.rows import in_parts
from underfire.report import figures
from underfire.report.changes import Change, changes_of
from underfire.report.figures import Encoding
from underfire.report.view import TOGETHER, RunView, class_name

PAGE_BYTES = 14e6  # what the pictures may weigh together, roughly
BYTES_PER_PIXEL = 0.35  # of a JPEG in base64; noise takes four times as much, and is stored at half the side
LOSSLESS_BYTES_PER_PIXEL = 3.5
SMALLEST = 64  # side of a photo
PLACES = 4  # decimals of the numbers

Key = tuple[str, ...]  # what a picture shows: its kind, attack, interpreter ("" for any) and image id


@dataclass(frozen=True)
class Card:
    """One image: an outcome for each attack and interpreter."""

    id: str
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Gallery:
    """All cards, typical ones first, and every picture as a data URI."""

    cards: tuple[Card, ...]
    pictures: Mapping[Key, str]
    size: tuple[int, int]  # width and height in which pictures are drawn
    changes: tuple[tuple[str, Change], ...]  # how changes are drawn, with the names of the attacks that it is meant for
    classes: Sequence[str] = ()

    @property
    def attacks(self) -> list[str]:
        return in_order(row["attack"] for card in self.cards for row in card.rows)

    @property
    def pictured(self) -> list[str]:
        """The attacks with pictures."""
        return in_order(row["attack"] for card in self.cards for row in card.rows if _has_pictures(row))

    @property
    def leading(self) -> str:
        """The attack by which cards are judged at first: the first ADV² where there is one."""
        aware = {
            row["attack"] for card in self.cards for row in card.rows if row["map_aware"] and row["evades"] is None
        }
        return next((each for each in self.pictured if each in aware), self.pictured[-1])

    @property
    def interpreters(self) -> list[str]:
        return list(dict.fromkeys(row["interpreter"] for card in self.cards for row in card.rows))

    def photo(self, id: str, attack: str, interpreter: str) -> str | None:
        """The picture that an attack made of an image."""
        return self.pictures.get(("photo", attack, interpreter, id)) or self.pictures.get(("photo", attack, "", id))

    def heat(self, id: str, attack: str, interpreter: str) -> str | None:
        """The map of the picture that an attack made of an image."""
        return self.pictures.get(("heat", attack, interpreter, id))

    def data(self, endings: Sequence[str]) -> dict[str, Any]:
        """What the page's scripts draw cards from: pictures, classes and endings are places in lists."""
        places = {key: place for place, key in enumerate(self.pictures)}
        attacks, interpreters = self.attacks, self.interpreters
        classes = sorted({row[name] for card in self.cards for row in card.rows for name in _CLASSES} - {None})
        return {
            "album": list(self.pictures.values()),
            "attacks": [{"name": each, "title": attack_name(each), "drawn": each in self.pictured} for each in attacks],
            "interpreters": [{"name": each, "title": interpreter_name(each)} for each in interpreters],
            "classes": [class_name(self.classes, each) for each in classes],
            "cards": [
                {
                    "id": card.id,
                    "true": classes.index(card.rows[0]["class_true"]),
                    "target": None if (aim := card.rows[0]["class_target"]) is None else classes.index(aim),
                    "photo": places.get(("photo", "benign", "", card.id)),
                    "heats": [places.get(("heat", "benign", each, card.id)) for each in interpreters],
                    "wanted": [places.get(("heat", "target", each, card.id)) for each in interpreters],
                    "donor": card.rows[0].get("target_map_of"),
                    "rows": [
                        [
                            attacks.index(row["attack"]),
                            interpreters.index(row["interpreter"]),
                            *(places.get((kind, row["attack"], _owner(row) or "", card.id)) for kind in _OF_ATTACKS),
                            places.get(("heat", row["attack"], row["interpreter"], card.id)),
                            endings.index(ending(row)),
                            classes.index(row["class_predicted"]),
                            *(_rounded(row.get(name)) for name in _NUMBERS),
                        ]
                        for row in card.rows
                    ],
                }
                for card in self.cards
            ],
        }


_CLASSES = ("class_true", "class_target", "class_predicted")
_OF_ATTACKS = ("photo", "change")
_NUMBERS = ("confidence", "iou_mean", "map_l1", "benign_l1")


def ending(row: Mapping[str, Any]) -> str:
    """failed, or how the map is judged (see `metrics.maps`)."""
    return str(row["judgement"]) if row["success"] else "failed"


def collect(
    run: RunView, outcomes: pa.Table, classes: Sequence[str], references: tuple[str, ...] = ("benign",)
) -> Gallery:
    """Collect pictures and outcomes into cards; `references` are the maps beside those of the attacks."""
    everything = outcomes.to_pylist()
    rows = [row for row in everything if _has_pictures(row)]
    if not rows:
        return Gallery((), {}, (1, 1), ())
    pairs = list(dict.fromkeys((row["attack"], row["interpreter"]) for row in rows))
    sources = list(dict.fromkeys((row["attack"], _owner(row)) for row in rows))
    changes = changes_of(run, rows, sources)
    grouped: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in rows}
    for row in everything:
        grouped.get(row["id"], []).append(row)
    height, width = run.images("benign", only=(rows[0]["id"],))[1].shape[2:]
    explained = [(reference, name) for reference in references for name in dict.fromkeys(each for _, each in pairs)]
    explained += pairs
    encoding = encoding_of(max(height, width), len(grouped) * (1 + 2 * len(sources)), len(grouped) * len(explained))
    pictures: dict[Key, str] = {}
    for part in in_parts(tuple(grouped), TOGETHER):
        pictures |= _pictures(run, part, explained, sources, changes, encoding)
    size = width, height
    found = Gallery(tuple(Card(id, tuple(its)) for id, its in grouped.items()), pictures, size, _told(changes), classes)
    return replace(found, cards=_typical_first(found.cards, found.leading))


def _pictures(
    run: RunView,
    ids: tuple[str, ...],
    explained: list[tuple[str, str]],
    sources: list[tuple[str, str | None]],
    changes: dict[str, Change],
    encoding: Encoding,
) -> Iterator[tuple[Key, str]]:
    """Every picture of these images with what it shows."""
    benign = dict(zip(*run.images("benign", only=ids), strict=True))
    for id, image in benign.items():
        yield ("photo", "benign", "", id), figures.photo(image, encoding)
    for attack, owner in sources:
        for id, image in zip(*run.images(attack, owner, only=ids), strict=True):
            yield ("photo", attack, owner or "", id), figures.photo(image, encoding)
        for id, drawn in changes[attack].draw(run, attack, owner, benign, encoding):
            yield ("change", attack, owner or "", id), drawn
    for attack, interpreter in explained:
        for id, values in zip(*run.maps(attack, interpreter, only=ids), strict=True):
            yield ("heat", attack, interpreter, id), figures.heat(values, encoding)


def _typical_first(cards: Sequence[Card], leading: str) -> tuple[Card, ...]:
    """By how far the distances of an image's maps under the leading attack are from the medians of all images.

    A card for which no map of that attack is known comes last.
    """
    distances = {
        card.id: {row["interpreter"]: row["map_l1"] for row in card.rows if row["attack"] == leading} for card in cards
    }
    names = dict.fromkeys(name for each in distances.values() for name in each)
    medians = {name: np.nanmedian([each[name] for each in distances.values() if name in each]) for name in names}

    def rank(card: Card) -> tuple[float, str]:
        off = [abs(distance - medians[name]) for name, distance in distances[card.id].items()]
        return (float(np.nan_to_num(np.mean(off), nan=np.inf)) if off else np.inf), card.id

    return tuple(sorted(cards, key=rank))


def _told(changes: dict[str, Change]) -> tuple[tuple[str, Change], ...]:
    """Each way to draw a change once, with the attacks that it is used for."""
    used: dict[Change, list[str]] = {}
    for attack in in_order(changes):
        used.setdefault(changes[attack], []).append(attack_name(attack))
    return tuple((", ".join(names), change) for change, names in used.items())


def _has_pictures(row: dict[str, Any]) -> bool:
    return row["evades"] in (None, ENSEMBLE)


def _owner(row: dict[str, Any]) -> str | None:
    """Whom an attack made its images for: some are the same for every interpreter."""
    return row["interpreter"] if row["map_aware"] and row["evades"] != ENSEMBLE else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(value, PLACES)


def encoding_of(size: int, photos: int, maps: int) -> Encoding:
    """How much can be kept of so many pictures of a size, changes among them, and of so many maps.

    Photos are kept as they are where that fits. Changes and maps are stored at half the side; changes weigh what
    photos do, and maps a quarter.
    """
    largest = Encoding()
    lossless = photos * size**2 * LOSSLESS_BYTES_PER_PIXEL
    fits = size <= largest.lossless and lossless < PAGE_BYTES / 2
    rest, pictures = (PAGE_BYTES - lossless, maps / 4) if fits else (PAGE_BYTES, photos + maps / 4)
    side = int(np.clip(np.sqrt(rest / (BYTES_PER_PIXEL * pictures)), SMALLEST, largest.side))
    return Encoding(side, largest.lossless if fits else 0)
