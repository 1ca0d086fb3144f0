"""The cards of the gallery, and the album of pictures that they show.

A picture is encoded once and drawn wherever it is needed: the benign image and that of the plain
attack belong to the cards of every interpreter. Attacks that evade a detector have no panels: to the eye their
images are those of the ADV² beside them, and a card would be unreadable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from underfire.metrics import PLAUSIBLE
from underfire.names import MAP_AWARE, attack_name, attacker, in_order
from underfire.report import figures
from underfire.report.changes import Change, changes_of
from underfire.report.view import Array, RunView, class_name

PAGE_BYTES = 14e6  # what the pictures may weigh together, roughly
BYTES_PER_PIXEL = 0.35  # of a JPEG in base64; noise takes four times as much, and is stored at half the side
LARGEST, SMALLEST = 224, 96  # sides of a thumbnail

Key = tuple[str, ...]  # what a picture shows: its kind, attack, interpreter ("" for any) and image id


@dataclass(frozen=True)
class Attacked:
    """What one attack did to one image; pictures are names in the album."""

    attack: str
    ending: str  # failed, changed or plausible
    predicted: str
    row: dict[str, Any]  # the outcome
    picture: str | None
    heat: str | None
    change: str | None


@dataclass(frozen=True)
class Card:
    """One image and one interpreter; its attacks in rows, one per solver."""

    id: str
    interpreter: str
    true: str
    target: str
    picture: str | None
    heat: str | None
    wanted: str | None  # the target map, where it is not the benign one
    attacked: tuple[tuple[Attacked, ...], ...]

    @property
    def leading(self) -> Attacked:
        """The one by which cards are sorted: the first ADV² where there is one."""
        everything = [each for row in self.attacked for each in row]
        return next((each for each in everything if each.attack in MAP_AWARE), everything[-1])

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
    left_out: bool  # whether attacks of the run have no panels


def collect(
    run: RunView, outcomes: pa.Table, classes: Sequence[str], references: tuple[str, ...] = ("benign",)
) -> Gallery:
    """Collect pictures and outcomes into cards; `references` are the maps beside those of the attacks."""
    rows = [row for row in outcomes.to_pylist() if _has_panels(row["attack"])]
    left_out = len(rows) < outcomes.num_rows
    if not rows:
        return Gallery((), (), (LARGEST, LARGEST), (), left_out)
    ids, benign = run.images("benign")
    pairs = list(dict.fromkeys((row["attack"], row["interpreter"]) for row in rows))
    sources = list(dict.fromkeys((attack, _owner(attack, interpreter)) for attack, interpreter in pairs))
    changes = changes_of(run, rows, sources)
    pictures = dict(_pictures(run, pairs, sources, dict(zip(ids, benign, strict=True)), references, changes))
    names = {key: f"p{number}" for number, key in enumerate(pictures)}
    album = tuple((names[key], uri) for key, uri in pictures.items())
    cards = sorted(_cards(rows, names, classes), key=_most_plausible_first)
    return Gallery(tuple(cards), album, (benign.shape[3], benign.shape[2]), _told(changes), left_out)


def _pictures(
    run: RunView,
    pairs: list[tuple[str, str]],
    sources: list[tuple[str, str | None]],
    benign: dict[str, Array],
    references: tuple[str, ...],
    changes: dict[str, Change],
) -> Iterator[tuple[Key, str]]:
    """Every picture with what it shows."""
    side = _thumbnail_side(len(benign) * (1 + 2 * len(sources)))
    for id, image in benign.items():
        yield ("photo", "benign", "", id), figures.photo(image, side)
    for attack, owner in sources:
        for id, image in zip(*run.images(attack, owner), strict=True):
            yield ("photo", attack, owner or "", id), figures.photo(image, side)
        for id, drawn in changes[attack].draw(run, attack, owner, benign, side):
            yield ("change", attack, owner or "", id), drawn
    names = dict.fromkeys(interpreter for _, interpreter in pairs)
    explained = [(reference, name) for reference in references for name in names]
    for attack, interpreter in explained + pairs:
        for id, values in zip(*run.maps(attack, interpreter), strict=True):
            yield ("heat", attack, interpreter, id), figures.heat(values)


def _cards(rows: list[dict[str, Any]], names: dict[Key, str], classes: Sequence[str]) -> Iterator[Card]:
    """One card per image and interpreter."""
    grouped: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["id"], row["interpreter"]), {})[row["attack"]] = row
    for (id, interpreter), by_attack in grouped.items():
        any_row = next(iter(by_attack.values()))
        yield Card(
            id=id,
            interpreter=interpreter,
            true=class_name(classes, any_row["class_true"]),
            target=class_name(classes, any_row["class_target"]),
            picture=names.get(("photo", "benign", "", id)),
            heat=names.get(("heat", "benign", interpreter, id)),
            wanted=names.get(("heat", "target", interpreter, id)),
            attacked=tuple(
                tuple(_attacked(by_attack[attack], names, classes) for attack in attacks)
                for attacks in _by_solver(in_order(by_attack))
            ),
        )


def _by_solver(attacks: list[str]) -> list[list[str]]:
    rows: dict[int, list[str]] = {}
    for attack in attacks:
        if known := attacker(attack):
            rows.setdefault(known.order[0], []).append(attack)
    return list(rows.values())


def _told(changes: dict[str, Change]) -> tuple[tuple[str, Change], ...]:
    """Each way to draw a change once, with the attacks that it is used for."""
    used: dict[Change, list[str]] = {}
    for attack in in_order(changes):
        used.setdefault(changes[attack], []).append(attack_name(attack))
    return tuple((", ".join(names), change) for change, names in used.items())


def _attacked(row: dict[str, Any], names: dict[Key, str], classes: Sequence[str]) -> Attacked:
    attack, interpreter, id = row["attack"], row["interpreter"], row["id"]
    owner = _owner(attack, interpreter) or ""
    plausible = "plausible" if row["iou_mean"] > PLAUSIBLE else "changed"
    return Attacked(
        attack=attack,
        ending=plausible if row["success"] else "failed",
        predicted=class_name(classes, row["class_predicted"]),
        row=row,
        picture=names.get(("photo", attack, owner, id)),
        heat=names.get(("heat", attack, interpreter, id)),
        change=names.get(("change", attack, owner, id)),
    )


def _has_panels(attack: str) -> bool:
    known = attacker(attack)
    return known is not None and not known.evaded


def _owner(attack: str, interpreter: str) -> str | None:
    """Whom an attack made its images for: some are the same for every interpreter."""
    known = attacker(attack)
    return None if known is not None and known.shared else interpreter


def _most_plausible_first(card: Card) -> tuple[float, float, str]:
    row = card.leading.row
    return (-row["iou_mean"], row["map_l1"], card.id)


def _thumbnail_side(count: int) -> int:
    """The side at which so many pictures fit into the page."""
    return int(np.clip(np.sqrt(PAGE_BYTES / (BYTES_PER_PIXEL * count)), SMALLEST, LARGEST))
