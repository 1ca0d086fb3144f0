"""The training loop finds known minima, repeats bit for bit, and leaves global state alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.data.scenes import scenes
from underfire.models.demo import DemoClassifier
from underfire.training import demo
from underfire.training.demo import HELD_OUT, accuracy, retrain, train_demo_classifier
from underfire.training.loop import Checkpoint, HeldOut, balanced, fit, initialised, seeded, shuffled

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


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> int:
    """The demo classifier's statistics are measured, and its accuracy judged, on a hundred scenes each."""
    monkeypatch.setattr(demo, "MEASURED", 100)
    monkeypatch.setattr(demo, "JUDGED", 100)
    return 100


@pytest.mark.usefixtures("few_scenes")
def test_same_seed_same_weights_bit_for_bit_and_global_state_untouched() -> None:
    before = torch.get_rng_state()
    first, second = (train_demo_classifier(steps=2, seed=0).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_initial_weights_depend_on_the_seed() -> None:
    first, other = (initialised(DemoClassifier, seed).head.weight for seed in (0, 1))
    assert not torch.equal(first, other)


def test_retrain_writes_the_weights_it_measured(few_scenes: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    measured = retrain(path, steps=1)
    network = DemoClassifier()
    network.load_state_dict(load_file(path))
    assert accuracy(network.eval(), scenes(few_scenes, HELD_OUT).samples) == pytest.approx(measured, abs=2e-3)


def test_shuffled_visits_every_image_once_per_epoch_in_new_orders() -> None:
    indices = shuffled(12, 4, seed=5)
    first, second = (torch.cat([indices(step) for step in steps]) for steps in (range(3), range(3, 6)))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(12))
    assert first.tolist() != second.tolist()
    assert torch.equal(shuffled(12, 4, seed=5)(4), indices(4))


LABELS = torch.tensor([0] * 12 + [4] * 3 + [1] * 2)


def test_balanced_batches_hold_every_class_alike_and_every_image_of_a_class_alike() -> None:
    drawn = torch.cat([balanced(LABELS, 4, seed=1)(step) for step in range(27)])  # 36 rounds of three classes
    assert LABELS[drawn].bincount().tolist() == [36, 36, 0, 0, 36]
    assert drawn.bincount().tolist() == [3] * 12 + [12] * 3 + [18] * 2
    rounds = LABELS[drawn].view(36, 3)
    assert all(sorted(each) == [0, 1, 4] for each in rounds.tolist())
    assert len({tuple(each) for each in rounds.tolist()}) > 3
    passes = drawn[LABELS[drawn] == 0].view(3, 12)
    assert all(sorted(each) == list(range(12)) for each in passes.tolist())
    assert passes[0].tolist() != passes[1].tolist()


def test_a_balanced_batch_is_a_function_of_seed_and_step() -> None:
    indices = balanced(LABELS, 5, seed=1)
    later = indices(7)
    assert torch.equal(balanced(LABELS, 5, seed=1)(7), later)
    assert not torch.equal(balanced(LABELS, 5, seed=2)(7), later)
    with pytest.raises(UnderfireError, match="A batch needs one or more of at least one image, not 0 of 17"):
        balanced(LABELS, 0, seed=1)


def test_layers_that_draw_repeat_at_a_step_and_leave_the_global_generator() -> None:
    def dropped(seed: int, step: int) -> list[float]:
        with seeded(seed, step, torch.device("cpu")):
            return torch.nn.functional.dropout(torch.ones(64)).tolist()

    before = torch.get_rng_state()
    first = dropped(0, 3)
    assert dropped(0, 3) == first
    assert dropped(0, 4) != first
    assert dropped(1, 3) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_arguments_and_diverging_losses_are_one_sentence() -> None:
    network = nn.Linear(1, 1)
    with pytest.raises(UnderfireError, match="at least one step"):
        fit(network, lambda step: INPUTS, squared_error, steps=0, lr=0.1)
    with pytest.raises(UnderfireError, match="lower the learning rate"):
        fit(network, lambda step: INPUTS / 0, squared_error, steps=1, lr=0.1)
    with pytest.raises(UnderfireError, match="between 1 and 12"):
        shuffled(12, 13, seed=0)


class Noisy(nn.Module):
    """A network with all that has a state: weights, and a counter of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def trained(
    checkpoint: Checkpoint | None = None, stop_at: int = 10**6, steps: int = 40, patience: int = 100
) -> tuple[dict[str, Tensor], int]:
    """Weights and steps of a short training, which fails before step `stop_at`."""

    def batch(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        return INPUTS + 0.01 * step

    network = initialised(Noisy, seed=0)
    held_out = HeldOut(lambda net: squared_error(net, INPUTS).mean().item(), every=5, patience=patience)
    done = fit(network, batch, squared_error, steps=steps, lr=0.1, held_out=held_out, checkpoint=checkpoint)
    return network.state_dict(), done


@pytest.mark.parametrize("stops", [[1], [7], [20], [39], [3, 4, 33]])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path, stops: list[int]) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "this training", every=3)
    expected, _ = trained()
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            trained(checkpoint, stop)
    resumed, done = trained(checkpoint)
    assert done == 40
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)


def test_what_batches_remember_is_resumed_too(tmp_path: Path) -> None:
    """Each batch depends on a tensor that the batches before it have written to."""

    def batches(memory: Tensor, stop_at: int) -> Callable[[int], Tensor]:
        def batch(step: int) -> Tensor:
            if step == stop_at:
                raise KeyboardInterrupt
            memory.mul_(0.9).add_(0.1 * step)
            return INPUTS + memory

        return batch

    def run(stop_at: int, checkpoint: Checkpoint | None) -> tuple[Tensor, Tensor]:
        network, memory = initialised(lambda: nn.Linear(1, 1), seed=0), torch.zeros(1)
        memories = {"of.batches": memory}
        batch = batches(memory, stop_at)
        fit(network, batch, squared_error, steps=20, lr=0.1, checkpoint=checkpoint, memory=memories)
        return memory, network.weight.detach()

    checkpoint = Checkpoint(tmp_path / "state", "this training", every=3)
    with pytest.raises(KeyboardInterrupt):
        run(11, checkpoint)
    assert all(torch.equal(*pair) for pair in zip(run(99, checkpoint), run(99, None), strict=True))


def test_checkpoints_save_work(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state", "this training", every=10)
    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint, stop_at=25)
    seen: list[int] = []

    def batch(step: int) -> Tensor:
        seen.append(step)
        return INPUTS

    fit(Noisy(), batch, squared_error, steps=40, lr=0.1, checkpoint=checkpoint)
    assert seen == list(range(20, 40))


def test_a_place_that_cannot_be_written_to_is_found_out_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnderfireError, match="cannot be written"):
        trained(Checkpoint(tmp_path / "file" / "state", "this training"), stop_at=0)


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    trained(Checkpoint(path, "this training", every=10))
    with pytest.raises(UnderfireError, match="checkpoint of a training with other settings, model or images"):
        trained(Checkpoint(path, "another training"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnderfireError, match="is damaged; delete it to begin anew"):
        trained(Checkpoint(path, "this training"))


def test_the_best_judged_network_is_kept() -> None:
    """The score prefers a weight that training passes on its way."""
    network = initialised(lambda: nn.Linear(1, 1), seed=0)
    judged: list[float] = []

    def score(net: nn.Module) -> float:
        judged.append(net.weight.item())
        return abs(net.weight.item() - 1.5)

    fit(network, lambda step: INPUTS, squared_error, steps=100, lr=0.1, held_out=HeldOut(score, 5, 100))
    assert len(judged) == 20
    assert network.weight.item() == min(judged, key=lambda weight: abs(weight - 1.5))
    assert judged[-1] > 2.5


def test_training_stops_once_it_has_not_improved_for_long() -> None:
    network, scores = initialised(lambda: nn.Linear(1, 1), seed=0), iter([3.0, 1.0, 2.0, 1.0, 1.5, 0.0])
    held_out = HeldOut(lambda net: next(scores), every=2, patience=3)
    assert fit(network, lambda step: INPUTS, squared_error, steps=100, lr=0.1, held_out=held_out) == 10
