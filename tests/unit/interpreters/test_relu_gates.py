"""The gates' values and derivatives, and that every spelling of ReLU meets them while no value changes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.interpreters import LogisticGate, MonotoneGate, PaperGate
from underfire.interpreters.relu_gates import Gate, smoothed_relu

GATES = [PaperGate(), PaperGate(1e-2), MonotoneGate(), MonotoneGate(1.0), LogisticGate(), LogisticGate(10.0)]
every_gate = pytest.mark.parametrize("gate", GATES, ids=str)
EMPTY = nn.Module()


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_papers_gate_at_known_points() -> None:
    z = column(-0.1, -0.03, -0.01, -0.001, 0, 0.001, 0.01, 0.1)
    h = column(0.00496281, 0.05131670, 0.29289322, 0.90049628, 0, 0.09950372, 0.70710678, 0.99503719)
    torch.testing.assert_close(PaperGate(tau=1e-4)(z), h, rtol=0, atol=5e-9)


def test_the_papers_gates_derivative_at_known_points() -> None:
    z = column(0, 0.01, -0.01, 0.03, -0.03)
    slope = column(100, 35.3553391, 35.3553391, 3.16227766, 3.16227766)
    torch.testing.assert_close(PaperGate(tau=1e-4).derivative(z), slope, rtol=0, atol=5e-8)


def test_the_papers_gate_is_the_default_with_the_papers_tau() -> None:
    assert PaperGate() == PaperGate(tau=1e-4)


@every_gate
def test_derivative_is_the_gates_slope(gate: Gate) -> None:
    """h at most 1 and steps of 1e-6 leave 1e-10 of rounding; the third derivatives reach 1e6 at tau = 1e-4."""
    z, h = torch.linspace(-2, 2, 400, dtype=torch.float64), 1e-6
    torch.testing.assert_close(gate.derivative(z), (gate(z + h) - gate(z - h)) / (2 * h), rtol=1e-6, atol=1e-8)


@every_gate
def test_far_from_zero_a_gate_is_relus_derivative(gate: Gate) -> None:
    """Closer than the distance at which 1 / (1 + exp(-3 z)) and z / sqrt(z^2 + 1) reach their limits."""
    torch.testing.assert_close(gate(column(-1e4, 1e4)), column(0, 1), rtol=0, atol=1e-8)
    torch.testing.assert_close(gate.derivative(column(-1e4, 1e4)), column(0, 0), rtol=0, atol=1e-8)


@every_gate
def test_gates_stay_between_zero_and_one(gate: Gate) -> None:
    h = gate(torch.linspace(-3, 3, 1001, dtype=torch.float64))
    assert h.min() >= 0
    assert h.max() <= 1
    rises = h.diff() >= 0
    assert rises.logical_not().sum() == (1 if isinstance(gate, PaperGate) else 0), "only the paper's gate jumps, once"


def test_logistic_gate_is_the_derivative_of_softplus() -> None:
    z = torch.linspace(-3, 3, 50, dtype=torch.float64).requires_grad_()
    (slope,) = torch.autograd.grad(F.softplus(z, beta=3).sum(), z)
    torch.testing.assert_close(LogisticGate(slope=3.0)(z.detach()), slope)


def two_layers(gate: Gate, z: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    """The input gradient of w2 . relu(w1 x) with h in place of relu': a product of two matrices and a gate."""
    return w1.T @ (gate(z) * w2)


@every_gate
def test_two_layers_by_hand(gate: Gate) -> None:
    """G = w1' (h(w1 x) * w2) and dG/dx = w1' diag(h'(w1 x) * w2) w1; the values stay those of ReLU."""
    generator = torch.Generator().manual_seed(0)
    w1, w2 = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((6, 4), (6,)))
    x = (0.1 * torch.randn(4, generator=generator, dtype=torch.float64)).requires_grad_()
    with smoothed_relu(EMPTY, gate):
        y = w2 @ (w1 @ x).relu()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
    z = (w1 @ x).detach()
    assert y == w2 @ z.clamp_min(0)
    torch.testing.assert_close(gradient.detach(), two_layers(gate, z, w1, w2))
    jacobian = torch.stack([torch.autograd.grad(g, x, retain_graph=True)[0] for g in gradient])
    torch.testing.assert_close(jacobian, w1.T @ torch.diag(gate.derivative(z) * w2) @ w1)


