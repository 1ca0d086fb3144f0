"""Law 3, Gradient: the objective's gradient in theta is what finite differences of the objective say.

Finite differences are no oracle for GRAD's smoothed ReLU: it is compared with second-order autograd through
the network in which the smooth function s, s' = h, stands in ReLU's place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tiny_maskers import tiny_rts
from tiny_networks import MEAN, NETWORKS, SMOOTH, STD, ResNetShaped, classifier, images, network, seeded
from underfire.attacks.attack import Attack
from underfire.attacks.perturbations import Flow, Perturbation, Pixels
from underfire.attacks.steps import Objective, value_and_gradient
from underfire.core import rows
from underfire.core.losses import log_odds
from underfire.core.schedules import Constant
from underfire.core.types import Goal, Images, Labels, Logits, Row
from underfire.interpreters import (
    CAM,
    GRAD,
    IG,
    MASK,
    Blind,
    FiniteDifferences,
    GaussLegendre,
    GradCAM,
    GradRollout,
    Interpreter,
    LogisticGate,
    MonotoneGate,
    OneSidedDifferences,
    PaperGate,
    Rollout,
    Smooth,
    SmoothedReLU,
    Unrolled,
)
from underfire.interpreters.mask.solver import Solver
from underfire.interpreters.relu_gates import Gate
from underfire.models.classifier import Classifier

N = 2


@dataclass(frozen=True)
class ExactCurvature:
    """The input gradient differentiated by plain second-order autograd."""

    def __call__(self, model: Classifier, x: Images, y: Labels) -> tuple[Logits, Row, Tensor]:
        logits = model(x)
        odds = log_odds(logits, y)
        (gradient,) = torch.autograd.grad(odds.sum(), x, create_graph=True)
        return logits, odds, gradient


@dataclass(frozen=True)
class Kind:
    """A perturbation and how far from the benign image its gradient is taken."""

    perturbation: Perturbation
    reach: float


PIXELS, FLOWING = Kind(Pixels(), 0.03), Kind(Flow(), 1.5)


def aim(model: Classifier, interpreter: Interpreter, kind: Kind = PIXELS) -> tuple[Goal, Tensor]:
    """Random maps to aim at and a random theta."""
    generator = torch.Generator().manual_seed(1)
    x, y = images(N, dtype=torch.float64), torch.tensor([1, 3])
    grid = interpreter.explain(model, x, y, y).shape
    shape = kind.perturbation.init(x).shape
    theta = (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5) * 2 * kind.reach
    return Goal(y, x, y, torch.rand(grid, generator=generator, dtype=torch.float64)), theta


def objective(
    model: Classifier, interpreter: Interpreter, goal: Goal, kind: Kind = PIXELS, **weights: float
) -> Objective:
    constant = {name: Constant(weight) for name, weight in weights.items()}
    attack = Attack("law", interpreter, kind.perturbation, weights=constant)
    belief = interpreter.begin(model, goal.image, goal.target, goal.key)
    belief = interpreter.advance(model, belief, goal.image, goal.target)
    return attack.objective(model, goal, belief, torch.zeros_like(goal.key))


def gradient(model: Classifier, interpreter: Interpreter, kind: Kind = PIXELS, **weights: float) -> Tensor:
    goal, theta = aim(model, interpreter, kind)
    return value_and_gradient(objective(model, interpreter, goal, kind, **weights), theta)[1]


def slopes(model: Classifier, interpreter: Interpreter, h: float, kind: Kind = PIXELS) -> tuple[Tensor, Tensor]:
    """(dl/dtheta . v, its central difference) along random directions v, one row for each moved theta."""
    goal, theta = aim(model, interpreter, kind)
    directions = torch.randn(10, *theta.shape, generator=torch.Generator().manual_seed(2), dtype=theta.dtype)
    moved = torch.cat([(theta + step * directions).flatten(0, 1) for step in (h, -h)]).requires_grad_()
    repeated = rows.take(goal, torch.arange(N).repeat(2 * len(directions)))
    losses = objective(model, interpreter, repeated, kind, map=20.0)(moved).total.detach()
    above, below = losses.view(2, len(directions), N)
    return (directions * gradient(model, interpreter, kind, map=20.0)).sum((2, 3, 4)), (above - below) / (2 * h)


@pytest.mark.parametrize("interpreter", [Rollout(), GradRollout(), GradCAM()], ids=lambda each: each.name)
def test_transformers(interpreter: Interpreter) -> None:
    analytic, numeric = slopes(classifier("transformer", torch.float64), interpreter, h=1e-6)
    assert numeric.abs().max() > 0.01
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize(
    ("interpreter", "error"),
    [
        (Blind(), 0.0),
        (CAM(), 0.0),
        (GradCAM(), 0.0),
        (Smooth(CAM(), copies=3), 0.0),
        (GRAD(ExactCurvature()), 0.0),
        (GRAD(FiniteDifferences(delta=1e-4)), 2e-6),  # falls with the square of delta
        (GRAD(OneSidedDifferences(delta=1e-7)), 1e-5),  # falls with delta
        (IG(GaussLegendre(3), input_gradient=ExactCurvature()), 0.0),
        (IG(GaussLegendre(3), input_gradient=FiniteDifferences(delta=3e-5)), 2e-6),
    ],
    ids=[
        "blind",
        "cam",
        "grad-cam",
        "smooth-cam",
        "grad-exact",
        "grad-differences",
        "grad-one-sided",
        "ig-exact",
        "ig-differences",
    ],
)
def test_smooth_networks(net: str, interpreter: Interpreter, error: float) -> None:
    """Differences of step h = 1e-6 round off 1e-16 / h of a loss near 10, and truncate h^2 of its third derivative."""
    analytic, numeric = slopes(classifier(net, torch.float64), interpreter, h=1e-6)
    assert numeric.abs().max() > 0.01
    torch.testing.assert_close(analytic, numeric, rtol=1e-7 + error, atol=1e-8)


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize(
    ("interpreter", "error"),
    [
        (Blind(), 0.0),
        (CAM(), 0.0),
        (GRAD(ExactCurvature()), 0.0),
        (GRAD(FiniteDifferences(delta=1e-4)), 2e-6),
        (MASK(Solver(steps=3), Unrolled(follow=1, lookahead=2)), 0.0),
    ],
    ids=["blind", "cam", "grad-exact", "grad-differences", "mask-unrolled"],
)
def test_flows_on_smooth_networks(net: str, interpreter: Interpreter, error: float) -> None:
    """Flows of up to 1.5 pixels, across the edges too; the cost, of weight 1, is a few hundred and rounds off more."""
    analytic, numeric = slopes(classifier(net, torch.float64), interpreter, h=1e-6, kind=FLOWING)
    assert numeric.abs().max() > 1
    torch.testing.assert_close(analytic, numeric, rtol=1e-6 + error, atol=1e-6)


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize("lookahead", [1, 4])
def test_unrolled_mask_on_smooth_networks(net: str, lookahead: int) -> None:
    """Through every iteration, Adam's moments and the clamp included; an oracle for Replay is its own formula."""
    interpreter = MASK(Solver(steps=3), Unrolled(follow=1, lookahead=lookahead))
    analytic, numeric = slopes(classifier(net, torch.float64), interpreter, h=1e-6)
    of_prediction, _ = slopes(classifier(net, torch.float64), Blind(), h=1e-6)
    assert (analytic - of_prediction).abs().max() > 1e-3
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("net", SMOOTH)
def test_rts_on_smooth_networks(net: str) -> None:
    """Masks bend sharply where a and b are small: differences need a shorter step and round off more."""
    model = classifier(net, torch.float64)
    analytic, numeric = slopes(model, tiny_rts(model), h=1e-7)
    assert numeric.abs().max() > 1
    torch.testing.assert_close(analytic, numeric, rtol=1e-7, atol=5e-7)


