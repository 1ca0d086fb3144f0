"""The training loop finds known minima, repeats bit for bit, and leaves global state alone."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from underfire.demo_training import HELD_OUT, accuracy, retrain, train_demo_classifier
from underfire.networks import DemoClassifier
from underfire.scenes import scenes
from underfire.training import fit, initialised, shuffled
from underfire.types import UnderfireError

INPUTS = torch.linspace(-1, 1, 64)[:, None]


def squared_error(network: nn.Module, x: Tensor) -> Tensor:
    return (network(x) - (3 * x - 1)).square().flatten()


def test_fit_reaches_the_minimum_of_a_convex_loss() -> None:
    network = initialised(lambda: nn.Linear(1, 1), seed=0)
    fit(network, lambda step: INPUTS, squared_error, steps=400, lr=0.1, weight_decay=0.0)
    torch.testing.assert_close(network.weight.detach(), torch.tensor([[3.0]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(network.bias.detach(), torch.tensor([-1.0]), atol=1e-3, rtol=0)
    assert not network.training


def test_fit_reports_the_mean_loss_of_every_step() -> None:
    network = initialised(lambda: nn.Linear(1, 1), seed=0)
    before = squared_error(network, INPUTS).mean().item()
    reports: list[tuple[int, float]] = []
    fit(
        network,
        lambda step: INPUTS,
        squared_error,
        steps=3,
        lr=0.1,
        on_step=lambda *report: reports.append(report),
    )
    assert [step for step, _ in reports] == [0, 1, 2]
    assert reports[0][1] == pytest.approx(before)


def test_same_seed_same_weights_bit_for_bit_and_global_state_untouched() -> None:
    before = torch.get_rng_state()
    first, second = (train_demo_classifier(steps=2, seed=0).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_initial_weights_depend_on_the_seed() -> None:
    first, other = (initialised(DemoClassifier, seed).head.weight for seed in (0, 1))
    assert not torch.equal(first, other)


def test_retrain_writes_the_weights_it_measured(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    measured = retrain(path, steps=1)
    network = DemoClassifier()
    network.load_state_dict(load_file(path))
    assert accuracy(network.eval(), scenes(1000, HELD_OUT).samples) == pytest.approx(measured, abs=2e-3)


def test_shuffled_visits_every_image_once_per_epoch_in_new_orders() -> None:
    indices = shuffled(12, 4, seed=5)
    first, second = (torch.cat([indices(step) for step in steps]) for steps in (range(3), range(3, 6)))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(12))
    assert first.tolist() != second.tolist()
    assert torch.equal(shuffled(12, 4, seed=5)(4), indices(4))


def test_bad_arguments_and_diverging_losses_are_one_sentence() -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(UnderfireError, match="at least one step"):
        fit(network, lambda step: INPUTS, squared_error, steps=0, lr=0.1)
    with pytest.raises(UnderfireError, match="lower the learning rate"):
        fit(network, lambda step: INPUTS / 0, squared_error, steps=1, lr=0.1)
    with pytest.raises(UnderfireError, match="between 1 and 12"):
        shuffled(12, 13, seed=0)
