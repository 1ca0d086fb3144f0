"""What an attack did to a picture, drawn beside it: the change of its pixels, or the flow that bent it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from underfire.report import figures
from underfire.report.view import Array, RunView

Drawn = Iterator[tuple[str, str]]  # image ids and data URIs


@runtime_checkable
class Change(Protocol):
    """How changes are drawn, alike for all attacks of a run."""

    @property
    def caption(self) -> str: ...

    @property
    def legend(self) -> str | None: ...

    def draw(
        self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], side: int
    ) -> Drawn: ...


@dataclass(frozen=True)
class Difference:
    """The difference of two images, amplified around grey; at half the side, because noise weighs more than a photo."""

    factor: int = 1

    @property
    def caption(self) -> str:
        return f"its difference from the benign one, amplified {self.factor} times around grey"

    @property
    def legend(self) -> None:
        return None

    def draw(self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], side: int) -> Drawn:
        for id, image in zip(*run.images(attack, interpreter), strict=True):
            yield id, figures.change(image, benign[id], self.factor, side // 2)


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

    def draw(self, run: RunView, attack: str, interpreter: str | None, benign: Mapping[str, Array], side: int) -> Drawn:
        for id, flow in zip(*run.thetas(attack, interpreter), strict=True):
            yield id, figures.flow(flow, self.reach, side)


def change_of(run: RunView, rows: list[dict[str, Any]], sources: list[tuple[str, str | None]]) -> Change:
    """One scale for all: the largest change of a pixel spans the range from mid-grey; of flows the typical longest."""
    if any(row.get("flow_mean") is None for row in rows):
        largest = max(row["linf"] for row in rows)
        return Difference(max(1, int(0.5 / largest)) if largest > 0 else 1)
    flows = (flow for source in sources for flow in run.thetas(*source)[1])
    reach = float(np.median([np.quantile(np.hypot(*flow), 0.99) for flow in flows]))
    return Bending(reach or 1.0)
