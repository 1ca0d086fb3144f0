"""What a run is asked to do: the one definition of every option, its name, type, default and bounds.

settings = AttackSettings(model="demo", images="demo", interpreters=("cam", "rts"))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from underfire.attacks.names import SOLVERS
from underfire.core.types import UnderfireError
from underfire.data.demo import demo_images
from underfire.data.image_set import ImageSet, open_images
from underfire.detection.registry import squeezing_named
from underfire.interpreters import Interpreter
from underfire.interpreters.registry import interpreter_named

ENSEMBLE = "ensemble"  # the detector that compares the maps of all interpreters


class Source(BaseModel):
    """The classifier and the images of a run, as they are named on the command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    weights: str | None = None
    normalize: str | None = None
    features: str | None = None
    images: str
    labels: str | None = None
    split: str | None = None
    crop: int | None = None
    resize: int | None = None

    def open_images(self, scenes: int = 200) -> ImageSet:
        """The images, so many of the demo's; UnderfireError if there are none."""
        if self.images == "demo" and self.split is not None:
            raise UnderfireError(f"The demo's scenes are not split; leave out --split {self.split}.")
        if self.images == "demo":
            return demo_images(scenes)
        return open_images(self.images, self.labels, self.crop, self.resize, self.split)


class Inputs(Source):
    """The classifier, the images and the interpreters of a run; running again with others is another run."""

    interpreters: tuple[str, ...] = ("cam", "grad")
    n: int = Field(default=16, ge=1)
    seed: int = 0

    @field_validator("interpreters")
    @classmethod
    def _known_and_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [interpreter_named(name).name for name in names]
        if repeated := [name for name in known if known.count(name) > 1]:
            raise UnderfireError(f"Interpreter '{repeated[0]}' is named twice; name it once.")
        return names

    def explainers(self) -> list[Interpreter]:
        """The interpreters that the names mean."""
        return [interpreter_named(name) for name in self.interpreters]


class AttackSettings(Inputs):
    """Everything that decides what a run computes; running again with other settings is another run."""

    solvers: tuple[str, ...] = Field(default=("pgd",), min_length=1)
    recipe: Literal["annealed", "paper"] = "annealed"
    eps: float | None = Field(default=None, gt=0, le=1)
    steps: int | None = Field(default=None, ge=1)
    target_class: str = "random"
    target_map: str = "benign"
    evade: tuple[str, ...] = ()  # detectors that further attacks of the first solver hide from

    @field_validator("solvers", "evade")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UnderfireError(f"'{repeated[0]}' is named twice; name it once.")
        return names

    @field_validator("solvers")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in SOLVERS]:
            raise UnderfireError(f"There is no solver '{unknown[0]}'; there are {', '.join(SOLVERS)}.")
        return names

    @field_validator("evade")
    @classmethod
    def _evadable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.partition(":")[0] == "fs":
                squeezing_named(name)
            elif name != ENSEMBLE:
                raise UnderfireError(f"'{name}' cannot be evaded; name fs, fs:SQUEEZER+… or {ENSEMBLE}.")
        return names

    @model_validator(mode="after")
    def _budget_of_a_solver(self) -> "AttackSettings":
        if self.eps is not None and not any("eps" in SOLVERS[each].budget for each in self.solvers):
            first = self.solvers[0]
            raise UnderfireError(f"Solver '{first}' {SOLVERS[first].does}; leave out --eps.")
        return self

    @model_validator(mode="after")
    def _hiding_from_all(self) -> "AttackSettings":
        if ENSEMBLE in self.evade and (len(self.interpreters) < 2 or self.target_map != "benign"):
            raise UnderfireError(
                f"To evade '{ENSEMBLE}' is to show the benign maps of all interpreters at once; name two or more "
                "and no --target-map."
            )
        return self


@dataclass(frozen=True)
class StudySize:
    """How many images are attacked, searched for objects, and taken to calibrate detectors."""

    attacked: int
    located: int
    benign: int


SCALES: Mapping[str, StudySize] = MappingProxyType(
    {"quick": StudySize(4, 40, 80), "standard": StudySize(64, 200, 200), "full": StudySize(1000, 1000, 400)}
)


class StudySettings(Source):
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
    def sizes(self) -> StudySize:
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
