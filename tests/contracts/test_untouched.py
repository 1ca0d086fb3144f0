"""Law 2, Untouched: whatever happens, the user's network and the process are afterwards as they were before."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config as shape_checks
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from law_cases import pairs
from tiny_attacks import BENT, INTERPRETERS, RULES, attack, differing_rows, interpreter_of
from tiny_networks import MEAN, NETWORKS, STD, images, network
from tiny_scorers import score, scorers_of
from underfire.attacks.api import Attacker
from underfire.attacks.result import Result
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.models.classifier import Classifier

every_interpreter = pytest.mark.parametrize("name", INTERPRETERS)


def bits(value: Tensor | None) -> bytes | None:
    return None if value is None else value.detach().numpy().tobytes()


def state(net: nn.Module) -> list[Any]:
    """All that a user could notice: modules, modes, hooks, flags, layouts, parameters and buffers to the bit."""
    modules = [
        (name, id(m), m.training, *(list(v) for k, v in vars(m).items() if k.endswith("_hooks")))
        for name, m in net.named_modules()
    ]
    tensors = [
        (name, id(v), v.requires_grad, v.stride(), bits(v), bits(v.grad))
        for name, v in (*net.named_parameters(), *net.named_buffers())
    ]
    return modules + tensors


def state_of_the_process() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        _get_current_function_mode_stack(),
    ]


@pytest.fixture(autouse=True)
def untouched_process() -> Iterator[None]:
    before = state_of_the_process()
    yield
    assert state_of_the_process() == before


def in_use(name: str) -> nn.Module:
    """A network in the middle of its owner's work: mixed modes and flags, a gradient, a hook, its own layout."""
    net = network(name).train()
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    layers[-1].eval()
    layers[0].requires_grad_(False)
    layers[-1].weight.grad = torch.ones_like(layers[-1].weight)
    layers[0].register_forward_hook(lambda module, inputs, output: None)
    layers[1].to(memory_format=torch.channels_last)
    return net


def attacker(net: nn.Module, name: str) -> Attacker:
    model = Classifier(net, MEAN, STD)
    interpreter = interpreter_of(name, model)
    return Attacker(model, attack(interpreter, **RULES.get(name, {}), rungs=(2,)), interpreter)


def assert_same(a: Result, b: Result) -> None:
    assert differing_rows(a, b) == []


@pytest.mark.parametrize(("net", "name"), pairs(NETWORKS, INTERPRETERS))
def test_after_a_run(net: str, name: str) -> None:
    user_net, x = in_use(net), images(2)
    before, pixels = state(user_net), x.clone()
    attacker(user_net, name)(x)
    assert state(user_net) == before
    assert torch.equal(x, pixels)


@every_interpreter
def test_after_a_run_on_flows(name: str) -> None:
    user_net, x = in_use("resnet"), images(2)
    before, pixels = state(user_net), x.clone()
    model = Classifier(user_net, MEAN, STD)
    interpreter = interpreter_of(name, model)
    Attacker(model, attack(interpreter, **BENT, rungs=(2,)), interpreter)(x)
    assert state(user_net) == before
    assert torch.equal(x, pixels)


@every_interpreter
@pytest.mark.parametrize("spoil", [lambda x: x * 255, lambda x: x[:, :1], lambda x: x[:0]])
def test_after_a_bad_argument(name: str, spoil: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_checks, "jaxtyping_disable", True)
    user_net = in_use("densenet")
    before = state(user_net)
    with pytest.raises(UnderfireError):
        attacker(user_net, name)(spoil(images(2)))
    assert state(user_net) == before


class Failing(nn.Module):
    """The network inside, except that the call number `fails_at` of all copies together raises."""

    def __init__(self, net: nn.Module, fails_at: int) -> None:
        super().__init__()
        self.net = net
        calls = count(1)

        def before(x: Tensor) -> Tensor:
            if next(calls) == fails_at:
                raise MemoryError("out of memory")
            return x

        self.before = before  # a plain function: copies of the network share it and its counter

    def forward(self, x: Tensor) -> Tensor:
        return self.before(self.net(x))


@every_interpreter
@pytest.mark.parametrize("fails_at", [1, 2, 4, 6, 9])
def test_after_a_model_that_raises(name: str, fails_at: int) -> None:
    """Wherever the failure strikes, the same attacker works again, to the same bits."""
    user_net, x = in_use("densenet-copying"), images(2)
    before = state(user_net)
    failing = attacker(Failing(user_net, fails_at), name)
    with pytest.raises(MemoryError, match="out of memory"):
        failing(x)
    assert state(user_net) == before
    assert_same(failing(x), attacker(user_net, name)(x))


@every_interpreter
def test_after_scores(name: str) -> None:
    user_net, x, keys = in_use("densenet-copying"), images(2), image_keys(["a", "b"])
    model = Classifier(user_net, MEAN, STD)
    before, pixels = state(user_net), x.clone()
    for scorer in scorers_of(name, model):
        score(scorer, model, x, keys)
    assert state(user_net) == before
    assert torch.equal(x, pixels)


@every_interpreter
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_after_scores_of_a_model_that_raises(name: str, fails_at: int) -> None:
    x, keys = images(2), image_keys(["a", "b"])
    for i in range(len(scorers_of(name, Classifier(in_use("densenet-copying"), MEAN, STD)))):
        user_net = in_use("densenet-copying")
        failing, sound = (Classifier(net, MEAN, STD) for net in (Failing(user_net, fails_at), user_net))
        before = state(user_net)
        scorer = scorers_of(name, failing)[i]
        with pytest.raises(MemoryError, match="out of memory"):
            [score(scorer, failing, x, keys) for _ in range(fails_at)]
        assert state(user_net) == before
        scores = [score(scorers_of(name, model)[i], model, x, keys) for model in (failing, sound)]
        assert torch.equal(*scores)


@every_interpreter
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_within_the_users_own_grad_mode(name: str, mode: Callable[[], Any]) -> None:
    expected = attacker(network("densenet"), name)(images(2), torch.tensor([3, 4]))
    with mode():
        inside = attacker(network("densenet"), name)(images(2), torch.tensor([3, 4]))
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (False, mode is torch.inference_mode)
    assert_same(inside, expected)
    assert not any(value.is_inference() for value in vars(inside).values() if isinstance(value, Tensor))


@every_interpreter
def test_images_and_maps_inside_a_graph_stay_outside_the_attack(name: str) -> None:
    x, maps = images(2), attacker(network("resnet"), name)(images(2)).target_map
    expected = attacker(network("resnet"), name)(x, target_map=maps)
    inside = attacker(network("resnet"), name)(x.requires_grad_(), target_map=maps.requires_grad_())
    assert_same(inside, expected)
    assert not any(value.requires_grad for value in vars(inside).values() if isinstance(value, Tensor))
    assert x.grad is None


def test_a_network_in_training_mode_is_attacked_in_evaluation_mode() -> None:
    """Dropout and batch statistics would make both differ from call to call."""
    for net in ("squeezenet", "mobilenet"):
        assert_same(attacker(network(net).train(), "cam")(images(2)), attacker(network(net), "cam")(images(2)))


def test_training_the_users_network_leaves_the_classifier_alone() -> None:
    net, x = network("resnet"), images(2)
    model = Classifier(net, MEAN, STD)
    with torch.no_grad():
        before = model(x)
        for parameter in net.parameters():
            parameter.add_(1)
        assert torch.equal(model(x), before)
