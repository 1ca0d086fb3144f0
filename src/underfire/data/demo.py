"""The embedded example: synthetic scenes and the small classifier that comes with the package."""

from functools import cache

from underfire.data.decode import ArraySource
from underfire.data.image_set import ImageSet
from underfire.data.scenes import CLASSES, Scenes, scenes

SEED = 20260  # of the scenes shown; the classifier was trained on scenes of other seeds
SHOWN = ("cam", "grad", "mask", "rts")
DEFENDED = "rts:demo-aid"  # its masker after AID
EPS = 16 / 255  # a classifier trained on unlimited scenes is sturdier than one trained on photos


def demo_images(count: int = 200) -> ImageSet:
    """`count` labelled scenes, rounded to 8 bits like any photo."""
    samples = _painted(count).samples
    pixels = (samples.images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return ImageSet(samples.ids, samples.labels, CLASSES, ArraySource(pixels))


def demo_masks(count: int = 200) -> ImageSet:
    """Pictures of their exact masks, white where the shape is."""
    painted = _painted(count)
    white = (255 * painted.masks.byte())[..., None].expand(-1, -1, -1, 3).contiguous().numpy()
    return ImageSet(painted.samples.ids, painted.samples.labels, CLASSES, ArraySource(white))


@cache
def _painted(count: int) -> Scenes:
    """Pictures and masks are asked for one after the other, and take a second each."""
    return scenes(count, SEED)
