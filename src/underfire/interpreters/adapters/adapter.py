"""Anything a user calls an explanation as an interpreter, with the way in which an attacker follows it.

mine = explainer(lambda model, x, y: occlusion(model, x, y))       # probed when it is first used
result = adv2(model, mine)(images)
"""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from underfire.core.errors import UnderfireError
from underfire.core.types import Images, Keys, Labels, Maps, Reading
from underfire.interpreters.adapters.explanations import (
    CaptumExplanation,
    Explanation,
    FileExplanation,
    GradCamExplanation,
    ZennitExplanation,
)
from underfire.interpreters.adapters.follow import ClosedFormGraph, Follow, Looked, Queries, SymmetricDifferences
from underfire.interpreters.adapters.formulas import FORMULAS
from underfire.interpreters.adapters.raw import Attributions, Post, attributions
from underfire.interpreters.protocol import reading
from underfire.models.classifier import Classifier

if TYPE_CHECKING:
    from underfire.interpreters.adapters.probe import Probed

FOLLOWS: Mapping[str, Follow | None] = MappingProxyType(
    {
        "auto": None,
        "closed form": ClosedFormGraph(),
        "input gradient": SymmetricDifferences(),
        "queries": Queries(),
    }
)
FOLLOWED: Mapping[str, Follow] = MappingProxyType({each.verdict: each for each in FOLLOWS.values() if each})


@dataclass(frozen=True)
class Adapter:
    """The explanation's attributions, times the image where that is asked for, after `post`; both faces.

    A probe finds out how it can be followed, on pictures of its own, once per classifier; a `follow` that is given
    stands. `formula` is the same in torch, for autograd, of explanations that are computed in numpy.
    """

    name: str
    explanation: Explanation
    post: Post = field(default_factory=Post)
    follow: Follow | None = None
    times_input: bool = False
    draws: bool = False
    formula: Explanation | None = None
    found: "MutableMapping[str, Probed]" = field(default_factory=dict, compare=False, repr=False)

    @property
    def attacked_like(self) -> str:
        """Maps that are known to be an input gradient jump as GRAD's do; those of images times one less."""
        return "grad" if isinstance(self.follow, SymmetricDifferences) and not self.times_input else "cam"

    def check(self, classifier: Classifier, x: Images) -> None:
        """UnderfireError where the explanation fails on the network, or gives what nobody can attack."""
        with torch.no_grad():
            self.explain(classifier, x[:1], classifier(x[:1]).argmax(1), x.new_zeros(1).long())
        self.probed(classifier, x)

    def remarks(self, classifier: Classifier, x: Images) -> Iterator[str]:
        """How an attacker follows it and why, and what else the probe found."""
        found = self.probed(classifier, x)
        yield f"An attacker follows {self.name} by {found.verdict}: {found.why}."
        for remark in found.remarks:
            yield f"{self.name}: {remark}."

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys | None = None) -> Maps:
        with torch.no_grad():
            return self.post(self._scaled(self.raw(classifier, x.detach(), y).detach(), x), x)

    def begin(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Looked:
        return Looked(keys, torch.zeros_like(keys))

    def advance(self, classifier: Classifier, belief: Looked, x: Images, y: Labels) -> Looked:
        return replace(belief, step=belief.step + 1)

    def read(self, classifier: Classifier, belief: Looked, x: Images, y: Labels) -> Reading:
        follow = FOLLOWED[self.probed(classifier, x).verdict] if self.follow is None else self.follow
        raw = follow(lambda images: self.raw(classifier, images, y), x, belief)
        return reading(classifier(x), self.post(self._scaled(raw, x), x), y)

    def raw(self, classifier: Classifier, x: Images, y: Labels) -> Attributions:
        """What the explanation gives; in a graph of x, if x asks for one and the formula or the explanation has it.

        UnderfireError where it fails.
        """
        explanation = self.formula if self.formula is not None and x.requires_grad else self.explanation
        with torch.inference_mode(False), torch.enable_grad():
            inputs = x if x.requires_grad else x.detach().clone().requires_grad_()
            try:
                returned = explanation(classifier, inputs, y)
            except (UnderfireError, MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as problem:  # whatever others' code raises
                said = next(iter(str(problem).splitlines()), "")
                raise UnderfireError(f"'{self.name}' cannot explain: {type(problem).__name__}: {said}") from problem
        raw = attributions(returned, x, self.name)
        return raw if x.requires_grad else raw.detach()

    def _scaled(self, raw: Attributions, x: Images) -> Attributions:
        return raw * x if self.times_input else raw

    def probed(self, classifier: Classifier, x: Images) -> "Probed":
        """What a probe finds on images of this size, once; UnderfireError where nobody can attack what it finds."""
        from underfire.interpreters.adapters.probe import attackable, probe

        network = f"{classifier.fingerprint()}, {classifier.dtype}, {tuple(x.shape[2:])}"
        if network not in self.found:
            self.found[network] = attackable(probe(self, classifier, (x.shape[2], x.shape[3])))
        return self.found[network]


def explainer(
    explanation: Callable[[Any, Any, Any], Any],
    *,
    post: Post | None = None,
    follow: str = "auto",
    name: str | None = None,
    draws: bool = False,
) -> Adapter:
    """A function (model, images N3HW in [0, 1], classes N) -> maps, torch or numpy, as an interpreter.

    follow: "closed form", "input gradient" or "queries"; "auto" has a probe find out. UnderfireError for other words.
    """
    if follow not in FOLLOWS:
        raise UnderfireError(f"An explanation is followed by {', '.join(FOLLOWS)}, not by '{follow}'.")
    named = name or getattr(explanation, "__name__", type(explanation).__name__).strip("<>")
    return Adapter(named, explanation, post or Post(), FOLLOWS[follow], draws=draws)


def adapter_named(library: str, method: str) -> Adapter:
    """LIBRARY:METHOD or file.py:function, as on the command line; UnderfireError if there is none."""
    if library == "captum":
        captum = CaptumExplanation(method)
        follow = SymmetricDifferences() if captum.is_gradient else None
        return Adapter(f"captum-{method}", captum, follow=follow, times_input=method in captum.times_input)
    if library == "gradcam":
        formula = FORMULAS.get(method)
        return Adapter(f"gradcam-{method}", GradCamExplanation(method), Post("positive"), formula=formula)
    if library == "zennit":
        zennit = ZennitExplanation(method)
        if method == "Gradient":
            return Adapter("zennit-Gradient", zennit, follow=SymmetricDifferences())
        return Adapter(f"zennit-{method}", zennit, Post("absolute", "sum"))
    stem = re.sub(r".*[/\\]|\.py$", "", library)
    return Adapter(f"{stem}-{method}", FileExplanation.of(library, method))
