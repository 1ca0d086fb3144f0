"""What an attack did to a picture, drawn beside it: the change of its pixels, or the flow that bent it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from underfire.core.rows import in_parts
from underfire.report import figures
from underfire.report.figures import Encoding
from underfire.report.view import TOGETHER, Array, RunView

Drawn = Iterator[tuple[str, str]]  # image ids and data URIs


@runtime_checkable
class Change(Protocol):
    """How the changes of an attack are drawn."""

    @property
    def caption(self) -> str: ...

    @property
    def legend(self) -> str | None: ...

    def draw(
        self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], encoding: Encoding
    ) -> Drawn: ...


@dataclass(frozen=True)
class Difference:
    """The difference of two images, amplified around grey."""

    factor: int = 1

    @property
    def caption(self) -> str:
        return f"its difference from the benign one, amplified {self.factor} times around grey"

    @property
    def legend(self) -> None:
        return None

    def draw(
        self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], encoding: Encoding
    ) -> Drawn:
        for id, image in zip(*run.images(attack, interpreter, only=benign), strict=True):
            yield id, figures.change(image, benign[id], self.factor, encoding)


@dataclass(frozen=True)
class Bending:
    """The flow of each pixel in the colours of a wheel, pure from a length of `reach` pixels on."""

    reach: float

    @property
    def caption(self) -> str:
        return (
            "where its pixels were taken from: in the direction that its colour has on the wheel, white stayed in "
            f"place, and pure colours were {self.reach:.1f} pixels away or more"
        )

    @property
    def legend(self) -> str:
        return figures.wheel()

    def draw(
        self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], encoding: Encoding
    ) -> Drawn:
        for id, flow in zip(*run.thetas(attack, interpreter, only=benign), strict=True):
            yield id, figures.flow(flow, self.reach, encoding)


def changes_of(run: RunView, rows: list[dict[str, Any]], sources: list[tuple[str, str | None]]) -> dict[str, Change]:
    """How the changes of each attack are drawn, on one scale for all that are drawn alike.

    The largest change of a pixel spans the range from mid-grey; of flows it is the typical longest.
    """
    measured = {attack: [row for row in rows if row["attack"] == attack] for attack, _ in sources}
    bending = {attack for attack, its in measured.items() if all(row.get("flow_mean") is not None for row in its)}
    changing = [row["linf"] for row in rows if row["attack"] not in bending]
    difference = Difference(_factor(max(changing, default=0.0)))
    bent = [source for source in sources if source[0] in bending]
    parts = list(in_parts(tuple(dict.fromkeys(row["id"] for row in rows)), TOGETHER))
    flows = (flow for source in bent for part in parts for flow in run.thetas(*source, only=part)[1])
    reaches = [np.quantile(np.hypot(*flow), 0.99) for flow in flows]
    flowing = Bending(float(np.median(reaches)) or 1.0) if reaches else difference
    return {attack: flowing if attack in bending else difference for attack in measured}


def _factor(largest: float) -> int:
    return max(1, int(0.5 / largest)) if largest > 0 else 1
