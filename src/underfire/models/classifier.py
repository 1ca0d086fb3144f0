"""A classifier over [0, 1] images, whatever network stands behind it.

    model = Classifier(net, mean=(.485, .456, .406), std=(.229, .224, .225))
    logits = model(images)
    evidence = model.evidence(images)       # logits and features of the same forward pass

`Classifier` is a torch.nn.Module, so that whatever attacks or explains one takes it as it is. It works on a private
copy of the network (evaluation mode, frozen, in a memory format of its own), so the network it was given is never
touched: no mode, flag, hook or bit changes.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.core.types import Evidence, Images, Logits
from underfire.models.copying import copied, fingerprint, private_copy
from underfire.models.loading import NORMALISATIONS, LoadedNetwork, check_normalisation, load_network
from underfire.models.outputs import check_shape
from underfire.models.tracing import Head, Located, trace, watching

IMAGENET_MEAN, IMAGENET_STD = NORMALISATIONS["imagenet"]


class Classifier(nn.Module):
    """A frozen private copy of `net` behind its normalisation; training it is not its affair, nor anybody's.

    net maps normalised RGB N3HW to logits NK with K >= 2. `features` names the layer whose output CAM
    and Grad-CAM read; by default it is found by tracing the first forward pass that needs it.
    """

    network: nn.Module  # the private copy, for code that looks at its layers; treat it as read-only
    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        *,
        features: str | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.mean, self.std = check_normalisation(mean, std)
        self.network = private_copy(net, torch.device(device))
        weights = [p for p in self.network.parameters() if p.is_floating_point()]
        dtype = weights[0].dtype if weights else torch.get_default_dtype()
        with torch.inference_mode(False):
            for name, values in (("_mean", self.mean), ("_std", self.std)):
                tensor = torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
                self.register_buffer(name, tensor, persistent=False)
        self._format: torch.memory_format | None = None  # of images and weights; None until the first pass
        self._differentiable = True
        self.origin: LoadedNetwork | None = None
        self._fingerprint: str | None = None
        self._named, self._located = features, cast(Located | None, None)
        if features is not None:
            self._layer(features)
        super().train(False)

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

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that it computes in, whatever the images' own."""
        return self._mean.dtype

    def __call__(self, x: Images) -> Logits:
        logits: Logits = super().__call__(x)
        return logits

    def forward(self, x: Images) -> Logits:
        """Logits by one pass; differentiable in x. UnderfireError unless the network returns logits NK."""
        self._settle(x)
        if x.requires_grad and torch.is_grad_enabled() and not self._differentiable:
            raise UnderfireError(
                "The model's outputs have no gradient in the image, which attacks and explanations need: it is "
                "quantised, detaches its input or computes outside of autograd. Give the network that it was made from."
            )
        return check_shape(self.network(self._normalised(x)), len(x))

    def evidence(self, x: Images) -> Evidence:
        """Logits and features by one pass; differentiable in x. UnderfireError where there are no features."""
        located = self._locate(x)
        logits, (features,) = self.tap(x, [located.layer])
        if features.ndim != 4:
            raise UnderfireError(
                f"Layer '{located.layer}' gives feature maps in some passes only; name another layer with "
                "features= (--features)."
            )
        return Evidence(logits, features.relu() if located.rectified else features)

    def train(self, mode: bool = True) -> "Classifier":
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Classifier":
        """Moved or cast as any module is; what was known of the weights as they were is forgotten."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._format = self._fingerprint = None
        return self

    def _normalised(self, x: Images) -> Images:
        z = (x.to(self.dtype) - self._mean) / self._std
        return z if self._format is None else z.contiguous(memory_format=self._format)

    def _settle(self, x: Images) -> None:
        """Find the memory format to compute in, and whether the outputs have a gradient in the image, by two images.

        On a CPU channels_last is faster, but no network needs to bear it. A network that fails altogether shall do so
        in the pass that was asked for.
        """
        if self._format is not None:
            return
        formats = (torch.channels_last, torch.contiguous_format)
        for memory_format in formats if self.device.type == "cpu" else formats[1:]:
            with suppress(RuntimeError):  # weights of five axes
                self.network.to(memory_format=memory_format)
                passed, self._differentiable = self._try(x, memory_format)
                if passed and self._differentiable:
                    self._format = memory_format
                    return
        self._format = torch.contiguous_format

    def _try(self, x: Images, memory_format: torch.memory_format) -> tuple[bool, bool]:
        """Whether an image, twice, passes the network, and whether its gradient comes back."""
        with torch.inference_mode(False), torch.enable_grad():
            z = self._normalised(x[:1].detach().repeat(2, 1, 1, 1)).contiguous(memory_format=memory_format)
            z.requires_grad_()
            try:
                output = check_shape(self.network(z), 2)
            except MemoryError:
                raise
            except Exception:
                return False, True
            try:
                return True, torch.autograd.grad(output.sum(), z, allow_unused=True)[0] is not None
            except Exception:
                return True, False

    def tap(self, x: Images, layers: Iterable[str]) -> tuple[Logits, list[Tensor]]:
        """One forward pass: the logits and what these layers gave when last called; differentiable in x."""
        self._settle(x)
        named, outputs = {name: self._layer(name) for name in layers}, dict[str, Tensor]()

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name] = output

        with watching(named.items(), keep):
            logits = self(x)
        if missing := [name for name in named if not isinstance(outputs.get(name), Tensor)]:
            raise UnderfireError(f"Layer '{missing[0]}' gives no tensor in a forward pass; name another layer.")
        return logits, [outputs[name] for name in named]

    @property
    def features_layer(self) -> str | None:
        """Name of the layer whose output is read as features; None until located or named."""
        return self._named if self._located is None else self._located.layer

    def locate_features(self, x: Images) -> None:
        """Find the features, once; UnderfireError lists the candidate layers if none is found."""
        self._locate(x)

    def _locate(self, x: Images) -> Located:
        if self._located is not None:
            return self._located
        try:
            located, candidates = trace(self.network, lambda: self(x[:1]), self._named)
        except (RuntimeError, AssertionError) as problem:
            raise UnderfireError(
                f"The model fails on a single image ({str(problem).splitlines()[0]}); it must take any number of them."
            ) from problem
        if self._named is not None:
            if self.tap(x[:1], [self._named])[1][0].ndim != 4:
                raise UnderfireError(f"Layer '{self._named}' gives no feature maps (N, D, h, w); name another layer.")
            self._located = located or Located(self._named, False, None)
        elif located is not None:
            self._located = located
        elif not candidates:
            raise UnderfireError(
                "No layer of the model shows what it computes, as in TorchScript and exported networks; CAM and "
                "Grad-CAM need the network that it was made from."
            )
        else:
            raise UnderfireError(
                "No layer was found whose spatial mean feeds the last linear layer or the logits; name the "
                f"layer to explain with features= (--features). Candidates: {', '.join(candidates)}."
            )
        return self._located

    def find_head(self, x: Images) -> Head | None:
        """The head behind the features; None where the network is not built for CAM."""
        return self._locate(x).head

    def locate_head(self, x: Images) -> Head:
        """The head behind the features; UnderfireError where the network is not built for CAM."""
        head = self.find_head(x)
        if head is None:
            raise UnderfireError(
                f"CAM needs global average pooling and one linear layer behind '{self.features_layer}', which this "
                "network does not have; use Grad-CAM (grad-cam), or name another layer with features= (--features)."
            )
        return head

    def revised(self, change: Callable[[nn.Module], None]) -> "Classifier":
        """A copy, read at the same layer, whose network `change` has altered; this classifier stays as it is."""
        other: Classifier = copied(self, self.network)
        with torch.inference_mode(False), torch.no_grad():
            change(other.network)
        other._fingerprint = None
        return other

    def fingerprint(self) -> str:
        """Hash of the architecture's layer names, all weights and the normalisation; computed once."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.network, self.mean, self.std)
        return self._fingerprint

    def _layer(self, name: str) -> nn.Module:
        try:
            layer = self.network.get_submodule(name)
            if isinstance(layer, torch.jit.ScriptModule):
                raise UnderfireError(
                    f"Layer '{name}' is TorchScript, which shows nothing; give the network it is made of."
                )
            return layer
        except AttributeError:
            names = ", ".join(child for child, _ in self.network.named_children())
            raise UnderfireError(f"The model has no layer '{name}'; its top layers are: {names}.") from None
