"""What other libraries and users' files call an explanation, each as (classifier, images, classes) -> attributions.

    CaptumExplanation("Saliency"), GradCamExplanation("HiResCAM"), ZennitExplanation("EpsilonPlus")
    FileExplanation("mine.py", "occlusion", digest)

Each makes the library's object anew for a call and leaves the classifier without hooks.
"""

import hashlib
import inspect
import warnings
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from underfire.core.errors import UnderfireError
from underfire.core.extras import extra
from underfire.core.types import Features, Images, Labels, Logits
from underfire.models.classifier import Classifier
from underfire.models.user_code import code_of, imported


@runtime_checkable
class Explanation(Protocol):
    """Attributions of classes y, torch or numpy; with a graph where x asks for a gradient and the code allows it."""

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Any: ...


@dataclass(frozen=True)
class CaptumExplanation:
    """A method of captum.attr by its class; those of a layer explain the one that Grad-CAM would.

    Of methods in `times_input` it gives what the image is to be multiplied with, for an attacker to follow.
    """

    method: str

    times_input: ClassVar[tuple[str, ...]] = ("InputXGradient", "IntegratedGradients")
    gradients: ClassVar[tuple[str, ...]] = (*times_input, "Saliency")

    @property
    def is_gradient(self) -> bool:
        """Whether the Jacobian of what it gives is symmetric: gradients, and their means on the way from black."""
        return self.method in self.gradients

    def __post_init__(self) -> None:
        _member(extra("captum.attr", "captum", "Captum's explanations"), self.method, "attribute", "Captum")

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Any:
        library = extra("captum.attr", "captum", "Captum's explanations")
        with warnings.catch_warnings(action="ignore"):
            if self.method in ("Saliency", "InputXGradient"):
                return library.Saliency(classifier).attribute(x, target=y, abs=False)
            if self.method == "IntegratedGradients":
                return library.IntegratedGradients(classifier, multiply_by_inputs=False).attribute(x, target=y)
            method = getattr(library, self.method)
            return method(classifier, *self._layer(method, classifier, x)).attribute(x, target=y)

    def _layer(self, method: Any, classifier: Classifier, x: Images) -> tuple[Any, ...]:
        if "layer" not in inspect.signature(method).parameters:
            return ()
        classifier.locate_features(x)
        if classifier.features_layout != "channels-first":
            raise UnderfireError(
                f"Captum's {self.method} takes axis 1 of a layer for its channels, and '{classifier.features_layer}' "
                f"gives {classifier.features_layout}; use grad-cam or gradcam:GradCAM."
            )
        return (classifier.network.get_submodule(str(classifier.features_layer)),)


@dataclass(frozen=True)
class GradCamExplanation:
    """A method of pytorch-grad-cam by its class, on the layer that our Grad-CAM explains."""

    method: str

    def __post_init__(self) -> None:
        _member(extra("pytorch_grad_cam", "grad-cam", "Explanations of pytorch-grad-cam"), self.method, "forward", "It")

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Any:
        library = extra("pytorch_grad_cam", "grad-cam", "Explanations of pytorch-grad-cam")
        targets = extra("pytorch_grad_cam.utils.model_targets", "grad-cam", "Explanations of pytorch-grad-cam")
        classifier.locate_features(x)
        layer = classifier.network.get_submodule(str(classifier.features_layer))
        with getattr(library, self.method)(model=classifier, target_layers=[layer]) as explainer:
            explainer.activations_and_grads.release()
            explainer.activations_and_grads = _Tapped(classifier)
            of_class = [targets.ClassifierOutputTarget(int(each)) for each in y]
            return explainer(x.detach().clone().requires_grad_(), of_class)


class _Tapped:
    """What pytorch-grad-cam reads of a layer in place of its own hooks, which see the first call of a shared one."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def __call__(self, x: Images) -> Logits:
        self._x = x
        logits, (self._output,) = self._classifier.tap(x, [str(self._classifier.features_layer)])
        self._output.retain_grad()
        return logits

    @property
    def activations(self) -> list[Features]:
        return [self._classifier.grid_of(self._output.detach(), self._x)]

    @property
    def gradients(self) -> list[Features]:
        gradient = self._output.grad
        return [] if gradient is None else [self._classifier.grid_of(gradient, self._x)]

    def release(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class ZennitExplanation:
    """Gradient, or the relevance that a composite of zennit's passes back."""

    composite: str

    def __post_init__(self) -> None:
        if self.composite != "Gradient":
            _member(
                extra("zennit.composites", "zennit", "Explanations of zennit"), self.composite, "register", "zennit"
            )

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Any:
        attribution = extra("zennit.attribution", "zennit", "Explanations of zennit")
        composites = extra("zennit.composites", "zennit", "Explanations of zennit")
        composite = None if self.composite == "Gradient" else getattr(composites, self.composite)()
        with attribution.Gradient(classifier, composite, create_graph=x.requires_grad) as explainer:
            _, relevance = explainer(x, lambda output: torch.eye(output.shape[1]).to(output)[y])
        return relevance


@dataclass(frozen=True)
class FileExplanation:
    """A function (model, images, classes) of a user's file; the file's content is part of what it is."""

    file: str = field(compare=False)
    function: str
    digest: str

    @classmethod
    def of(cls, file: str, function: str) -> "FileExplanation":
        """UnderfireError unless the file defines the function."""
        path = Path(file)
        if not path.is_file():
            raise UnderfireError(f"There is no file {path} to take the explanation '{function}' from.")
        made = cls(file, function, hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest())
        made._function()
        return made

    def __call__(self, classifier: Classifier, x: Images, y: Labels, /) -> Any:
        with code_of(Path(self.file), f"{self.function} in {self.file} failed to explain"):
            return self._function()(classifier, x, y)

    def _function(self) -> Explanation:
        path = Path(self.file)
        with code_of(path, f"{path} could not be imported"):
            function: Explanation | None = getattr(imported(path), self.function, None)
        if function is None or not callable(function):
            raise UnderfireError(f"{path} defines no function '{self.function}' that explains images.")
        return function


def _member(module: Any, name: str, having: str, library: str) -> None:
    """UnderfireError, with what may have been meant, unless the module has a class of that name with that method."""
    known = [each for each in dir(module) if hasattr(getattr(module, each), having)]
    if name not in known:
        close = get_close_matches(name, known, n=1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        raise UnderfireError(f"{library} has no explanation '{name}'{meant}; it has {', '.join(known)}.")
