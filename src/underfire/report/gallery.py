"""The cards of the gallery, and the album of pictures that they show.

A picture is encoded once and drawn wherever it is needed: the benign image and that of the plain
attack belong to the cards of every interpreter. Its name in the album does not tell what it shows, because the page
also asks readers to guess that. Attacks that evade a detector are numbers without pictures: to the eye their
images are those of the ADV² beside them, and a card would be unreadable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa

from underfire.attacks.names import ENSEMBLE, attack_name, in_order
from underfire.report import figures
from underfire.report.changes import Change, changes_of
from underfire.report.figures import Encoding
from underfire.report.view import Array, RunView, class_name

PAGE_BYTES = 14e6  # what the pictures may weigh together, roughly
BYTES_PER_PIXEL = 0.35  # of a JPEG in base64; noise takes four times as much, and is stored at half the side
LOSSLESS_BYTES_PER_PIXEL = 3.5
SMALLEST = 64  # side of a photo

Key = tuple[str, ...]  # what a picture shows: its kind, attack, interpreter ("" for any) and image id


@dataclass(frozen=True)
class AttackedCard:
    """What one attack did to one image; pictures are names in the album."""

    attack: str
    predicted: str
    row: dict[str, Any]  # the outcome
    picture: str | None
    heat: str | None
    change: str | None

    @property
    def basic(self) -> bool:
        """Whether it is ADV² against one interpreter and no detector."""
        return bool(self.row["map_aware"]) and self.row["evades"] is None

    @property
    def judgement(self) -> str:
        """How the map is judged, see `metrics.maps`."""
        return str(self.row["judgement"])

    @property
    def ending(self) -> str:
        """failed, or how the map is judged"""
        return self.judgement if self.row["success"] else "failed"


@dataclass(frozen=True)
class Card:
    """One image and one interpreter; its attacks with pictures in rows, one per solver."""

    id: str
    interpreter: str
    true: str
    target: str
    picture: str | None
    heat: str | None
    wanted: str | None  # the target map, where it is not the benign one
    attacked: tuple[tuple[AttackedCard, ...], ...]
    numbers: tuple[AttackedCard, ...]  # the attacks without pictures

    @property
    def leading(self) -> AttackedCard:
        """The one by which the page sorts: the first ADV² where there is one."""
        everything = list(chain(*self.attacked))
        return next((each for each in everything if each.basic), everything[-1])

    @property
    def columns(self) -> int:
        """Pictures side by side: the benign one, the wanted map, and two per attack."""
        return 1 + bool(self.wanted) + 2 * max(map(len, self.attacked))


@dataclass(frozen=True)
class Gallery:
    """All cards, most plausible map first, and the album: (name, data URI) of every picture."""

    cards: tuple[Card, ...]
    album: tuple[tuple[str, str], ...]
    size: tuple[int, int]  # width and height in which pictures are drawn
    changes: tuple[tuple[str, Change], ...]  # how changes are drawn, with the names of the attacks that it is meant for

    @property
    def attacks(self) -> list[str]:
        """Those with pictures."""
        return in_order(each.attack for card in self.cards for row in card.attacked for each in row)

    @property
    def leading(self) -> str:
        """The attack that sorts the cards at first."""
        leading = {card.leading.attack for card in self.cards if card.leading.basic}
        return next((attack for attack in self.attacks if attack in leading), self.attacks[-1])

    @property
    def left_out(self) -> bool:
        """Whether attacks of the run are without pictures."""
        return any(card.numbers for card in self.cards)


def collect(
    run: RunView, outcomes: pa.Table, classes: Sequence[str], references: tuple[str, ...] = ("benign",)
) -> Gallery:
    """Collect pictures and outcomes into cards; `references` are the maps beside those of the attacks."""
    everything = outcomes.to_pylist()
    rows = [row for row in everything if _has_pictures(row)]
    if not rows:
        return Gallery((), (), (1, 1), ())
    ids, benign = run.images("benign")
    pairs = list(dict.fromkeys((row["attack"], row["interpreter"]) for row in rows))
    sources = list(dict.fromkeys((row["attack"], _owner(row)) for row in rows))
    changes = changes_of(run, rows, sources)
    pictures = dict(_pictures(run, pairs, sources, dict(zip(ids, benign, strict=True)), references, changes))
    names = {key: _opaque(key) for key in pictures}
    album = tuple(sorted((names[key], uri) for key, uri in pictures.items()))
    cards = [card for card in _cards(everything, names, classes) if card.attacked]
    cards.sort(key=_most_plausible_first)
    return Gallery(tuple(cards), album, (benign.shape[3], benign.shape[2]), _told(changes))


def _pictures(
    run: RunView,
    pairs: list[tuple[str, str]],
    sources: list[tuple[str, str | None]],
    benign: dict[str, Array],
    references: tuple[str, ...],
    changes: dict[str, Change],
) -> Iterator[tuple[Key, str]]:
    """Every picture with what it shows."""
    names = dict.fromkeys(interpreter for _, interpreter in pairs)
    explained = [(reference, name) for reference in references for name in names] + pairs
    size = max(max(image.shape) for image in benign.values())
    encoding = encoding_of(size, len(benign) * (1 + 2 * len(sources)), len(benign) * len(explained))
    for id, image in benign.items():
        yield ("photo", "benign", "", id), figures.photo(image, encoding)
    for attack, owner in sources:
        for id, image in zip(*run.images(attack, owner), strict=True):
            yield ("photo", attack, owner or "", id), figures.photo(image, encoding)
        for id, drawn in changes[attack].draw(run, attack, owner, benign, encoding):
            yield ("change", attack, owner or "", id), drawn
    for attack, interpreter in explained:
        for id, values in zip(*run.maps(attack, interpreter), strict=True):
            yield ("heat", attack, interpreter, id), figures.heat(values, encoding)


def _cards(rows: list[dict[str, Any]], names: dict[Key, str], classes: Sequence[str]) -> Iterator[Card]:
    """One card per image and interpreter."""
    grouped: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["id"], row["interpreter"]), {})[row["attack"]] = row
    for (id, interpreter), by_attack in grouped.items():
        any_row = next(iter(by_attack.values()))
        ordered = [by_attack[attack] for attack in in_order(by_attack)]
        yield Card(
            id=id,
            interpreter=interpreter,
            true=class_name(classes, any_row["class_true"]),
            target=class_name(classes, any_row["class_target"]),
            picture=names.get(("photo", "benign", "", id)),
            heat=names.get(("heat", "benign", interpreter, id)),
            wanted=names.get(("heat", "target", interpreter, id)),
            attacked=tuple(
                tuple(_attacked(row, names, classes) for row in its)
                for _, its in groupby(filter(_has_pictures, ordered), itemgetter("solver"))
            ),
            numbers=tuple(_attacked(row, names, classes) for row in ordered if not _has_pictures(row)),
        )


def _told(changes: dict[str, Change]) -> tuple[tuple[str, Change], ...]:
    """Each way to draw a change once, with the attacks that it is used for."""
    used: dict[Change, list[str]] = {}
    for attack in in_order(changes):
        used.setdefault(changes[attack], []).append(attack_name(attack))
    return tuple((", ".join(names), change) for change, names in used.items())


def _attacked(row: dict[str, Any], names: dict[Key, str], classes: Sequence[str]) -> AttackedCard:
    attack, interpreter, id = row["attack"], row["interpreter"], row["id"]
    owner = _owner(row) or ""
    return AttackedCard(
        attack=attack,
        predicted=class_name(classes, row["class_predicted"]),
        row=row,
        picture=names.get(("photo", attack, owner, id)),
        heat=names.get(("heat", attack, interpreter, id)),
        change=names.get(("change", attack, owner, id)),
    )


def _has_pictures(row: dict[str, Any]) -> bool:
    return row["solver"] is not None and row["evades"] in (None, ENSEMBLE)


def _owner(row: dict[str, Any]) -> str | None:
    """Whom an attack made its images for: some are the same for every interpreter."""
    return row["interpreter"] if row["map_aware"] and row["evades"] != ENSEMBLE else None


def _most_plausible_first(card: Card) -> tuple[float, float, str]:
    row = card.leading.row
    overlap = -1.0 if row["iou_mean"] is None else row["iou_mean"]
    return (-overlap, row["map_l1"], card.id)


def _opaque(key: Key) -> str:
    return f"p{blake2b(repr(key).encode(), digest_size=8).hexdigest()}"


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
