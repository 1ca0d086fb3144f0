"""What a run is asked to do: the one definition of every option, its name, type, default, bounds and help.

    settings = AttackSettings(model="demo", images="demo", interpreters=("cam", "rts"))

A field with a description is an option of every command that takes its class: `underfire.cli.options` makes the command
line of it, and the documentation its tables. The title of a class is the panel under which help shows its options.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from underfire.attacks.names import (
    BUDGETS,
    ENSEMBLE,
    GIVEN,
    NORMS,
    OTHERS,
    QUICK,
    SOLVERS,
    STANDARD,
    SUITES,
    TARGET_CLASSES,
    TARGET_MAPS,
    THOROUGH,
    Effort,
    attacker,
)
from underfire.core.checks import check_budget
from underfire.core.errors import UnderfireError
from underfire.data.names import PREDICTED
from underfire.detection.names import DETECTORS, families_in
from underfire.interpreters.registry import INTERPRETERS, canonical, interpreter_named

if TYPE_CHECKING:
    import torch

    from underfire.data.image_set import ImageSet
    from underfire.data.regions import Region
    from underfire.interpreters import Interpreter
    from underfire.models.classifier import Classifier
    from underfire.models.loading import LoadedNetwork


def names_in(text: object) -> object:
    """The names in a comma-separated list; anything but a text as it is."""
    return tuple(name.strip() for name in text.split(",")) if isinstance(text, str) else text


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


P = TypeVar("P", bound="Photos")
Names = Annotated[tuple[str, ...], BeforeValidator(names_in)]
Budget = Annotated[float | None, Field(gt=0), BeforeValidator(budget_in)]
RecipeName = Literal["annealed", "patch", "paper", "paper-densenet", "paper-isic"]


class Settings(BaseModel):
    """Frozen options; anything that is not an option is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def options_of(kind: type[Settings]) -> dict[str, FieldInfo]:
    """The fields that are options."""
    return {name: field for name, field in kind.model_fields.items() if field.description}


def option_name(name: str, field: FieldInfo) -> str:
    """A field as it is typed, without the dashes."""
    return str(field.validation_alias or name).replace("_", "-")


class Machine(Settings):
    """Where it is computed."""

    model_config = ConfigDict(title="Run")

    device: str = Field(default="auto", description="cpu, cuda, cuda:1 …; auto takes a GPU if there is one.")


class Batches(Machine):
    """Where it is computed, and how much at a time."""

    batch: int = Field(default=16, ge=1, description="Images worked on at a time.")


class Distributed(Batches):
    """Where it is computed, how much at a time, and by how many processes."""

    workers: int = Field(default=1, ge=1, description="Processes that compute; more than one need Ray.")
    ray: str | None = Field(
        default=None, description="Ray cluster to compute on: auto, HOST:PORT or ray://HOST:PORT; default: none."
    )
    threads: int | None = Field(
        default=None, ge=1, description="Threads of each process on a CPU; default: one for each worker, all for one."
    )

    @property
    def alone(self) -> bool:
        """Whether this process computes."""
        return self.workers == 1 and self.ray is None


class Seeded(Settings):
    """What is drawn."""

    model_config = ConfigDict(title="Run")

    seed: int = Field(default=0, description="Seed of every random choice.")


class Sampled(Seeded):
    """How many images are drawn."""

    n: int = Field(default=16, ge=1, description="How many correctly classified images to attack.")


class Weighted(Settings):
    """What a network was trained to."""

    model_config = ConfigDict(title="Classifier")

    weights: str | None = Field(default=None, description="DEFAULT or another torchvision name, or a state-dict file.")
    normalize: str | None = Field(default=None, description="imagenet, none, or M,M,M/S,S,S.")


class Viewed(Weighted):
    """What a network was trained to, what it returns, and what is read of it."""

    features: str | None = Field(default=None, description="Layer that CAM and Grad-CAM explain; default: found.")
    layout: Literal["channels-first", "channels-last", "tokens"] | None = Field(
        default=None, description="Where that layer's output has its channels; default: found."
    )
    outputs: Literal["logits", "probabilities"] | None = Field(
        default=None, description="What the model returns: logits, or probabilities, whose logarithm is taken."
    )

    def load(self, model: str, device: "torch.device | str") -> "Classifier":
        """The classifier of that name; UnderfireError says what is wrong with it."""
        from underfire.models.classifier import Classifier

        return Classifier.load(
            model,
            self.weights,
            self.normalize,
            features=self.features,
            layout=self.layout,
            outputs=self.outputs,
            device=device,
        )


