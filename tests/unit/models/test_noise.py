"""Noise of a level: drawn per image, of the deviation asked for, and no stronger than it takes."""

import pytest
import torch

from tiny_networks import classifier, images
from underfire.core.errors import UnderfireError
from underfire.core.rng import image_keys
from underfire.models.noise import NOISES, Trial, disturbed

N = 24
KEYS = image_keys(map(str, range(N)))


def trial(kind: str, batch_size: int = 16) -> Trial:
    model, x = classifier("densenet"), images(N)
    with torch.no_grad():
        labels = model(x).argmax(1)
    return Trial(model, x.__getitem__, labels, KEYS, kind, seed=0, batch_size=batch_size)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_its_deviation_and_its_shape(kind: str) -> None:
    grey = torch.full((N, 3, 16, 16), 0.5)
    noise = (disturbed(grey, kind, KEYS, 0.1, seed=0) - grey) / 0.1
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    kurtosis = noise.pow(4).mean().item()
    assert kurtosis == pytest.approx({"normal": 3.0, "uniform": 1.8}[kind], abs=0.1)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_belongs_to_image_and_seed_and_stays_within_the_image(kind: str) -> None:
    x, order = images(N), torch.tensor([5, 2])
    noisy = disturbed(x, kind, KEYS, 0.5, seed=0)
    assert torch.equal(disturbed(x[order], kind, KEYS[order], 0.5, seed=0), noisy[order])
    assert not torch.equal(disturbed(x, kind, KEYS, 0.5, seed=1), noisy)
    assert 0 <= noisy.min() <= noisy.max() <= 1
    assert torch.equal(disturbed(x, kind, KEYS, 0.0, seed=0), x)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("level", [0.03, 0.3])
def test_the_level_is_just_reached(kind: str, level: float) -> None:
    one = trial(kind)
    sigma = one.calibrate(level)
    assert one.errors(sigma) >= level > one.errors(sigma - 2**-15)
    assert one.errors(0.0) == 0
    assert trial(kind, batch_size=5).calibrate(level) == pytest.approx(sigma, abs=2**-15)


def test_a_level_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(UnderfireError, match="Not even normal noise of deviation 1 makes the model err on 99 %"):
        trial("normal").check(0.99)
