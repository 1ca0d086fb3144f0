"""Training a masker against its attacker: turns, attacks inside the training, resumption, and benign maps that stay."""

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny_maskers import masker_file, tiny_rts
from tiny_networks import classifier, images
from underfire.attacks.api import adv2
from underfire.core.errors import UnderfireError
from underfire.core.types import Outcome
from underfire.interpreters import RTS
from underfire.metrics.maps import map_l1
from underfire.models.classifier import Classifier
from underfire.models.masker import MaskerNetwork
from underfire.training import rts
from underfire.training.adversary import Adversary
from underfire.training.aid import CURVES, AidBatches, AidObjective, AidRecipe, recipe_for, train_aid
from underfire.training.dataset import Batch, TrainingSet, demo_training_set, split
from underfire.training.loop import Checkpoint
from underfire.training.rts import FeatureExtractor, eq8

SHORT = AidRecipe(
    steps=8, batch=4, width=8, judge_every=4, pool=8, attack_steps=3, judged_attacks=2, judge_steps=3, held_out=0.2
)


def a_training_set(n: int = 12, seed: int = 0) -> TrainingSet:
    pixels = (255 * images(n, seed=seed)).round().byte()
    return TrainingSet(tuple(f"image {i}" for i in range(n)), pixels, None, f"{n} of seed {seed}")


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier("resnet")


@pytest.fixture
def init(tmp_path: Path, model: Classifier) -> RTS:
    return RTS.load(masker_file(tmp_path / "init.safetensors", model))


def batches_of(model: Classifier, **changes: Any) -> tuple[AidObjective, MaskerNetwork, AidBatches]:
    init = tiny_rts(model)
    objective = AidObjective(FeatureExtractor(model), init, SHORT.model_copy(update=changes))
    network = copy.deepcopy(init.masker.network).requires_grad_(True).train()
    return objective, network, AidBatches(objective, network, a_training_set(), torch.arange(12))


# ------------------------------------------------------------------ turns and losses


@pytest.mark.parametrize(
    ("plain", "defending"), [(3, 1), *(pytest.param(n, 1, marks=pytest.mark.extended) for n in (0, 1))]
)
def test_both_losses_are_minimised_in_the_stated_ratio(
    tmp_path: Path, model: Classifier, init: RTS, monkeypatch: pytest.MonkeyPatch, plain: int, defending: int
) -> None:
    called: list[str] = []
    for name in ("plain", "defending"):
        loss = getattr(AidObjective, name)
        monkeypatch.setattr(
            AidObjective, name, lambda *arguments, name=name, loss=loss: (called.append(name), loss(*arguments))[1]
        )
    recipe = SHORT.model_copy(update={"plain_steps": plain, "defending_steps": defending})
    train_aid(model, init, a_training_set(), recipe, tmp_path / "out.safetensors")
    assert called == (8 * (plain * ["plain"] + defending * ["defending"]))[:8]


@pytest.mark.parametrize("defence", ["distillation", "augmentation"])
def test_the_defence_s_loss_is_its_definition(model: Classifier, defence: str) -> None:
    changes = {"defence": defence, "weight": 7.0, "margin": 0.1, "fidelity": 3.0, "drift": 0.01}
    objective, network, batches = batches_of(model, **changes)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.05 * weight.sign())
        pairs = batches.pairs(0)
        now, before = objective.as_it_is(network), objective.original
        batch = pairs.attack_batch
        of_benign, of_original = (g.explain(model, batch.image, batch.label, batch.key) for g in (now, before))
        of_attacked = now.explain(model, pairs.attacked, batch.target, batch.key)
        if defence == "distillation":
            expected = -7 * map_l1(of_benign, of_attacked).clamp(max=0.1)
        else:
            extractor, encoder = objective.extractor, before.masker.manifest.encoder
            attacked = Batch(pairs.attacked, batch.key, step=0)
            expected = objective.recipe.total(eq8(extractor, encoder, network, attacked, objective.recipe))
        drift = map_l1(of_benign, of_original)
        assert drift.min() > 0.01
        torch.testing.assert_close(objective.defending(network, pairs), expected + 3 * (drift - 0.01))


# ------------------------------------------------------------------ attacks inside the training


