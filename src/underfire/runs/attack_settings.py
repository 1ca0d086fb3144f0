"""What attacks are asked to do, alone and as the suite of an audit (see `underfire.runs.settings`).

settings = AttackSettings(model="demo", images="demo", interpreters=("cam", "rts"))
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from underfire.attacks.names import (
    BUDGETS,
    ENSEMBLE,
    NORMS,
    SOLVERS,
    STANDARD,
    SUITES,
    TARGET_CLASSES,
    TARGET_MAPS,
    Effort,
)
from underfire.core.checks import check_budget
from underfire.core.errors import UnderfireError
from underfire.detection.names import DETECTORS, families_in
from underfire.runs.settings import Inputs, Names, Settings

if TYPE_CHECKING:
    from underfire.data.regions import Region


def budget_in(text: object) -> object:
    """A budget as it is typed, a fraction or a number; anything but a text as it is.

    UnderfireError if it is neither.
    """
    if not isinstance(text, str):
        return text
    try:
        numerator, slash, denominator = text.partition("/")
        return float(numerator) / (float(denominator) if slash else 1)
    except (ValueError, ZeroDivisionError):
        raise UnderfireError(f"--eps {text} is not a number; write it like 8/255 or 0.031.") from None


def can_be_evaded(detector: str) -> bool:
    """Whether there are attacks that hide from a detector of that name."""
    return detector == ENSEMBLE or all(each.partition(":")[0] != ENSEMBLE for each in families_in(detector))


Budget = Annotated[float | None, Field(gt=0), BeforeValidator(budget_in)]
PixelBudget = Annotated[Budget, Field(le=1)]  # of every pixel value
RecipeName = Literal["annealed", "patch", "paper", "paper-densenet", "paper-isic"]


class Prescribed(Settings):
    """What overrides an attack's parameters."""

    model_config = ConfigDict(title="Attack")

    recipe: RecipeName = Field(
        default="annealed",
        description="annealed, patch (for a small --region), or the paper's: paper, paper-densenet, paper-isic.",
    )
    eps: Budget = Field(
        default=None,
        description="Budget of pgd in its norm, such as 8/255 (linf) or 0.5 (l2), or of square; default: the recipe's.",
    )
    effort: Effort | None = Field(
        default=None, description="How long hard images are attacked: quick, standard (default) or thorough."
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="ADV2 steps after the warm start, as many for every image, in place of an effort.",
    )
    queries: int | None = Field(
        default=None, ge=4, description="Queries of square for every image, in place of an effort, such as 5000."
    )

    @model_validator(mode="after")
    def _one_length(self) -> "Prescribed":
        if self.effort is not None and self.steps is not None:
            raise UnderfireError("--effort and --steps both say how long an attack is; give one of them.")
        if self.effort not in (None, STANDARD) and self.recipe.startswith("paper"):
            raise UnderfireError(
                f"The recipe '{self.recipe}' has the paper's steps; leave out --effort, or give --steps."
            )
        return self


class Varied(Settings):
    """What attacked maps are held against."""

    model_config = ConfigDict(title="Attack")

    variation: Literal["closed-form", "all"] = Field(
        default="closed-form",
        description="Whose natural variation is measured; all includes mask, for which it takes as long as its attack.",
    )


