"""Counter-based randomness: uniform, independent, and a function of (seed, purpose, image, step) alone."""

from itertools import combinations

import pytest
import torch
from scipy import stats
from torch import Tensor

from underfire.core import rng
from underfire.core.errors import UnderfireError

KEYS = rng.image_keys(f"image {i}" for i in range(200))
ZERO = torch.zeros(200, dtype=torch.int64)
SIGNIFICANT = 1e-4  # the draws are fixed, so a test that passes once passes always


def streams() -> dict[str, Tensor]:
    """A hundred numbers for each of two hundred images, with one thing changed at a time."""
    return {
        "as it is": rng.uniform(0, "mask", KEYS, ZERO, 100),
        "other seed": rng.uniform(1, "mask", KEYS, ZERO, 100),
        "other purpose": rng.uniform(0, "noise", KEYS, ZERO, 100),
        "other step": rng.uniform(0, "mask", KEYS, ZERO + 1, 100),
        "other images": rng.uniform(0, "mask", rng.image_keys(f"photo {i}" for i in range(200)), ZERO, 100),
        "neighbouring keys": rng.uniform(0, "mask", torch.arange(200), ZERO, 100),
        "late steps": rng.uniform(0, "mask", KEYS, ZERO + 10**6, 100),
    }


@pytest.mark.parametrize("name", streams())
def test_numbers_are_uniform(name: str) -> None:
    draws = streams()[name]
    assert draws.shape == (200, 100)
    assert draws.dtype == torch.float64
    assert draws.min() > 0
    assert draws.max() < 1
    assert stats.kstest(draws.flatten().numpy(), "uniform").pvalue > SIGNIFICANT
    for dim in (0, 1):
        normal = stats.norm(0.5, (1 / 12 / draws.shape[dim]) ** 0.5)
        assert stats.kstest(draws.mean(dim).numpy(), normal.cdf).pvalue > SIGNIFICANT, "means of rows and columns"


def test_streams_are_independent() -> None:
    """None of 21 correlations of 20000 pairs is beyond 4.5 standard deviations."""
    for one, other in combinations(streams().values(), 2):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert correlation.abs() < 4.5 / 20000**0.5


def test_neighbours_in_a_stream_are_independent() -> None:
    draws = streams()["as it is"]
    for one, other in ((draws[:, 1:], draws[:, :-1]), (draws[1:], draws[:-1])):
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert correlation.abs() < 4.5 / 19800**0.5


def test_steps_of_one_image_are_uniform_too() -> None:
    draws = rng.uniform(0, "label smoothing", KEYS[:1].repeat(5000), torch.arange(5000), 1)[:, 0]
    assert stats.kstest(draws.numpy(), "uniform").pvalue > SIGNIFICANT
    assert torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1].abs() < 4.5 / 5000**0.5


def test_a_row_is_a_function_of_its_own_key_and_step() -> None:
    step = torch.arange(200) % 7
    together = rng.uniform(3, "mask", KEYS, step, 5)
    order = torch.arange(199, -1, -1)
    assert torch.equal(rng.uniform(3, "mask", KEYS[order], step[order], 5), together[order])
    for i in (0, 17, 199):
        assert torch.equal(rng.uniform(3, "mask", KEYS[i : i + 1], step[i : i + 1], 5)[0], together[i])


def test_asking_for_more_numbers_changes_none_of_the_first() -> None:
    assert torch.equal(rng.uniform(0, "mask", KEYS, ZERO, 3), rng.uniform(0, "mask", KEYS, ZERO, 9)[:, :3])


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    first = rng.uniform(0, "mask", KEYS, ZERO, 3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        assert torch.equal(rng.uniform(0, "mask", KEYS, ZERO, 3), first)


@pytest.mark.parametrize("bits", [0, -1], ids=["all zeros", "all ones"])
def test_numbers_stay_inside_the_open_interval_at_both_ends(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "_bits", lambda seed, purpose, keys, step, size: torch.full((1, 1), bits))
    (number,) = rng.uniform(0, "mask", KEYS[:1], ZERO[:1], 1)
    assert 0 < number < 1
    assert 0 <= rng.integers(0, "mask", KEYS[:1], ZERO[:1], 1, 3) < 3


@pytest.mark.parametrize("high", [1, 2, 9, 999])
def test_integers_are_uniform_below_high(high: int) -> None:
    draws = rng.integers(0, "target class", KEYS, ZERO, 100, high)
    assert draws.dtype == torch.int64
    assert draws.min() >= 0
    assert draws.max() <= high - 1
    counts = torch.bincount(draws.flatten(), minlength=high)
    assert high == 1 or stats.chisquare(counts.numpy()).pvalue > SIGNIFICANT


def test_keys_are_the_hash_of_the_id() -> None:
    """First eight bytes of BLAKE2b-64, little-endian: stored runs depend on it."""
    assert rng.image_keys(["cat.jpg", "dog.jpg", "cat.jpg"]).tolist() == [
        2187389003664481264,
        -5564559958841253524,
        2187389003664481264,
    ]
    assert len(set(rng.image_keys(map(str, range(10000))).tolist())) == 10000


def test_splitmix64_gives_its_published_sequence() -> None:
    """The generator seeded with 0 begins with these three numbers (Steele, Lea and Flood 2014)."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = torch.arange(1, 4) * rng._GOLDEN
    assert [z % 2**64 for z in rng._mix(states).tolist()] == published


def test_halves_are_disjoint_complete_and_drawn_by_id() -> None:
    ids = tuple(f"{i}.png" for i in range(31))
    fitting, judged = rng.halves(ids, seed=0)
    assert sorted([*fitting.tolist(), *judged.tolist()]) == list(range(31))
    assert len(fitting) == 15
    turned = ids[::-1]
    assert {turned[i] for i in rng.halves(turned, 0)[0]} == {ids[i] for i in fitting}
    assert rng.halves(ids, 1)[0].tolist() != fitting.tolist()


def test_groups_that_are_single_images_change_no_half() -> None:
    """Thresholds of earlier runs rest on these draws."""
    ids = tuple(f"{i}.png" for i in range(31))
    halves = rng.halves(ids, 0)
    assert halves[0].tolist() == [0, 2, 8, 9, 12, 14, 16, 18, 20, 21, 23, 25, 27, 29, 30]
    for same in (rng.halves(ids, 0, ids), rng.halves(ids, 0, counted=torch.ones(31, dtype=torch.bool))):
        assert all(map(torch.equal, same, halves))


def test_half_is_half_of_what_is_counted() -> None:
    ids = tuple(f"{i}.png" for i in range(40))
    counted = torch.arange(40) % 4 > 0
    fitting, judged = rng.halves(ids, 0, counted=counted)
    assert (int(counted[fitting].sum()), int(counted[judged].sum())) == (15, 15)
    assert sorted([*fitting.tolist(), *judged.tolist()]) == list(range(40))
    assert 0 < int((~counted[fitting]).sum()) < 10, "others fall where their draws fall"


@pytest.mark.parametrize("counted", [[True, True, True, True], [True, True, False, False]])
def test_one_group_cannot_be_halved(counted: list[bool]) -> None:
    groups = ("mole", "mole", *(("mole", "mole") if all(counted) else ("spot", "wart")))
    with pytest.raises(UnderfireError, match=r"All \d images are of one group and cannot be halved"):
        rng.halves(("a", "b", "c", "d"), 0, groups, torch.tensor(counted))


def test_one_image_cannot_be_halved() -> None:
    with pytest.raises(UnderfireError, match="1 image leaves none to judge by"):
        rng.halves(("a.png",), 0)
