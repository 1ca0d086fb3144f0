"""Counter-based randomness: numbers are a function of (seed, image key, step) and of nothing else.

No generator is kept anywhere, so a draw does not depend on batch order, neighbours or what was
drawn before:

    keys = image_keys(["cat.jpg", "dog.jpg"])
    uniform(0, "label-smoothing", keys, step, 4)   # (2, 4), each row a function of its own key

The mixing function is the 64-bit finaliser of SplitMix64 (Steele, Lea and Flood 2014) in wrapping
int64 arithmetic, identical on every device.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underfire.core.errors import UnderfireError
from underfire.core.types import Flags, Images, Keys, Labels

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB


def image_keys(ids: Iterable[str], draw: int = 0) -> Keys:
    """The identity of each image as int64: the first eight bytes of its id's BLAKE2 hash.

    Another `draw` gives the same images other random numbers.
    """
    return torch.tensor([_hash(name if draw == 0 else f"{name}, draw {draw}") for name in ids], dtype=torch.int64)


def keys_of(x: Images, keys: Keys | None) -> Keys:
    """The keys given, or those of images named "0", "1", … by their places, as attacks in Python name them."""
    return image_keys(map(str, range(len(x)))).to(x.device) if keys is None else keys


def uniform(seed: int, purpose: str, keys: Keys, step: Labels, size: int) -> Float[Tensor, "n s"]:
    """`size` numbers in (0, 1) for each image; different purposes give independent streams."""
    return ((_bits(seed, purpose, keys, step, size) >> 12 & (1 << 52) - 1).double() + 0.5) / 2**52


def normal(seed: int, purpose: str, keys: Keys, step: Labels, size: int) -> Float[Tensor, "n s"]:
    """`size` standard normal numbers for each image."""
    deviates: Tensor = torch.special.ndtri(uniform(seed, purpose, keys, step, size))
    return deviates


def integers(seed: int, purpose: str, keys: Keys, step: Labels, size: int, high: int) -> Int[Tensor, "n s"]:
    """`size` integers in [0, high) for each image."""
    return (uniform(seed, purpose, keys, step, size) * high).long().clamp_max(high - 1)


def derived(keys: Keys, purpose: str, step: Labels) -> Keys:
    """Keys of other streams for the same images: a function of (key, purpose, step)."""
    return _mix(_mix(keys ^ _hash(purpose)) ^ _mix(step + _GOLDEN))


def halves(
    ids: tuple[str, ...], seed: int, groups: Sequence[str] = (), counted: Flags | None = None
) -> tuple[Int[Tensor, " fitted"], Int[Tensor, " judged"]]:
    """Indices of the images to fit to and of those to judge by, drawn from the seed and the ids.

    Images of one of the `groups` (one per image) are on one side, so that the half to fit to may be larger by less than
    a group. It is half of the images that are `counted`, by default of all. UnderfireError if these are fewer than two,
    or all of one group.
    """
    keys, counted = image_keys(groups or ids), torch.ones(len(ids), dtype=torch.bool) if counted is None else counted
    draws = uniform(seed, "validation", keys, torch.zeros_like(keys), 1)[:, 0]
    counting = draws[counted].sort().values
    if len(counting) < 2:
        raise UnderfireError(f"{len(counting)} image leaves none to judge by after fitting; give two or more.")
    if counting[0] == counting[-1]:
        raise UnderfireError(
            f"All {len(counting)} images are of one group and cannot be halved; give images of another."
        )
    before = torch.searchsorted(counting, draws)  # how many of the counted ones are of groups drawn earlier
    fitted = (before < len(counting) // 2) & (draws < counting[-1])
    return fitted.nonzero()[:, 0], (~fitted).nonzero()[:, 0]


def _bits(seed: int, purpose: str, keys: Keys, step: Labels, size: int) -> Int[Tensor, "n s"]:
    stream = _mix(_mix(keys ^ _hash(f"{seed}:{purpose}")) ^ _mix(step + _GOLDEN))
    counter = torch.arange(1, size + 1, device=keys.device) * _GOLDEN
    return _mix(stream[:, None] + counter)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift: int64's own shift copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
