"""Images with parts deleted, as MASK deletes them.

phi(x; m) = M x + (1 - M) blur(x),   M = blur(upsample(m)),   m = 1 keeps a pixel
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, lerp

from underfire.core.image_ops import blur_kernel, convolve, shifted, spreading
from underfire.core.types import Images, Maps

Offsets = Int[Tensor, "n 2"]


@dataclass(frozen=True)
class Geometry:
    """Sizes in pixels of the input: mask cell, taps of the two blurs, largest shift of the jitter."""

    cell: int
    image_taps: int
    mask_taps: int
    jitter: int

    @classmethod
    def of(cls, side: int) -> "Geometry":
        """224: 28 x 28 cells, 21 and 11 taps, 0 to 3 px; 144: 18 x 18, 13 and 7, 0 to 2; 32: 8 x 8, 5 and 3, 0 to 1."""
        return cls(
            cell=8 if side >= 64 else 4,
            image_taps=max(5, _odd(21 * side / 224)),
            mask_taps=max(3, _odd(11 * side / 224)),
            jitter=max(1, round(3 * side / 224)),
        )


@dataclass(frozen=True)
class Deletion:
    """phi of N images, with all that does not depend on the mask: what deleted parts become, how masks are spread."""

    image: Images
    blurred: Images
    geometry: Geometry
    down: Float[Tensor, "h i"]
    along: Float[Tensor, "w j"]

    @classmethod
    def of(cls, x: Images, geometry: Geometry) -> "Deletion":
        kernel = blur_kernel(geometry.mask_taps)
        down, along = (spreading(max(1, round(side / geometry.cell)), side, kernel, x) for side in x.shape[2:])
        return cls(x, convolve(x, blur_kernel(geometry.image_taps)), geometry, down, along)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the masks."""
        return self.down.shape[1], self.along.shape[1]

    def __call__(self, mask: Maps, offsets: Offsets) -> Images:
        """phi(x; m), shifted by these offsets; differentiable in the mask and in x."""
        kept = self.down @ mask[:, None] @ self.along.T
        return shifted(lerp(self.blurred, self.image, kept), offsets)


def _odd(taps: float) -> int:
    """The odd number nearest to a number of taps."""
    return 2 * round((taps - 1) / 2) + 1
