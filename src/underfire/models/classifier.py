"""A classifier over [0, 1] images, whatever network stands behind it.

    model = Classifier(net, mean=(.485, .456, .406), std=(.229, .224, .225))
    logits = model(images)
    evidence = model.evidence(images)       # logits and features of the same forward pass

`Classifier` is a torch.nn.Module, so that whatever attacks or explains one takes it as it is. It works on a private
copy of the network (evaluation mode, frozen, in a memory format of its own), so the network it was given is never
touched: no mode, flag, hook or bit changes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.core.types import Evidence, Features, Images, Labels, Logits
from underfire.models.attention import Attention, watching_attention
from underfire.models.copying import copied, fingerprint, private_copy
from underfire.models.features import locate
from underfire.models.intake import Intake, find_intake
from underfire.models.layout import LAYOUTS
from underfire.models.loading import NORMALISATIONS, LoadedNetwork, check_normalisation, load_network
from underfire.models.outputs import find_scores, how_read, reader_of
from underfire.models.second_order import twice_differentiable
from underfire.models.tracing import Head, Located, watching

HALF = (torch.float16, torch.bfloat16)
IMAGENET_MEAN, IMAGENET_STD = NORMALISATIONS["imagenet"]


class Classifier(nn.Module):
    """A frozen private copy of `net` behind its normalisation; training it is not its affair, nor anybody's.

    net maps normalised RGB N3HW, or its grey, to logits NK or to something that holds them (see `models.outputs`);
    where `outputs` is "probabilities", their logarithm is taken. `features` names the layer whose output CAM and
    Grad-CAM read, and `layout` where it has its channels (see `models.layout`); by default both are found by tracing
    the first pass that needs them. `dtype` is the precision to compute in: by default the network's own, but float32
    where that is half of it.
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
        layout: str | None = None,
        outputs: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.mean, self.std = check_normalisation(mean, std)
        self.network = private_copy(net, torch.device(device))
        self.outputs = outputs or "logits"
        self._read = reader_of(self.outputs)
        self._own_dtype = precision_of(self.network)
        dtype = dtype or (torch.float32 if self._own_dtype in HALF else self._own_dtype)
        if dtype != self._own_dtype:
            self.network.to(dtype)
        with torch.inference_mode(False):
            for name, values in (("_mean", self.mean), ("_std", self.std)):
                tensor = torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
                self.register_buffer(name, tensor, persistent=False)
        self._intake: Intake | None = None  # until the first pass
        self.origin: LoadedNetwork | None = None
        self._fingerprint: str | None = None
        self._named, self._layout = features, layout
        self._located: Located | None = None
        if layout is not None and layout not in LAYOUTS:
            raise UnderfireError(f"There is no layout '{layout}'; a layer's output is {', '.join(LAYOUTS)}.")
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
        layout: str | None = None,
        outputs: str | None = None,
        device: torch.device | str = "cpu",
    ) -> "Classifier":
        """A model by its name (see `models.loading`); weights are a name of its library's, or a state-dict file.

        The normalisation comes from `normalize` ("imagenet", "none", "M,M,M/S,S,S"), else from the weights,
        else it is ImageNet's; `origin` tells. UnderfireError names what is wrong with any of them.
        """
        origin = load_network(reference, weights, normalize)
        classifier = cls(
            origin.net, origin.mean, origin.std, features=features, layout=layout, outputs=outputs, device=device
        )
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
        """Logits by one pass; differentiable in x. UnderfireError unless the network returns them."""
        intake = self._settled(x)
        if x.requires_grad and torch.is_grad_enabled() and not intake.differentiable:
            raise UnderfireError(
                "The model's outputs have no gradient in the image, which attacks and explanations need: it is "
                "quantised, detaches its input or computes outside of autograd. Give the network that it was made from."
            )
        scores, _ = find_scores(self.network(intake.images(self._normalised(x))), len(x))
        return self._read(scores)

    def evidence(self, x: Images) -> Evidence:
        """Logits and features by one pass; differentiable in x. UnderfireError where there are no features."""
        located = self._locate(x)
        logits, (output,) = self.tap(x, [located.layer])
        return Evidence(logits, located.as_read(self.grid_of(output, x)))

    def sensitivity(self, x: Images, y: Labels, create_graph: bool) -> tuple[Evidence, Features]:
        """Logits with what the located layer gave, and d logit_y by the latter, by one pass forward and one back.

        x must ask for a gradient.
        """
        located = self._locate(x)
        with twice_differentiable():
            logits, (output,) = self.tap(x, [located.layer])
        of_class = logits.gather(1, y[:, None]).sum()
        (gradient,) = torch.autograd.grad(of_class, output, create_graph=create_graph, retain_graph=True)
        return Evidence(logits, self.grid_of(output, x)), self.grid_of(gradient, x)

    def attention(self, x: Images) -> tuple[Logits, list[Attention]]:
        """Logits and each layer's attention by one pass; differentiable in x, twice.

        UnderfireError unless every layer attends from all tokens to all.
        """
        self._settled(x)
        with twice_differentiable(), watching_attention() as watched:
            logits = self(x)
        return logits, watched.of_tokens(len(x))

    def grid_of(self, output: Tensor, x: Images) -> Features:
        """What the located layer gave of images x, as NDhw."""
        located = self._locate(x)
        grid = located.grid(output, (x.shape[2], x.shape[3]))
        if grid is None:
            raise UnderfireError(
                f"Layer '{located.layer}' gives feature maps in some passes only; name another layer with "
                "features= (--features)."
            )
        return grid

    def train(self, mode: bool = True) -> "Classifier":
        """Stay in evaluation mode, whatever is asked for."""
        return super().train(False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Classifier":
        """Moved or cast as any module is; what was known of the weights as they were is forgotten."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._intake = self._fingerprint = None
        return self

    @property
    def assumed(self) -> tuple[str, ...]:
        """In words, what was taken to hold of weights, precision, images, outputs and features, as far as is known."""
        of_weights = self.origin.assumed if self.origin else ()
        precision = (f"computed in {_name(self.dtype)}, its weights are {_name(self._own_dtype)}",)
        intake = self._intake or Intake()
        spatial = self._located if self._located is not None and self._located.head is None else None
        return (
            *of_weights,
            *(precision if self.dtype != self._own_dtype else ()),
            *(("pictures as grey",) if intake.grey else ()),
            *how_read(intake.where, intake.columns, self.outputs),
            *((f"Grad-CAM explains '{spatial.layer}'",) if spatial and self._named is None else ()),
        )

    def _normalised(self, x: Images) -> Images:
        return (x.to(self.dtype) - self._mean) / self._std

    def _settled(self, x: Images) -> Intake:
        """How the network wants its images, found by the first of them."""
        if self._intake is None:
            self._intake = find_intake(self.network, self._normalised(x[:1]), self._read)
        return self._intake

    def tap(self, x: Images, layers: Iterable[str]) -> tuple[Logits, list[Tensor]]:
        """One forward pass: the logits and what these layers gave when last called; differentiable in x."""
        self._settled(x)
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

    @property
    def features_layout(self) -> str | None:
        """Where that output has its channels (see `models.layout`); None until located."""
        return None if self._located is None else self._located.layout

    def locate_features(self, x: Images) -> None:
        """Find the features, once; UnderfireError lists the candidate layers if none is found."""
        self._locate(x)

    def _locate(self, x: Images) -> Located:
        if self._located is None:
            self._settled(x)
            self._located = locate(self.network, self, x[:1], self._named, self._layout)
        return self._located

    def find_head(self, x: Images) -> Head | None:
        """The head behind the features; None where the network is not built for CAM."""
        return self._locate(x).head

    def locate_head(self, x: Images) -> Head:
        """The head behind the features; UnderfireError where the network is not built for CAM."""
        located = self._locate(x)
        if located.head is None:
            raise UnderfireError(
                f"CAM needs {located.obstacle}; use Grad-CAM (grad-cam), which explains '{located.layer}', or name "
                "another layer with features= (--features)."
            )
        return located.head

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
            read = () if self.outputs == "logits" else (self.outputs,)
            self._fingerprint = fingerprint(self.network, self.mean, self.std, *read)
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


def precision_of(network: nn.Module) -> torch.dtype:
    """That of the first weight that is a float; torch's default where there is none."""
    weights = (each.dtype for each in network.parameters() if each.is_floating_point())
    return next(weights, torch.get_default_dtype())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
