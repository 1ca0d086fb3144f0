"""A classifier over [0, 1] images, whatever network stands behind it.

    model = Classifier(net, mean=(.485, .456, .406), std=(.229, .224, .225))
    logits = model(images).logits

`Classifier` works on a private copy of the network (evaluation mode, frozen, on its own device and
memory format), so the network it was given is never touched: no mode, flag, hook or bit changes.
"""

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from underfire.core.types import Evidence, Images, Logits, UnderfireError
from underfire.models.loading import NORMALISATIONS, LoadedNetwork, load_network
from underfire.models.outputs import check_shape
from underfire.models.tracing import Head, Located, trace, watching

IMAGENET_MEAN, IMAGENET_STD = NORMALISATIONS["imagenet"]


class Classifier:
    """A frozen private copy of `net` behind its normalisation.

    net maps normalised RGB N3HW to logits NK with K >= 2. `features` names the layer whose output CAM
    and Grad-CAM read; by default it is found by tracing the first forward pass that needs it.
    """

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        *,
        features: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UnderfireError(f"The normalisation needs 3 means and 3 positive deviations, not {mean} / {std}.")
        self.device = torch.device(device)
        self._net = _private_copy(net, self.device)
        weights = [p for p in self._net.parameters() if p.is_floating_point()]
        self.dtype = weights[0].dtype if weights else torch.get_default_dtype()
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        with torch.inference_mode(False):
            self._mean, self._std = (
                torch.tensor(v, dtype=self.dtype, device=self.device).view(1, 3, 1, 1) for v in (mean, std)
            )
        self.origin: LoadedNetwork | None = None
        self._fingerprint: str | None = None
        self._captured: Tensor | None = None
        self._named, self._located = features, cast(Located | None, None)
        if features is not None:
            self._capture(features)

    @classmethod
    def load(
        cls,
        reference: str,
        weights: str | None = None,
        normalize: str | None = None,
        *,
        features: str | None = None,
        device: torch.device | str = "cpu",
    ) -> "Classifier":
        """`torchvision:NAME`, `path/file.py:builder` or `demo`; weights are an enum name or a state-dict file.

        The normalisation comes from `normalize` ("imagenet", "none", "M,M,M/S,S,S"), else from the weights,
        else it is ImageNet's; `origin` tells. UnderfireError names what is wrong with any of them.
        """
        origin = load_network(reference, weights, normalize)
        classifier = cls(origin.net, origin.mean, origin.std, features=features, device=device)
        classifier.origin = replace(origin, net=classifier.network)
        return classifier

    def __call__(self, x: Images) -> Evidence:
        """One forward pass; differentiable in x. UnderfireError unless the network returns logits NK."""
        z = (x.to(self.dtype) - self._mean) / self._std
        if self.device.type == "cpu":
            z = z.contiguous(memory_format=torch.channels_last)
        logits = check_shape(self._net(z), len(x))
        features, self._captured = self._captured, None
        return Evidence(logits, features)

    def tap(self, x: Images, layers: Iterable[str]) -> tuple[Logits, list[Tensor]]:
        """One forward pass: the logits and what these layers gave when last called; differentiable in x."""
        named, outputs = {name: self._layer(name) for name in layers}, dict[str, Tensor]()

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name] = output

        with watching(named.items(), keep):
            logits = self(x).logits
        if missing := [name for name in named if not isinstance(outputs.get(name), Tensor)]:
            raise UnderfireError(f"Layer '{missing[0]}' gives no tensor in a forward pass; name another layer.")
        return logits, [outputs[name] for name in named]

    @property
    def network(self) -> nn.Module:
        """The private copy, for code that must look at its layers; treat it as read-only."""
        return self._net

    @property
    def features_layer(self) -> str | None:
        """Name of the layer whose output is read as features; None until located or named."""
        return self._named if self._located is None else self._located.layer

    def locate_features(self, x: Images) -> None:
        """Make sure that Evidence.features is filled; UnderfireError lists the candidate layers if none is found."""
        if self._located is not None:
            return
        located, candidates = trace(self._net, lambda: self(x[:1]).logits, self._named)
        if self._named is not None:
            if self(x[:1]).features is None:
                raise UnderfireError(f"Layer '{self._named}' gives no feature maps (N, D, h, w); name another layer.")
            self._located = located or Located(self._named, False, None)
        elif located is not None:
            self._capture(located.layer)
            self._located = located
        else:
            raise UnderfireError(
                "No layer was found whose spatial mean feeds the last linear layer or the logits; name the "
                f"layer to explain with features= (--features). Candidates: {', '.join(candidates)}."
            )

    def find_head(self, x: Images) -> Head | None:
        """The head behind the features; None where the network is not built for CAM."""
        self.locate_features(x)
        assert self._located is not None
        return self._located.head

    def locate_head(self, x: Images) -> Head:
        """The head behind the features; UnderfireError where the network is not built for CAM."""
        head = self.find_head(x)
        if head is None:
            raise UnderfireError(
                f"CAM needs global average pooling and one linear layer behind '{self.features_layer}', which this "
                "network has not; use Grad-CAM (grad-cam), or name another layer with features= (--features)."
            )
        return head

    def revised(self, change: Callable[[nn.Module], None]) -> "Classifier":
        """A copy, read at the same layer, whose network `change` has altered; this classifier stays as it is."""
        other = copy.deepcopy(self)
        with torch.inference_mode(False), torch.no_grad():
            change(other._net)
        other._fingerprint = None
        return other

    def fingerprint(self) -> str:
        """Hash of the architecture's layer names, all weights and the normalisation; computed once."""
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        digest = hashlib.blake2b(f"{type(self._net).__name__}{self.mean}{self.std}".encode(), digest_size=8)
        for name, value in self._net.state_dict().items():
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _layer(self, name: str) -> nn.Module:
        try:
            return self._net.get_submodule(name)
        except AttributeError:
            names = ", ".join(child for child, _ in self._net.named_children())
            raise UnderfireError(f"The model has no layer '{name}'; its top layers are: {names}.") from None

    def _capture(self, name: str) -> None:
        self._layer(name).register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """The hook; a method, so that a copy of the classifier brings its own."""
        if isinstance(output, Tensor) and output.ndim == 4:
            rectified = self._located is not None and self._located.rectified
            self._captured = output.relu() if rectified else output


def _private_copy(net: nn.Module, device: torch.device) -> nn.Module:
    if not isinstance(net, nn.Module):
        raise UnderfireError(f"A model must be a torch.nn.Module, not {type(net).__name__}.")
    with torch.inference_mode(False):
        private = copy.deepcopy(net).eval().requires_grad_(False).to(device)
        if device.type == "cpu":
            private = private.to(memory_format=torch.channels_last)
    return private