RELUS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "nn.ReLU": lambda: nn.ReLU(),
    "nn.ReLU in place": lambda: nn.ReLU(inplace=True),
    "F.relu": lambda: F.relu,
    "F.relu in place": lambda: lambda z: F.relu(z, inplace=True),
    "F.relu in place, by position": lambda: lambda z: F.relu(z, True),
    "F.relu by name": lambda: lambda z: F.relu(input=z),
    "F.relu_": lambda: F.relu_,
    "torch.relu": lambda: torch.relu,
    "torch.relu_": lambda: torch.relu_,
    "x.relu()": lambda: lambda z: z.relu(),
    "x.relu_()": lambda: lambda z: z.relu_(),
    "x.clamp(min=0)": lambda: lambda z: z.clamp(min=0),
    "x.clamp(0)": lambda: lambda z: z.clamp(0),
    "x.clamp(0.0, None)": lambda: lambda z: z.clamp(0.0, None),
    "x.clamp_(min=0)": lambda: lambda z: z.clamp_(min=0),
    "torch.clamp(min=0)": lambda: lambda z: torch.clamp(z, min=0),
    "torch.clamp_(min=0)": lambda: lambda z: torch.clamp_(z, min=0),
    "x.clip(min=0)": lambda: lambda z: z.clip(min=0),
    "x.clip_(0)": lambda: lambda z: z.clip_(0),
    "torch.clip(0)": lambda: lambda z: torch.clip(z, 0),
    "torch.clip_(0)": lambda: lambda z: torch.clip_(z, 0),
    "x.clamp_min(0)": lambda: lambda z: z.clamp_min(0),
    "x.clamp_min_(0)": lambda: lambda z: z.clamp_min_(0),
    "torch.clamp_min_(0)": lambda: lambda z: torch.clamp_min_(z, 0),
    "torch.clamp_min(0)": lambda: lambda z: torch.clamp_min(z, 0),
}
RELU6S: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "nn.ReLU6": lambda: nn.ReLU6(),
    "nn.ReLU6 in place": lambda: nn.ReLU6(inplace=True),
    "F.relu6": lambda: F.relu6,
    "F.relu6 in place": lambda: lambda z: F.relu6(z, inplace=True),
    "nn.Hardtanh(0, 6)": lambda: nn.Hardtanh(0.0, 6.0),
    "F.hardtanh(0, 6)": lambda: lambda z: F.hardtanh(z, 0.0, 6.0),
    "F.hardtanh(0, 6) in place": lambda: lambda z: F.hardtanh(z, 0.0, 6.0, inplace=True),
    "F.hardtanh_(0, 6)": lambda: lambda z: F.hardtanh_(z, 0.0, 6.0),
    "x.clamp(0, 6)": lambda: lambda z: z.clamp(0, 6),
    "x.clamp(max=6, min=0)": lambda: lambda z: z.clamp(max=6, min=0),
    "torch.clamp(0, max=6)": lambda: lambda z: torch.clamp(z, 0, max=6),
}


class Spelled(nn.Module):
    """Two convolutions, each followed by the same spelling of ReLU, and a linear head."""

    def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.one, self.two, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 1)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.two(self.relu(self.one(x)))).mean((2, 3)))


def value_and_gradient(relu: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """x, y(x) and dy/dx, differentiable once more."""
    x = 40 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 20
    x.requires_grad_()
    y = Spelled(relu).double()(x)
    return x, y, torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def smoothed(relu: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """y, dy/dx and the gradient of |dy/dx|^2, with a gate."""
    with smoothed_relu(EMPTY, LogisticGate()):
        x, y, gradient = value_and_gradient(relu)
    return y, gradient, torch.autograd.grad(gradient.square().sum(), x)[0]


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
def test_every_spelling_of_relu_is_smoothed_alike(spelling: str) -> None:
    """The same kernels on the same numbers; only the graph of the in-place ones sums in another order."""
    relu, module = (RELUS[spelling](), nn.ReLU()) if spelling in RELUS else (RELU6S[spelling](), nn.ReLU6())
    for own, expected in zip(smoothed(relu), smoothed(module), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
def test_only_derivatives_are_smoothed_and_only_inside(spelling: str) -> None:
    relu = (RELUS | RELU6S)[spelling]()
    _, before, exact = value_and_gradient(relu)
    inside, gradient, curvature = smoothed(relu)
    _, after, exact_again = value_and_gradient(relu)
    assert torch.equal(before, inside)
    assert not torch.allclose(gradient, exact)
    assert curvature.abs().max() > 1e-6, "a ReLU network has none of its own"
    assert torch.equal(before, after)
    assert torch.equal(exact, exact_again)


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
def test_spellings_in_place_stay_in_place(spelling: str) -> None:
    """A network may use the tensor again that it has rectified in place; so may its gradient."""
    relu = (RELUS | RELU6S)[spelling]()
    x = column(-1, 0.5, 2, 7).requires_grad_()
    before, inside = x * 1, x * 1
    in_place = relu(before) is before
    with smoothed_relu(EMPTY, LogisticGate()):
        assert (relu(inside) is inside) == in_place
    assert torch.equal(inside, before)
    (gradient,) = torch.autograd.grad(inside.sum(), x)
    assert (gradient[0] == 1) == (not in_place), "the gate lies between 0 and 1"


@pytest.mark.parametrize("spelling", [*RELUS, *RELU6S])
def test_an_exception_inside_ends_the_smoothing(spelling: str) -> None:
    relu = (RELUS | RELU6S)[spelling]()
    with pytest.raises(KeyError), smoothed_relu(EMPTY, LogisticGate()):
        raise KeyError
    x = column(-1, 0.5, 2).requires_grad_()
    assert torch.autograd.grad(relu(x * 1).sum(), x)[0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "other",
    [
        lambda z: z.clamp(0, 1),
        lambda z: z.clamp(max=0),
        lambda z: z.clamp(min=-1),
        lambda z: z.clamp(min=torch.zeros(())),
        lambda z: F.hardtanh(z),
        lambda z: z.clamp_min(0.5),
        lambda z: F.leaky_relu(z, 0.1),
        lambda z: F.silu(z),
    ],
)
def test_other_functions_are_left_alone(other: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(other(x).sum(), x)
    with smoothed_relu(EMPTY, LogisticGate()):
        (gradient,) = torch.autograd.grad(other(x).sum(), x)
    assert torch.equal(gradient, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:FutureWarning")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
    for net in (scripted, nn.Sequential(nn.Identity(), scripted)):
        with (
            pytest.raises(UnderfireError, match=r"TorchScript .* use GRAD\(FiniteDifferences\(\)\)"),
            smoothed_relu(net, PaperGate()),
        ):
            pytest.fail("the context must not be entered")