@pytest.mark.parametrize("net", SMOOTH)
def test_grad_cam_on_an_inner_layer(net: str) -> None:
    """There its weights depend on the image and are differentiated too."""
    model = Classifier(network(net).double(), MEAN, STD, features="bn1")
    analytic, numeric = slopes(model, GradCAM(), h=1e-6)
    assert numeric.abs().max() > 0.01
    torch.testing.assert_close(analytic, numeric, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("interpreter", [Blind(), CAM(), GradCAM()], ids=lambda interpreter: interpreter.name)
def test_relu_networks(net: str, interpreter: Interpreter) -> None:
    """Smooth almost everywhere: steps of h = 1e-8 reach no kink here, and round off 1e-16 / h of a loss near 10."""
    analytic, numeric = slopes(classifier(net, torch.float64), interpreter, h=1e-8)
    assert numeric.abs().max() > 0.01
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-6)


def smooth_relu(gate: Gate, z: Tensor) -> Tensor:
    """s with s' = h."""
    if isinstance(gate, LogisticGate):
        return z.relu() + torch.exp(-gate.slope * z.abs()).log1p() / gate.slope
    root = (z * z + gate.tau).sqrt()
    return (z + root) / 2 if isinstance(gate, MonotoneGate) else root + z.clamp_max(0)


