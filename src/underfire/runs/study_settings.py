"""What is asked of attacked images, ours and others', and of studies (see `underfire.runs.settings`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from underfire.attacks.names import BUDGETS, GIVEN, OTHERS, QUICK, STANDARD, THOROUGH, attacker
from underfire.core.errors import UnderfireError
from underfire.detection.names import DETECTORS
from underfire.interpreters.registry import INTERPRETERS, canonical
from underfire.runs.attack_settings import PixelBudget, Prescribed, Varied
from underfire.runs.settings import Explained, Inputs, Masked, Names, Seeded, Source, Viewed


class EvaluateSettings(Inputs, Varied):
    """Images that somebody else's attack made, beside those that it began from."""

    model_config = ConfigDict(title="Attacked")

    images: str = Field(
        validation_alias="benign",
        description="Benign images: folder, .npz, a run folder, or demo; more than those attacked do no harm.",
    )
    attacked: str = Field(
        description="What the attack made of them: folder with the same names, .npz, or RUN:ATTACK[:INTERPRETER]."
    )
    name: str = Field(default=GIVEN, min_length=1, description="What the attack is to be called.")
    target_class: str | None = Field(
        default=None,
        description="The class it was after: index N, a CSV with columns file and target, next or least-likely; "
        "default: any but the true one.",
    )
    n: int = Field(default=0, ge=0, description="How many correctly classified pairs to look at; 0: all.")

    @field_validator("name")
    @classmethod
    def _not_one_of_ours(cls, name: str) -> str:
        if attacker(name) is not None or (name in OTHERS and name != GIVEN):
            raise UnderfireError(f"'{name}' is what underfire calls something of its own; give another --name.")
        return name


class DetectSettings(Seeded):
    """Which detectors against which attacks (all, where none is named), and on how many benign images to calibrate."""

    model_config = ConfigDict(title="Detection")

    detector: str = Field(default="fs", description=f"Comma-separated: {', '.join(DETECTORS)}.")
    attacks: Names = Field(
        default=(),
        validation_alias="attack",
        description="Comma-separated names of the run's attacks; default: all of them.",
    )
    benign: int = Field(default=200, ge=2, description="Benign images to calibrate on, half of them to check.")
    fpr: float = Field(default=0.05, gt=0, lt=1, description="False-positive rate to calibrate for.")


class TransferSettings(Viewed):
    """By which other interpreters or classifier a run's images are seen."""

    model_config = ConfigDict(title="Seen by")

    interpreters: Names | None = Field(
        default=None,
        validation_alias="interpreter",
        description=f"Comma-separated: {', '.join(INTERPRETERS)}; default: those of the run.",
    )
    model: str | None = Field(
        default=None, description="Another classifier to see the images by; default: that of the run."
    )

    @field_validator("interpreters")
    @classmethod
    def _as_we_write_them(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(map(canonical, names))

    @model_validator(mode="after")
    def _of_another_model(self) -> "TransferSettings":
        of_it = [name for name in Viewed.model_fields if getattr(self, name) is not None]
        if self.model is None and of_it:
            raise UnderfireError(f"--{of_it[0]} is that of another --model; name it or leave --{of_it[0]} out.")
        return self


@dataclass(frozen=True)
class StudySize:
    """How many images are attacked, searched for objects, and taken to calibrate detectors; how much may be asked."""

    attacked: int
    located: int
    benign: int
    queries: int


SCALES: Mapping[str, StudySize] = MappingProxyType(
    {
        "quick": StudySize(4, 40, 80, BUDGETS[QUICK]),
        "standard": StudySize(64, 200, 200, BUDGETS[STANDARD]),
        "full": StudySize(1000, 1000, 400, BUDGETS[THOROUGH]),
    }
)


class StudySettings(Source, Masked, Explained, Prescribed, Seeded):
    """The options that all studies share; `n` overrides the scale's number of attacked images."""

    model_config = ConfigDict(title="Study")

    eps: PixelBudget = Field(
        default=None, description="L-infinity budget of pgd, such as 8/255; default: the recipe's."
    )
    defended: Names = Field(default=(), description="Defended interpreters for the study aid: rts:FILE,smooth:NAME.")
    surrogates: Names = Field(
        default=(),
        validation_alias="surrogate",
        description="Other classifiers of the same classes for the study blackbox to attack in place of the model, "
        "comma-separated: MODEL or MODEL@WEIGHTS.",
    )
    scale: Literal["quick", "standard", "full"] = Field(
        default="standard", description=f"How many images: {', '.join(SCALES)}."
    )
    n: int | None = Field(default=None, ge=1, description="Images in place of the scale's.")
    anchors: Literal["resnet", "densenet"] | None = Field(
        default=None,
        description="The paper's network to compare with: resnet or densenet; default: by the model's architecture.",
    )

    @field_validator("defended")
    @classmethod
    def _defended_as_we_write_them(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical, names))

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
        return {"recipe": self.recipe, "eps": self.eps, "effort": self.effort, "steps": self.steps}
