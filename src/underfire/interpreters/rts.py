"""RTS: a network trained once per classifier shows in one pass what the class needs (Dabkowski and Gal 2017; Eq. 8).

    m = masker(features of x; y),   1/4 of the input side (1/2 below 64 pixels)

The features are the classifier's own, so that one forward pass gives prediction and map, or those of another
network. Attacker and deployed interpreter share the closed form; the attack has a further term "encoder":

    l_enc = -log p_y of the encoder's own head, or where it has none for these classes
            the mean squared distance of its pooled deepest features from those of images of class y
"""

from dataclasses import dataclass, field, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import cell_grid
from underfire.core.losses import log_odds
from underfire.core.types import Features, Images, Keys, Labels, Logits, Maps, Reading, Row
from underfire.interpreters.protocol import ClosedForm, NoBelief, reading
from underfire.models.classifier import Classifier
from underfire.models.masker import Masker, read_masker
from underfire.models.tracing import named_layers, same, watching

DEMO_AID = "demo-aid"


@dataclass(frozen=True)
class RTS(ClosedForm):
    """A trained masker as an interpreter; it is what its file holds, wherever that file lies."""

    draws: ClassVar[bool] = False

    digest: str
    masker: Masker = field(compare=False, repr=False)
    encoder: Classifier | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, path: str | Path, encoder: Classifier | None = None) -> "RTS":
        """The masker that `underfire train rts` wrote; `encoder` is the other network it sees through, if any.

        UnderfireError if the file is missing or damaged, or if the encoder is another one.
        """
        masker = read_masker(Path(path))
        return cls(masker.digest, masker, _encoder(masker, path, encoder))

    @classmethod
    def demo(cls, masker: str = "demo-masker") -> "RTS":
        """The masker of the demo's classifier that comes with the package; "demo-masker-aid" is the same after AID."""
        with as_file(files("underfire.models") / "weights" / f"{masker}.safetensors") as path:
            return cls.load(path)

    @classmethod
    def named(cls, argument: str | None) -> "RTS":
        """What the command line means by rts:FILE, by rts alone, and by rts:demo-aid, the demo's masker after AID.

        rts:FILE@MODEL names the other network that the masker sees through; no file does, for that would run its code.
        """
        if argument is None:
            return cls.demo()
        if argument == DEMO_AID:
            return cls.demo("demo-masker-aid")
        file, _, encoder = argument.partition("@")
        return cls.load(file, _named_encoder(file, encoder) if encoder else None)

    @property
    def name(self) -> str:
        return "rts"

    def rebind(self, classifier: Classifier) -> "RTS":
        """The same masker on the features of a classifier that it was not trained for; tells what masks depend on."""
        manifest = self.masker.manifest.model_copy(update={"classifier": classifier.fingerprint()})
        return replace(self, masker=replace(self.masker, manifest=manifest))

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.no_grad():
            return self._view(classifier, x, y)[1]

    def read(self, classifier: Classifier, belief: NoBelief, x: Images, y: Labels) -> Reading:
        logits, maps, encoder_loss = self._view(classifier, x, y)
        return replace(reading(logits, maps, y), terms={"encoder": encoder_loss})

    def _view(self, classifier: Classifier, x: Images, y: Labels) -> tuple[Logits, Maps, Row]:
        """Logits, masks and encoder loss at x."""
        manifest = self.masker.manifest
        if classifier.fingerprint() != manifest.classifier:
            raise UnderfireError(
                f"The masker was trained for another classifier (fingerprint {manifest.classifier}; this one has "
                f"{classifier.fingerprint()}); train one for this: underfire train rts --model … --images … --out …"
            )
        encoder = self.encoder or classifier
        there = encoder.device
        of_encoder, features = encoder.tap(x.to(there), manifest.encoder.layers)
        logits = of_encoder if self.encoder is None else classifier(x)
        with torch.inference_mode(False):
            network = self.masker.network.to(there, features[0].dtype)
        maps = network(features, y.to(there), *cell_grid(x))
        return logits, maps.to(logits), self._encoder_loss(of_encoder, features[0], y.to(there)).to(logits)

    def _encoder_loss(self, logits: Logits, deepest: Features, y: Labels) -> Row:
        if self.masker.manifest.encoder.shares_classes:
            return -torch.nn.functional.logsigmoid(log_odds(logits, y))
        return self.masker.network.prototype_distance(deepest, y)


def _named_encoder(file: str, reference: str) -> Classifier:
    """The network of that name, normalised as when the masker in the file was trained."""
    return Classifier.load(reference, normalize=read_masker(Path(file)).manifest.encoder.normalize)


def _encoder(masker: Masker, path: str | Path, given: Classifier | None) -> Classifier | None:
    wanted = masker.manifest.encoder
    if wanted.fingerprint is None and given is not None:
        raise UnderfireError(f"The masker in {path} sees through its classifier's own features; leave out encoder=.")
    if wanted.fingerprint is None:
        return None
    reference, weights = wanted.reference or "", wanted.weights or ""
    if given is None and reference.startswith("torchvision:") and weights and not Path(weights).suffix:
        given = Classifier.load(reference, weights, wanted.normalize)
    if given is None:
        raise UnderfireError(
            f"The masker in {path} sees through another network than its classifier; name that network, as in "
            f"rts:{path}@models.py:build, or in Python: RTS.load(path, encoder=Classifier(…))."
        )
    if given.fingerprint() != wanted.fingerprint:
        raise UnderfireError(
            f"The masker in {path} was trained on the features of another network (fingerprint {wanted.fingerprint}; "
            f"the one given has {given.fingerprint()})."
        )
    return given


MOST_SCALES = 4


@dataclass(frozen=True)
class EncoderScale:
    """A layer whose output (N, channels, rows, columns) has a spatial size of its own."""

    layer: str
    channels: int
    rows: int
    columns: int


def find_scales(classifier: Classifier, x: Images) -> tuple[EncoderScale, ...]:
    """Up to four scales, deepest first, none finer than the grid of masks unless there is no other.

    UnderfireError where the network has no layer with features (N, D, h, w).
    """
    outputs: dict[str, Tensor] = {}

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            outputs.pop(name, None)
            outputs[name] = output

    with watching(named_layers(classifier.network), record), torch.no_grad():
        logits = classifier(x[:1])
    last = {
        tuple(output.shape[2:]): EncoderScale(name, *output.shape[1:])
        for name, output in outputs.items()
        if not any(same(maps.mean((2, 3)), logits) for maps in (output, output.relu()))
    }
    scales = sorted(last.values(), key=lambda scale: scale.rows * scale.columns)
    if not scales:
        raise UnderfireError(
            "No layer of this network gives feature maps (N, D, h, w), which a masker needs to see where things are; "
            "give it another network's with encoder= (--encoder)."
        )
    rows, columns = cell_grid(x)
    coarse = [s for s in scales if s.rows <= rows and s.columns <= columns]
    return tuple(coarse[:MOST_SCALES] or scales[:1])
