"""Law 6, Two faces: what the attacker reads of a closed-form interpreter is what the deployed one explains.

MASK's attacker follows its solver instead: the longer it looks at one image, the closer it reads what is explained.
"""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from law_cases import pairs
from tiny_attacks import INTERPRETERS, interpreter_of
from tiny_networks import NETWORKS, SMOOTH, classifier, images
from underfire.core.image_ops import is_constant
from underfire.core.types import Reading
from underfire.interpreters import (
    CAM,
    GRAD,
    MASK,
    Interpreter,
    LogisticGate,
    MonotoneGate,
    PaperGate,
    Replay,
    Smooth,
    SmoothedReLU,
    Unrolled,
)
from underfire.interpreters.mask.attacker import SolverModel
from underfire.interpreters.mask.deletion import Geometry
from underfire.interpreters.mask.solver import Solver
from underfire.models.classifier import Classifier

SOLVED = ("mask", "mask-unrolled")
SMOOTHED = ("smooth-cam", "smooth-mask")  # the attacker does not know the noise
CLOSED_FORMS = [name for name in INTERPRETERS if name not in (*SOLVED, *SMOOTHED)]
ALL = (*NETWORKS, *SMOOTH)
every_network = pytest.mark.parametrize("net", ALL)
every_pair = pytest.mark.parametrize(("net", "name"), pairs(ALL, INTERPRETERS))
Y = torch.tensor([0, 3, 4])


def both_faces(model: Classifier, interpreter: Interpreter) -> tuple[Reading, Tensor]:
    x = images(3)
    belief = interpreter.begin(model, x, Y, Y)
    belief = interpreter.advance(model, belief, x, Y)
    return interpreter.read(model, belief, x.clone().requires_grad_(), Y), interpreter.explain(model, x, Y, Y)


@pytest.mark.parametrize(("net", "name"), pairs(ALL, [name for name in CLOSED_FORMS if name != "grad-smoothed"]))
def test_read_shows_what_explain_shows(net: str, name: str) -> None:
    model = classifier(net)
    reading, maps = both_faces(model, interpreter_of(name, model))
    assert reading.maps.shape[1] == 1
    assert torch.equal(reading.maps[:, 0], maps)
    assert set(reading.terms) == ({"encoder"} if name == "rts" else set())


@every_pair
def test_both_faces_predict_with_the_exact_network(net: str, name: str) -> None:
    """Another kernel may sum in another order; log p is taken by another formula."""
    model = classifier(net)
    reading, _ = both_faces(model, interpreter_of(name, model))
    with torch.no_grad():
        logits = model(images(3))
    torch.testing.assert_close(reading.logits.detach(), logits, rtol=0, atol=1e-6)
    expected = logits.double().log_softmax(1).gather(1, Y[:, None])[:, 0]
    torch.testing.assert_close(reading.log_prob.detach().double(), expected, rtol=1e-6, atol=1e-6)


@every_pair
def test_the_deployed_map_has_no_graph(net: str, name: str) -> None:
    model, x = classifier(net), images(3).requires_grad_()
    maps = interpreter_of(name, model).explain(model, x, Y, Y)
    assert not maps.requires_grad
    assert x.grad is None
    assert 0 <= maps.min() <= maps.max() <= 1
    assert (not is_constant(maps).all()) == (name != "blind")


@pytest.mark.parametrize(("net", "name"), pairs(ALL, [name for name in CLOSED_FORMS if name != "rts"]))
def test_the_deployed_map_has_the_full_range(net: str, name: str) -> None:
    """Masks are shares and, like medians, are reported as they are."""
    model = classifier(net)
    maps = interpreter_of(name, model).explain(model, images(3), Y, Y)
    assert torch.equal(maps.amin((1, 2)), torch.zeros(3))
    assert torch.equal(maps.amax((1, 2)), (~is_constant(maps)).float())


@pytest.mark.parametrize("net", SMOOTH)
@pytest.mark.parametrize("gate", [PaperGate(), MonotoneGate(), LogisticGate()], ids=str)
def test_smoothing_changes_nothing_where_there_is_no_relu(
    net: str, gate: PaperGate | MonotoneGate | LogisticGate
) -> None:
    """Only the convolution's own second derivative is replaced; its sums may round differently."""
    reading, maps = both_faces(classifier(net), GRAD(SmoothedReLU(gate)))
    torch.testing.assert_close(reading.maps[:, 0].detach(), maps, rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", NETWORKS)
def test_smoothed_maps_approach_the_deployed_ones_as_tau_falls(net: str) -> None:
    """At tau = 0 the gate is ReLU's own derivative."""
    distances = []
    for tau in (1e-2, 1e-5, 1e-12):
        reading, maps = both_faces(classifier(net), GRAD(SmoothedReLU(MonotoneGate(tau))))
        distances.append(float((reading.maps[:, 0] - maps).abs().max().detach()))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-4


@pytest.mark.parametrize("net", ["resnet", "squeezenet"])
@pytest.mark.parametrize("attacker", [Replay(follow=8, horizon=40), Unrolled(follow=8, lookahead=1)], ids=str)
def test_the_longer_mask_is_followed_the_closer_it_is_read_to_the_deployed_one(net: str, attacker: SolverModel) -> None:
    """Both solve the same problem, under other jitter, which keeps them a little apart; unrolling starts from the
    map of another image."""
    model, interpreter = classifier(net), MASK(Solver(steps=40), attacker)
    x, distances = images(3), []
    belief = interpreter.begin(model, images(3, seed=9), Y, Y)
    maps = interpreter.explain(model, x, Y, Y)
    for _ in range(4):
        reading = interpreter.read(model, belief, x.clone().requires_grad_(), Y)
        distances.append(float((reading.maps[:, -1] - maps).abs().mean().detach()))
        belief = interpreter.advance(model, belief, x, Y)
    assert all(later < sooner + 0.001 for sooner, later in pairwise(distances))
    assert distances[3] < 0.5 * distances[0]


@every_network
def test_mask_replayed_to_its_end_without_jitter_is_the_deployed_one(net: str) -> None:
    solver = Solver(steps=6, geometry=Geometry(cell=4, image_taps=5, mask_taps=3, jitter=0))
    model, interpreter = classifier(net), MASK(solver, Replay(follow=6, horizon=6))
    reading, maps = both_faces(model, interpreter)
    assert torch.equal(reading.maps[:, 0].detach(), maps)


@every_network
def test_of_many_copies_both_faces_have_nearly_the_same_median(net: str) -> None:
    """Two draws of the same noise: the more copies, the closer."""
    model, distances = classifier(net), []
    for copies in (1, 9, 81):
        reading, maps = both_faces(model, Smooth(CAM(), copies))
        distances.append(float((reading.maps[:, 0] - maps).abs().mean().detach()))
    assert distances[0] > distances[1] > distances[2]


@every_network
def test_without_noise_the_interpreter_inside_is_what_is_seen(net: str) -> None:
    model = classifier(net)
    (reading, maps), (inside, inside_maps) = (both_faces(model, g) for g in (Smooth(CAM(), sigma=0.0), CAM()))
    assert torch.equal(maps, inside_maps)
    assert torch.equal(reading.maps, inside.maps)
