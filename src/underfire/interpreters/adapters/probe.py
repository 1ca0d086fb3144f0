"""What can be known of an explanation by calling it: what its maps are like, and how an attacker can follow them.

    found = probe(explainer(mine), model, (224, 224))
    found.verdict, found.why            # "queries only", "its result is a numpy array, where autograd stops"

For each of several directions d, the derivative along d of a random weighted sum s of the map, once by autograd
through the explanation and once by central differences (s(x + hd) - s(x - hd)) / 2h, in double precision.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.image_ops import resize
from underfire.core.losses import log_odds, log_prob
from underfire.core.types import Flags, Images, Labels, Maps
from underfire.interpreters.adapters.adapter import Adapter
from underfire.interpreters.protocol import Interpreter
from underfire.models.classifier import Classifier

AGREES, PARTLY = 0.9, 0.5  # cosines
SAME, BLIND = 1e-4, 1e-3  # differences of maps
DIRECTIONS, H, H_SINGLE = 8, 1e-4, 1e-2


@dataclass(frozen=True)
class Probed:
    """What was found; cosine and ratio are of autograd's derivative to differences', None where there is no graph."""

    interpreter: str
    shape: tuple[int, int]
    low: float
    high: float
    finite: bool
    constant: bool  # one of the maps
    blank: bool  # all of them, of two classes
    draws: bool  # whether it says itself that two calls may differ
    repeat: float  # largest difference of two calls
    class_difference: float  # largest difference of the maps of two classes
    batch_difference: float  # largest difference of a map alone and beside another
    graph: bool
    cosine: float | None
    ratio: float | None
    input_gradient: bool
    seconds: float  # per map
    verdict: str  # "closed form", "input gradient" or "queries only"
    why: str
    remarks: tuple[str, ...]


def probe(adapter: Interpreter, classifier: Classifier, sides: tuple[int, int]) -> Probed:
    """What maps of two pictures of these sides (rows, columns) tell of an explainer, and how it can be followed.

    UnderfireError where it cannot explain them, and for our own interpreters, which need no probe.
    """
    if not isinstance(adapter, Adapter):
        raise UnderfireError(
            f"'{adapter.name}' is one of ours, with an attacker's model of its own; probe LIBRARY:METHOD or "
            "file.py:function."
        )
    with torch.inference_mode(False), torch.enable_grad():
        found = _found(adapter, classifier, pictures(sides).to(classifier.device))
    return replace(found, remarks=tuple(_remarks(found)))


def _found(adapter: Adapter, classifier: Classifier, x: Images) -> Probed:
    with torch.no_grad():
        y = classifier(x).argmax(1)
        classes = classifier(x).shape[1]
    begun = time.perf_counter()
    maps = _maps(adapter, classifier, x, y)
    seconds = (time.perf_counter() - begun) / len(x)
    graph, detached = _graph(adapter, classifier, x, y)
    cosine, ratio = _derivatives(adapter, classifier, x, y) if graph else (None, None)
    is_gradient = _is_gradient(adapter, classifier, x, y)
    verdict, why = (
        _verdict(graph, detached, cosine, ratio, is_gradient)
        if adapter.follow is None
        else (adapter.follow.verdict, adapter.follow.why)
    )
    others = _maps(adapter, classifier, x, (y + 1) % classes)
    return Probed(
        interpreter=adapter.name,
        shape=(maps.shape[1], maps.shape[2]),
        low=float(maps.min()),
        high=float(maps.max()),
        finite=bool(maps.isfinite().all()),
        constant=bool(_flat(maps).any()),
        blank=bool(_flat(torch.cat((maps, others))).all()),
        draws=adapter.draws,
        repeat=float((maps - _maps(adapter, classifier, x, y)).abs().max()),
        class_difference=float((maps - others).abs().max()),
        batch_difference=float((maps[:1] - _maps(adapter, classifier, x[:1], y[:1])).abs().max()),
        graph=graph,
        cosine=cosine,
        ratio=ratio,
        input_gradient=is_gradient,
        seconds=seconds,
        verdict=verdict,
        why=why,
        remarks=(),
    )


def attackable(found: Probed) -> Probed:
    """What was found; UnderfireError where maps are not finite, show nothing or differ from call to call unsaid."""
    if not found.finite:
        raise UnderfireError(f"'{found.interpreter}' gives maps that are not finite numbers; nobody can attack them.")
    if found.blank:
        raise UnderfireError(
            f"'{found.interpreter}' gives every cell the same value, on two pictures and for two classes: there is "
            "nothing to see and nothing to attack."
        )
    if found.repeat > SAME and not found.draws:
        raise UnderfireError(
            f"'{found.interpreter}' gives another map when it is called again (a cell differs by {found.repeat:.3f}): "
            "let it draw the same numbers in every call, or say in Python that it draws, explainer(…, draws=True)."
        )
    return found


def pictures(sides: tuple[int, int], n: int = 2) -> Images:
    """Smooth colours with some noise, the same in every process."""
    numbers = torch.Generator().manual_seed(0)
    coarse, noise = torch.rand(n, 3, 5, 5, generator=numbers), torch.rand(n, 3, *sides, generator=numbers)
    return (0.8 * resize(coarse, *sides) + 0.2 * noise).clamp(0, 1)


def _maps(adapter: Adapter, classifier: Classifier, x: Images, y: Labels) -> Maps:
    return adapter.explain(classifier, x, y, torch.zeros_like(y))


def _flat(maps: Maps) -> Flags:
    return maps.amax((1, 2)) - maps.amin((1, 2)) < SAME


def _graph(adapter: Adapter, classifier: Classifier, x: Images, y: Labels) -> tuple[bool, str]:
    """Whether autograd reaches the image, and otherwise where it stops."""
    leaf = x.clone().requires_grad_()
    raw = adapter.raw(classifier, leaf, y)
    if not raw.requires_grad:
        returned = adapter.explanation(classifier, leaf, y)
        if not isinstance(returned, Tensor):
            return False, f"its result is a {type(returned).__module__} {type(returned).__name__}, where autograd stops"
        return False, "its result is detached from the image"
    if torch.autograd.grad(raw.sum(), leaf, allow_unused=True)[0] is None:
        return False, "its result does not depend on the image by autograd"
    return True, ""


def _derivatives(adapter: Adapter, classifier: Classifier, x: Images, y: Labels) -> tuple[float, float]:
    """Cosine and ratio of autograd's derivatives to those by differences, along some smooth directions.

    In double precision, unless the explanation holds numbers of single precision itself.
    """
    double = classifier.revised(lambda network: None).double()
    try:
        return _compared(adapter, double, x.double(), y, H)
    except UnderfireError:
        return _compared(adapter, classifier, x.to(classifier.dtype), y, H_SINGLE)


def _compared(adapter: Adapter, classifier: Classifier, x: Images, y: Labels, h: float) -> tuple[float, float]:
    numbers = torch.Generator().manual_seed(1)

    def weighed(images: Images) -> Tensor:
        maps = adapter.post(adapter.raw(classifier, images, y), images)
        weights = torch.rand(maps.shape, generator=torch.Generator().manual_seed(2), dtype=maps.dtype)
        return (maps * weights.to(maps.device)).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(weighed(leaf), leaf)
    by_graph, by_differences = [], []
    for _ in range(DIRECTIONS):
        d = resize(torch.randn(len(x), 3, 4, 4, generator=numbers, dtype=x.dtype), x.shape[2], x.shape[3]).to(x.device)
        by_graph.append(float((gradient * d).sum()))
        by_differences.append(float(weighed(x + h * d) - weighed(x - h * d)) / (2 * h))
    a, b = torch.tensor(by_graph, dtype=torch.float64), torch.tensor(by_differences, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return float(a @ b / (a.norm() * b.norm()).clamp_min(tiny)), float(a.norm() / b.norm().clamp_min(tiny))


def _is_gradient(adapter: Adapter, classifier: Classifier, x: Images, y: Labels) -> bool:
    """Whether the attributions are the input gradient of the logit, of log p or of the log-odds, up to a factor."""
    raw = adapter.raw(classifier, x, y)
    if raw.shape != x.shape:
        return False
    return any(
        bool((torch.cosine_similarity(raw.flatten(1), gradient.flatten(1)) > 1 - SAME).all())
        for gradient in _gradients(classifier, x, y)
    )


def _gradients(classifier: Classifier, x: Images, y: Labels) -> Iterator[Images]:
    for scalar in (lambda z: z.gather(1, y[:, None]), lambda z: log_prob(z, y), lambda z: log_odds(z, y)):
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            yield torch.autograd.grad(scalar(classifier(leaf)).sum(), leaf)[0]


def _verdict(
    graph: bool, detached: str, cosine: float | None, ratio: float | None, is_gradient: bool
) -> tuple[str, str]:
    """How an attacker follows, and why."""
    if cosine is not None and cosine >= AGREES:
        return "closed form", f"autograd's derivative is that of differences (cosine {cosine:.2f})"
    if is_gradient:
        return "input gradient", "it is the input gradient of the class, whose derivative is taken by differences"
    if cosine is not None and cosine >= PARTLY:
        return "closed form", f"autograd's derivative is that of differences in part (cosine {cosine:.2f}): truncated"
    if not graph:
        return "queries only", f"{detached}; keep the graph, or return the signed input gradient"
    if ratio is not None and ratio < SAME:
        return "queries only", "autograd sees no change of the map, as where ReLU's second derivative is zero"
    return "queries only", f"autograd's derivative is not that of differences (cosine {cosine:.2f}): part is detached"


def _remarks(found: Probed) -> Iterator[str]:
    if not found.finite:
        yield "maps are not finite numbers"
    if found.constant:
        yield "a map is the same in every cell: the gradient may vanish where softmax saturates; explain log p"
    if found.repeat > SAME and not found.draws:
        yield f"two calls differ by {found.repeat:.3f}: it draws random numbers; say so with draws=True"
    if found.class_difference < BLIND:
        yield "the maps of two classes are the same: it explains no class"
    if found.batch_difference > SAME:
        yield f"a map depends on the other images of its batch, by {found.batch_difference:.3f}"