def test_an_attack_leaves_the_network_as_it_was(model: Classifier) -> None:
    _, network, batches = batches_of(model)
    network.exit.eval()
    network.entry.requires_grad_(False)
    network.exit.weight.grad = torch.ones_like(network.exit.weight)

    def state() -> list[Any]:
        modes = [(name, id(module), module.training) for name, module in network.named_modules()]
        return modes + [
            (name, id(p), p.requires_grad, p.detach().numpy().tobytes(), None if p.grad is None else p.grad.tolist())
            for name, p in network.named_parameters()
        ]

    before = state()
    batches.pairs(0)
    assert state() == before


def test_the_first_epoch_attacks_every_image_of_the_pool_as_adv2_does(model: Classifier) -> None:
    objective, network, batches = batches_of(model)
    seen = []
    for count in range(batches.visits):
        pairs = batches.pairs(count)
        batch = pairs.attack_batch
        attack = adv2(model, objective.as_it_is(network), steps=3, batch=4).attack
        assert attack.steps == objective.recipe.attack_steps
        assert (pairs.attacked - batch.image).abs().amax((1, 2, 3)).min() > 1 / 255
        seen += batch.key.tolist()
    assert len(set(seen)) == len(seen) == len(batches.pool) == 8
    assert batches.theta.flatten(1).abs().amax(1).min() > 0


