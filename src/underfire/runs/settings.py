"""What a run is asked to do: the one definition of every option, its name, type, default, bounds and help.

    settings = AttackSettings(model="demo", images="demo", interpreters=("cam", "rts"))

A field with a description is an option of every command that takes its class: `underfire.cli.options` makes the command
line of it, and the documentation its tables. The title of a class is the panel under which help shows its options.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from underfire.core.errors import UnderfireError
from underfire.data.names import PREDICTED
from underfire.interpreters.registry import INTERPRETERS, canonical, interpreter_named

if TYPE_CHECKING:
    import torch

    from underfire.data.image_set import ImageSet
    from underfire.interpreters import Interpreter
    from underfire.models.classifier import Classifier
    from underfire.models.loading import LoadedNetwork


def names_in(text: object) -> object:
    """The names in a comma-separated list; anything but a text as it is."""
    return tuple(name.strip() for name in text.split(",")) if isinstance(text, str) else text


P = TypeVar("P", bound="Photos")
Names = Annotated[tuple[str, ...], BeforeValidator(names_in)]


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

    batch: int | None = Field(
        default=None, ge=1, description="Images worked on at a time; default: 16, on a GPU what its memory holds."
    )


class Shared(Machine):
    """Where it is computed, and by how many processes."""

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


class Distributed(Shared, Batches):
    """Where it is computed, how much at a time, and by how many processes."""


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
