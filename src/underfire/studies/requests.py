"""What a study is asked to do, in the same words for all of them, what it is done on, and how.

request = Request(model="demo", images="demo", interpreters=("cam", "rts"), scale="quick")
subject = Subject(classifier, image_set, masks)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from underfire.data.image_set import ImageSet
from underfire.models.classifier import Classifier
from underfire.studies.runs import Report, Source


@dataclass(frozen=True)
class Scale:
    """How many images are attacked, searched for objects, and taken to calibrate detectors."""

    attacked: int
    located: int
    benign: int


SCALES: Mapping[str, Scale] = MappingProxyType(
    {"quick": Scale(4, 40, 80), "standard": Scale(64, 200, 200), "full": Scale(1000, 1000, 400)}
)


class Request(Source):
    """The options that all studies share; `n` overrides the scale's number of attacked images."""

    interpreters: tuple[str, ...] = ("cam", "grad")
    defended: tuple[str, ...] = ()  # interpreters trained or wrapped against attacks, for the study of AID
    masks: str | None = None
    scale: Literal["quick", "standard", "full"] = "standard"
    n: int | None = Field(default=None, ge=1)
    recipe: Literal["annealed", "paper"] = "annealed"
    eps: float | None = Field(default=None, gt=0, le=1)
    steps: int | None = Field(default=None, ge=1)
    seed: int = 0

    @property
    def sizes(self) -> Scale:
        return SCALES[self.scale]

    @property
    def attacked(self) -> int:
        """The number of images to attack."""
        return self.sizes.attacked if self.n is None else self.n

    def source(self) -> dict[str, Any]:
        """The classifier and the images, as every study's settings take them, with the seed."""
        return {name: getattr(self, name) for name in (*Source.model_fields, "seed")}

    def inputs(self) -> dict[str, Any]:
        """The source, the interpreters and the number of images to attack."""
        return {**self.source(), "interpreters": self.interpreters, "n": self.attacked}

    def recipe_given(self) -> dict[str, Any]:
        """What overrides an attack's parameters."""
        return {"recipe": self.recipe, "eps": self.eps, "steps": self.steps}


@dataclass(frozen=True)
class Subject:
    """A classifier, all images to choose from, and where objects are in them, if that is known."""

    classifier: Classifier
    image_set: ImageSet
    masks: ImageSet | None = None


@dataclass(frozen=True)
class Manner:
    """The command that was typed, how many images are worked on at a time, and who hears of the progress."""

    command: str
    width: int = 16
    on_progress: Report = lambda planned, progress: None