def test_attacks_are_renewed_as_often_as_asked(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the thetas of the last time; in between images are shown as they were then."""
    _, _, batches = batches_of(model, refresh=2)
    starts: list[Tensor] = []
    attack = Adversary.attack

    def recorded(adversary: Adversary, *arguments: Any) -> Outcome:
        starts.append(arguments[-1])
        return attack(adversary, *arguments)

    monkeypatch.setattr(Adversary, "attack", recorded)
    attacks, thetas = [], []
    for count in range(3 * batches.visits):
        before = batches.theta[batches.order(count)].clone()
        pairs = batches.pairs(count)
        attacks.append(len(starts))
        thetas.append(before)
        torch.testing.assert_close(pairs.attacked - pairs.attack_batch.image, batches.theta[batches.order(count)])
    assert attacks == [1, 2, 2, 2, 3, 4]
    assert torch.equal(starts[2], thetas[4])


def test_a_pool_is_whole_batches(model: Classifier) -> None:
    assert [len(batches_of(model, pool=pool)[2].pool) for pool in (3, 4, 7, 100)] == [3, 4, 4, 12]


# ------------------------------------------------------------------ the whole training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model: Classifier) -> Path:
    """A masker's file, defended in a short training that nobody interrupted; `init` lies beside it."""
    folder = tmp_path_factory.mktemp("trained")
    init = RTS.load(masker_file(folder / "init.safetensors", model))
    before = {name: value.clone() for name, value in init.masker.network.state_dict().items()}
    train_aid(model, init, a_training_set(), SHORT, folder / "out.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in init.masker.network.state_dict().items())
    return folder / "out.safetensors"


def test_a_defended_masker_names_what_it_was_made_from(trained: Path, model: Classifier, init: RTS) -> None:
    defended = RTS.load(trained)
    manifest = defended.masker.manifest
    assert manifest.classifier == model.fingerprint()
    assert manifest.encoder == init.masker.manifest.encoder
    assert manifest.training["made_from"] == init.digest
    assert manifest.training["steps_done"] == 8
    assert SHORT.model_dump().items() <= manifest.training.items()
    assert {"drift", "separation", "success", "area", "kept", "removed"} <= manifest.scores.keys()
    assert {path.name for path in trained.parent.iterdir()} == {"init.safetensors", "out.safetensors", "out.csv"}
    assert adv2(model, defended, steps=2)(images(2)).maps.shape == (2, 8, 8)


def test_curves_begin_with_the_original_and_hold_a_row_per_check(trained: Path) -> None:
    with trained.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CURVES
    assert [row["step"] for row in rows] == ["0", "4", "8"]
    assert [float(row["drift"]) > 0 for row in rows] == [False, True, True]
    assert {row["localisation_error"] for row in rows} == {""}


def test_resumed_equals_uninterrupted(
    trained: Path, tmp_path: Path, model: Classifier, init: RTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, curves, and the attacks' own progress: the second epoch goes on from the first one's thetas."""
    monkeypatch.setattr(rts, "Checkpoint", lambda path, identity: Checkpoint(path, identity, every=3))
    parts = tmp_path / "parts.safetensors"

    def interrupt(step: int, loss: float) -> None:
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_aid(model, init, a_training_set(), SHORT, parts, interrupt)
    with pytest.raises(UnderfireError, match="checkpoint of a training with other settings"):
        train_aid(model, init, a_training_set(), SHORT.model_copy(update={"margin": 0.3}), parts)
    train_aid(model, init, a_training_set(), SHORT, parts)
    assert trained.read_bytes() == parts.read_bytes()
    assert trained.with_suffix(".csv").read_bytes() == parts.with_suffix(".csv").read_bytes()


def test_a_finished_training_is_not_done_again_and_another_s_is_kept(
    trained: Path, tmp_path: Path, model: Classifier, init: RTS
) -> None:
    again = train_aid(model, init, a_training_set(), SHORT, trained, lambda step, loss: pytest.fail("trained again"))
    assert again.digest == RTS.load(trained).digest
    other = RTS.load(masker_file(tmp_path / "other.safetensors", model, seed=1))
    with pytest.raises(UnderfireError, match=f"made_from was {init.digest} and is now {other.digest}"):
        train_aid(model, other, a_training_set(), SHORT, trained)
    with pytest.raises(UnderfireError, match=r"margin was 0.2 and is now 0.4"):
        train_aid(model, init, a_training_set(), SHORT.model_copy(update={"margin": 0.4}), trained)


def test_a_masker_of_another_classifier_is_refused_before_anything_is_written(tmp_path: Path, init: RTS) -> None:
    stranger = classifier("densenet")
    with pytest.raises(UnderfireError, match="trained for another classifier"):
        train_aid(stranger, init, a_training_set(), SHORT, tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["init.safetensors"]


def test_the_original_s_weights_of_eq_8_are_inherited(init: RTS) -> None:
    held = {"width": 16, "roughness": 3.0, "area": 2.5, "removed": 4.0, "power": 0.4, "steps": 999, "lr": 0.9}
    manifest = init.masker.manifest.model_copy(update={"training": held})
    recipe = recipe_for(type(init.masker)(manifest, init.masker.network, ""), steps=10)
    assert (recipe.width, recipe.roughness, recipe.area, recipe.removed, recipe.power) == (16, 3.0, 2.5, 4.0, 0.4)
    assert (recipe.steps, recipe.lr) == (10, AidRecipe().lr)


@pytest.mark.extended
@pytest.mark.parametrize(("fidelity", "least", "most"), [(100.0, 0.0, 0.05), (0.0, 0.1, 1.0)])
def test_the_fidelity_term_holds_the_benign_maps(
    tmp_path: Path, model: Classifier, init: RTS, fidelity: float, least: float, most: float
) -> None:
    """On the images of the pool, where Eq. 16 alone is minimised beside it."""
    options = {"plain_steps": 0, "fidelity": fidelity, "drift": 0.04, "margin": 1.0, "lr": 3e-3, "refresh": 40}
    recipe = SHORT.model_copy(update={**options, "steps": 80, "judge_every": 80})
    train_aid(model, init, a_training_set(), recipe, tmp_path / "out.safetensors")
    fitted, _ = split(a_training_set().ids, recipe.held_out, recipe.seed)
    pool = a_training_set().batch(fitted[:8], torch.device("cpu"))
    y = model(pool.images).argmax(1)
    now, before = (g.explain(model, pool.images, y, y) for g in (RTS.load(tmp_path / "out.safetensors"), init))
    assert least < map_l1(now, before).mean() < most


@pytest.mark.extended
def test_the_masker_that_is_kept_respects_the_bound_on_the_demo(tmp_path: Path) -> None:
    """Of held-out images; without a bound the network of the largest separation is kept, wherever its maps are."""
    model, scenes = Classifier.load("demo"), demo_training_set(30)
    bounded = recipe_for(
        RTS.demo().masker,
        **{"steps": 12, "lr": 2e-3, "batch": 8, "judge_every": 3, "pool": 8, "refresh": 12, "held_out": 0.2},
        **{"attack_steps": 3, "judged_attacks": 2, "judge_steps": 3, "drift": 0.04},
    )
    free = bounded.model_copy(update={"drift": 1.0, "fidelity": 0.0})
    drifts = []
    for recipe, name in ((bounded, "bounded.safetensors"), (free, "free.safetensors")):
        drifts.append(train_aid(model, RTS.demo(), scenes, recipe, tmp_path / name).manifest.scores["drift"])
    assert drifts[0] <= 0.04 < drifts[1]