class Network(Weighted):
    """The classifier, as it is named on the command line."""

    model: str = Field(description="torchvision:NAME, timm:NAME, hf:ID-or-folder, path/file.py:builder, or demo.")


class Photos(Settings):
    """The images, as they are named on the command line."""

    model_config = ConfigDict(title="Images")

    images: str = Field(description="Folder of images, .npz with images and labels, a run folder, or demo.")
    labels: str | None = Field(
        default=None,
        description="CSV: file, class_index [, class_name]; HAM10000's or ISIC 2018's own; or predicted: what the "
        "classifier reports is taken for true.",
    )
    split: str | None = Field(
        default=None,
        description="Part of the images: of the table's column split; else train or test, by lesion.",
    )
    crop: int | None = Field(default=None, description="Centre crop in pixels; default: the weights' own.")
    resize: int | None = Field(default=None, description="Short side in pixels, before the crop.")
    interpolation: str | None = Field(
        default=None, description="How images are resized, bilinear or bicubic; default: the weights' own."
    )

    @property
    def unlabelled(self) -> bool:
        """Whether what the classifier reports is taken for true."""
        return self.labels == PREDICTED

    def open_images(self, scenes: int = 200) -> "ImageSet":
        """The images, so many of the demo's; those of a run as they are. UnderfireError if there are none."""
        from underfire.data.demo import demo_images
        from underfire.data.image_set import open_images
        from underfire.runs.reused import images_of_run, is_run

        if self.images == "demo" and self.split is not None:
            raise UnderfireError(f"The demo's scenes are not split; leave out --split {self.split}.")
        if self.images == "demo":
            return demo_images(scenes).unlabelled() if self.unlabelled else demo_images(scenes)
        if is_run(self.images):
            return images_of_run(self.images, self.labels, self.split)
        return open_images(self.images, self.labels, self.crop, self.resize, self.split, self.interpolation)


def sized(settings: P, origin: "LoadedNetwork | None") -> P:
    """With the sizes that a network's weights want, and the way to resize, where none are asked for."""
    if origin is None:
        return settings
    own: dict[str, Any] = {"interpolation": settings.interpolation or origin.interpolation}
    if settings.crop is None:
        own |= {"crop": origin.crop, "resize": origin.resize if settings.resize is None else settings.resize}
    return settings.model_copy(update=own)


class Masked(Settings):
    """Where the objects in the images are."""

    model_config = ConfigDict(title="Images")

    masks: str | None = Field(
        default=None, description="Folder of NAME.png, white where the object is; the demo has its own."
    )


class Source(Photos, Viewed, Network):
    """The classifier and the images of a run."""

    model_config = ConfigDict(title="Classifier")


class Explained(Settings):
    """The interpreters."""

    model_config = ConfigDict(title="Attack")

    interpreters: Names = Field(
        default=("cam", "grad"),
        validation_alias="interpreter",
        description=f"Comma-separated: {', '.join(INTERPRETERS)}; with its masker, rts:FILE; smoothed, smooth:NAME; of "
        "others, captum:METHOD, gradcam:METHOD, zennit:COMPOSITE or file.py:function.",
    )

    @field_validator("interpreters")
    @classmethod
    def _as_we_write_them(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical, names))

    def explainers(self) -> "list[Interpreter]":
        """The interpreters that the names mean."""
        return [interpreter_named(name) for name in self.interpreters]


class ProbeSettings(Viewed, Network, Explained):
    """Which explanations of which classifier, on pictures of the probe's own."""

    model_config = ConfigDict(title="Classifier")

    crop: int | None = Field(default=None, ge=8, description="Side of the pictures; default: the weights' own.")


class Inputs(Source, Sampled, Explained):
    """The classifier, the images and the interpreters of a run; running again with others is another run."""

    @field_validator("interpreters")
    @classmethod
    def _known_and_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [interpreter_named(name).name for name in names]
        if repeated := [name for name in known if known.count(name) > 1]:
            raise UnderfireError(f"Interpreter '{repeated[0]}' is named twice; name it once.")
        return names


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
    evade: Names = Field(  # further attacks of the first solver
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
        self.within()
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
        if self.evade and SOLVERS[self.solvers[0]].counts == "queries":
            raise UnderfireError(f"Solver '{self.solvers[0]}' hides from no detector; name another --solver first.")
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
    eps: Budget = Field(default=None, description="L-infinity budget, such as 8/255; default: the recipe's.")
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
