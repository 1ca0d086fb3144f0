"""The files of trained networks: a state dict as safetensors, with a manifest that says what it is for.

    write_network(path, ClassifierManifest(...), network)
    manifest = read_manifest(path, ClassifierManifest)      # None for weights of any other origin

The manifest is JSON in the file's metadata; no code is ever read from it.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from underfire.core.errors import UnderfireError, first_line
from underfire.core.io import write_atomically

Triple = tuple[float, float, float]
Count = Annotated[int, Field(ge=1, le=1_000_000)]  # so that a file cannot ask for more than a computer has
LARGEST_SIDE, MOST_LAYERS = 10_000, 16


class Manifest(BaseModel):
    """`kind` names the network in sentences, and its manifest in the file's metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str]


M = TypeVar("M", bound=Manifest)


class ClassifierManifest(Manifest):
    """What a classifier knows, what images it wants (sizes in pixels) and where it comes from."""

    kind = "classifier"

    format: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    mean: Triple
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    resize: PositiveInt | None = Field(default=None, le=LARGEST_SIDE)
    crop: PositiveInt | None = Field(default=None, le=LARGEST_SIDE)
    training: dict[str, Any] = {}
    scores: dict[str, float] = {}


class Encoder(BaseModel):
    """Where a masker's features come from: layers deepest first, of the classifier itself or of another network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[str, ...] = Field(min_length=1, max_length=MOST_LAYERS)
    channels: tuple[Count, ...]  # of each layer
    fingerprint: str | None = None  # of the other network; None for the classifier's own features
    reference: str | None = None
    weights: str | None = None
    normalize: str | None = None
    shares_classes: bool = True  # whether its logits are of the classifier's classes

    @model_validator(mode="after")
    def _one_count_per_layer(self) -> "Encoder":
        if len(self.layers) != len(self.channels):
            raise ValueError("as many counts of channels as layers are needed")
        return self


class MaskerManifest(Manifest):
    """What a masker is for, what it looks like and where it comes from."""

    kind = "masker"

    format: int = 1
    classifier: str  # fingerprint
    classes: Count
    encoder: Encoder
    width: Count
    training: dict[str, Any] = {}
    scores: dict[str, float | None] = {}


def write_network(path: Path, manifest: Manifest, network: nn.Module) -> None:
    """Write weights and manifest as one file, in one move."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    metadata = {manifest.kind: manifest.model_dump_json()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_manifest(path: Path, kind: type[M]) -> M | None:
    """The manifest in a weight file, None if it has none of that kind; UnderfireError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(kind.kind)
    except (SafetensorError, OSError) as problem:
        if path.suffix != ".safetensors":
            return None
        raise UnderfireError(f"{path} cannot be read as weights: {first_line(problem)}.") from problem
    if text is None:
        return None
    try:
        return kind.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "manifest"
        raise UnderfireError(f"The {kind.kind} in {path} has a damaged manifest ({place}: {first['msg']}).") from None