class AttackSettings(Inputs, Prescribed, Varied):
    """Everything that decides what a run computes; running again with other settings is another run."""

    model_config = ConfigDict(title="Attack")

    norm: Literal["linf", "l2"] = Field(
        default="linf", description="What keeps pgd's change small: linf, of every pixel value, or l2, of all together."
    )
    solvers: Names = Field(
        default=("pgd",),
        min_length=1,
        validate_default=True,
        validation_alias="solver",
        description="pgd changes pixel values, stadv bends the image, square changes pixel values by queries alone; or "
        "several.",
    )
    region: str | None = Field(
        default=None,
        description="Where pixels may change: left,top,width,height, a picture, white inside, or a folder of them.",
    )
    target_class: str = Field(
        default="random",
        description=f"{', '.join(TARGET_CLASSES)}: index N, or a CSV with columns file and target.",
    )
    target_map: str = Field(
        default="benign", description=f"{', '.join(TARGET_MAPS)}: a picture, white where important."
    )
    on_grid: bool = Field(
        default=False, description="Keep pgd's images on the grid of 8 bits, so that they are what a PNG file holds."
    )
    evade: Names = Field(
        default=(),
        description="Detectors to hide from as well, such as fs:median:3,fs+consistency: attacks of their own.",
    )

    @field_validator("solvers")
    @classmethod
    def _in_its_norm(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        """pgd as the solver of the norm that is asked for; info holds the fields before."""
        chosen = NORMS[info.data.get("norm", "linf")]
        return tuple(chosen if name == NORMS["linf"] else name for name in names)

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

    @model_validator(mode="after")
    def _budget_of_a_solver(self) -> "AttackSettings":
        asked = {"--eps": self.eps is not None, "--on-grid": self.on_grid, "--norm": self.norm != "linf"}
        wrong = next((option for option, given in asked.items() if given), None)
        if wrong is not None and not any("eps" in SOLVERS[each].budget for each in self.solvers):
            first = self.solvers[0]
            raise UnderfireError(f"Solver '{first}' {SOLVERS[first].does}; leave out {wrong}.")
        if self.eps is not None and NORMS["linf"] in self.solvers:
            check_budget(self.eps)
        if self.region is not None:
            from underfire.data.regions import check_region

            check_region(self.region)
        return self

    def within(self) -> "Region | None":
        """Where images may be changed; None for everywhere."""
        from underfire.data.regions import region_named

        return None if self.region is None else region_named(self.region, self.crop, self.resize)

    @model_validator(mode="after")
    def _evadable(self) -> "AttackSettings":
        from underfire.detection.registry import judgements_named

        for name in self.evade:
            if not can_be_evaded(name):
                raise UnderfireError(f"'{name}' cannot be evaded; name fs, consistency, fs+consistency or {ENSEMBLE}.")
            if name != ENSEMBLE:
                judgements_named(name, self.interpreters)
        return self

    @model_validator(mode="after")
    def _length_of_a_solver(self) -> "AttackSettings":
        counted = {SOLVERS[each].counts for each in self.solvers}
        for name in {"steps", "queries"} - counted:
            if getattr(self, name) is not None:
                (own,) = counted
                raise UnderfireError(f"Solver '{self.solvers[0]}' counts {own}; give --{own} in place of --{name}.")
        if self.evade and not any(SOLVERS[each].hides for each in self.solvers):
            raise UnderfireError(f"Solver '{self.solvers[0]}' hides from no detector; name another --solver as well.")
        return self

    @model_validator(mode="after")
    def _hiding_from_all(self) -> "AttackSettings":
        if ENSEMBLE in self.evade and (len(self.interpreters) < 2 or self.target_map != "benign"):
            raise UnderfireError(
                f"To evade '{ENSEMBLE}' is to show the benign maps of all interpreters at once; name two or more "
                "and no --target-map."
            )
        return self


class AuditSettings(Inputs):
    """What an audit attacks, with which suite, and the detector that is deployed beside the interpreters, if any."""

    model_config = ConfigDict(title="Audit")

    n: int = Field(default=100, ge=1, description="How many correctly classified images to attack.")
    suite: Literal["quick", "standard", "thorough"] = Field(
        default="standard", description="How much is tried: quick (PGD's ADV2, one rung), standard or thorough."
    )
    detector: str | None = Field(
        default=None, description=f"Detector that is deployed as well: {', '.join(DETECTORS)}; default: none."
    )
    eps: PixelBudget = Field(default=None, description="L-infinity budget, such as 8/255; default: the recipe's.")
    on_grid: bool = Field(
        default=False, description="Keep pgd's images on the grid of 8 bits, so that they are what a PNG file holds."
    )
    benign: int = Field(default=200, ge=2, description="Benign images to calibrate the detector on.")
    fpr: float = Field(default=0.05, gt=0, lt=1, description="False-positive rate of the detector.")

    @model_validator(mode="after")
    def _one_detector(self) -> "AuditSettings":
        from underfire.detection.registry import judgements_named

        if (
            self.detector is not None
            and len({each.family for each in judgements_named(self.detector, self.interpreters)}) > 1
        ):
            raise UnderfireError(f"--detector {self.detector} names several; an audit deploys one, such as fs.")
        return self

    def attacks(self) -> AttackSettings:
        """The attacks of the suite, those that evade the detector among them where there are such."""
        effort, solvers = SUITES[self.suite]
        given = {
            name: getattr(self, name) for name in (*Inputs.model_fields, "eps", "on_grid") if name != "interpreters"
        }
        asked = BUDGETS[STANDARD] if any(SOLVERS[each].counts == "queries" for each in solvers) else None
        length: dict[str, Any] = {"effort": effort, "queries": asked}
        made = AttackSettings(**given, **length, solvers=solvers, evade=self._evaded(), variation="all")
        return made.model_copy(update={"interpreters": self.interpreters})

    def _evaded(self) -> tuple[str, ...]:
        """The detector, if it can be evaded; to attacks `consistency` alone would mean that of their own maps."""
        if self.detector is None or not can_be_evaded(self.detector):
            return ()
        of_all = f"consistency:{'+'.join(each.partition(':')[0] for each in self.interpreters)}"
        several = len(self.interpreters) > 1
        families = families_in(self.detector)
        return ("+".join(of_all if each == "consistency" and several else each for each in families),)
