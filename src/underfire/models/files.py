"""A trained classifier's file: its state dict as safetensors, with a manifest that says what images it wants.

write_classifier(path, Manifest(...), network)
manifest = read_manifest(path)                  # None for weights of any other origin
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from underfire.core.io import write_atomically
from underfire.core.types import UnderfireError

ENTRY = "classifier"  # in the metadata of the file

Triple = tuple[float, float, float]


class Manifest(BaseModel):
    """What a classifier knows, what images it wants (sizes in pixels) and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = 1
    classes: tuple[str, ...] = Field(min_length=2)
    mean: Triple
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    resize: PositiveInt | None = None
    crop: PositiveInt | None = None
    training: dict[str, Any] = {}
    scores: dict[str, float] = {}


def write_classifier(path: Path, manifest: Manifest, network: nn.Module) -> None:
    """Write weights and manifest as one file, in one move."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    metadata = {ENTRY: manifest.model_dump_json()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_manifest(path: Path) -> Manifest | None:
    """The manifest in a weight file, None if it has none; UnderfireError if it is damaged."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(ENTRY)
    except (SafetensorError, OSError) as problem:
        raise UnderfireError(f"{path} cannot be read as weights: {str(problem).splitlines()[0]}.") from problem
    if text is None:
        return None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "manifest"
        raise UnderfireError(f"The classifier in {path} has a damaged manifest ({place}: {first['msg']}).") from None
