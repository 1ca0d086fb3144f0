"""A classifier by what it is loaded from, for processes that must load the very same one.

Reference.of(settings.model_dump(), classifier).load(device)
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underfire.core.errors import UnderfireError
from underfire.models.classifier import Classifier
from underfire.runs.paths import found
from underfire.runs.settings import Viewed


@dataclass(frozen=True)
class Reference:
    """What a classifier is loaded by, and the fingerprint that it must have; `folder` is where its files are named
    from, if they are not found in a worker's own."""

    source: Mapping[str, Any]
    fingerprint: str
    folder: str

    @classmethod
    def of(cls, source: Mapping[str, Any], classifier: Classifier, folder: str | None = None) -> "Reference":
        """How to load this classifier again: `source` holds its name and what `Viewed` says of it."""
        named = {name: source[name] for name in ("model", *Viewed.model_fields) if name in source}
        return cls(named, classifier.fingerprint(), folder or str(Path.cwd()))

    def load(self, device: torch.device) -> Classifier:
        """The classifier; UnderfireError if it cannot be loaded here or is another one."""
        given, here = found(self.source, self.folder), f"A worker on {socket.gethostname()}"
        model = given.pop("model")
        try:
            classifier = Viewed(**given).load(model, device)
        except UnderfireError as problem:
            raise UnderfireError(f"{here} cannot load the model: {problem}") from problem
        if classifier.fingerprint() != self.fingerprint:
            raise UnderfireError(
                f"{here} was refused: its model {model} has the fingerprint {classifier.fingerprint()}, not "
                f"{self.fingerprint}; give all nodes the same code and weights."
            )
        return classifier