class SmoothAtAPoint(nn.Module):
    """s(z) + clamp(z0, 0, ceiling) - s(z0): at the point z0 first seen the values of ReLU, everywhere the slope h.

    One instance serves all places of a network, in the order of its forward pass.
    """

    def __init__(self, gate: Gate, ceiling: float, places: int) -> None:
        super().__init__()
        self.gate, self.ceiling, self.places = gate, ceiling, places
        self.shifts: list[Tensor] = []
        self.calls = 0

    def forward(self, z: Tensor) -> Tensor:
        if len(self.shifts) < self.places:
            self.shifts.append((z.clamp(0, self.ceiling) - self.smooth(z)).detach())
        self.calls += 1
        return self.smooth(z) + self.shifts[(self.calls - 1) % self.places]

    def smooth(self, z: Tensor) -> Tensor:
        excess = 0 if self.ceiling == torch.inf else smooth_relu(self.gate, z - self.ceiling)
        return smooth_relu(self.gate, z) - excess


def bright(net: ResNetShaped) -> nn.Module:
    """Ten times the input, so that many activations pass 6."""
    net.stem.register_forward_pre_hook(lambda module, inputs: (10 * inputs[0],))
    return net


@pytest.mark.parametrize(("relu", "ceiling"), [(nn.ReLU, torch.inf), (nn.ReLU6, 6.0)], ids=["relu", "relu6"])
@pytest.mark.parametrize(
    "gate",
    [PaperGate(), PaperGate(1e-2), MonotoneGate(), MonotoneGate(1.0), LogisticGate(), LogisticGate(10.0)],
    ids=str,
)
def test_smoothed_relu_is_second_order_autograd_through_s(
    relu: Callable[[], nn.Module], ceiling: float, gate: Gate
) -> None:
    """The same sums of products in another order: only rounding differs."""
    model = classifier(seeded(lambda: bright(ResNetShaped(relu()))), torch.float64)
    smooth = SmoothAtAPoint(gate, ceiling, places=3)
    with_s = classifier(seeded(lambda: bright(ResNetShaped(smooth))), torch.float64)
    goal, theta = aim(model, GRAD())
    x = goal.image + theta
    with_s(x)  # the first pass is tried on a single image
    with_s.network.relu.shifts.clear()
    torch.testing.assert_close(with_s(x), model(x), rtol=0, atol=1e-12)
    surrogate, exact = GRAD(SmoothedReLU(gate)), GRAD(ExactCurvature())
    smoothed = gradient(model, surrogate, prediction=0.0, map=20.0)
    assert smoothed.abs().max() > 0.01
    torch.testing.assert_close(smoothed, gradient(with_s, exact, prediction=0.0, map=20.0), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("net", NETWORKS)
def test_smoothed_relu_predicts_with_the_exact_network(net: str) -> None:
    """The prediction's share of the gradient is Blind's, whatever happens to the map's share."""
    model, interpreter = classifier(net, torch.float64), GRAD(SmoothedReLU())
    both = gradient(model, interpreter, map=20.0)
    of_map = gradient(model, interpreter, prediction=0.0, map=20.0)
    torch.testing.assert_close(both - of_map, gradient(model, Blind()), rtol=1e-9, atol=1e-11)
