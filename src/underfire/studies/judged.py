"""What an attack did to class and map of some images, as PNG files, and whether these betray.

found = judged(StageRows(ids, store), Saved(craft, PNG()), shown)
found.betrayed["natural"]
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from underfire.metrics.betrayal import Definition, Flags, plausible
from underfire.metrics.floors import natural
from underfire.metrics.maps import compare_draws, is_faint
from underfire.runs.plan import PlannedInterpreter, scored_maps
from underfire.runs.specs import Craft, Saved
from underfire.studies.stage_rows import StageRows

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """One value per image: the class reported, whether it is the target's, how far the map moved (as `compare_draws`
    measures it) and how far harmless changes move it (NaN where they were not tried), and by each definition whether
    the image betrays.
    """

    predicted: Tensor
    fooled: Flags
    moved: Mapping[str, Numbers]
    natural_l1: Numbers
    betrayed: Mapping[Definition, Flags]


def judged(held: StageRows, saved: Saved, shown: PlannedInterpreter) -> Judged:
    """The images of an attack that has targets, by the maps of this interpreter against the benign ones."""
    assert isinstance(saved.of, Craft)
    predicted = held.of(saved, "predicted")
    fooled: Flags = (predicted == held.of(saved.of.of, "target")).numpy()
    benign, maps = held.maps(shown.benign), held.maps(scored_maps(saved, shown.interpreter))
    moved: dict[str, Any] = {name: each.double().numpy() for name, each in compare_draws(maps, benign).items()}
    allowed = np.full(len(held.ids), np.nan)
    if shown.variation is not None:
        changes = (held.of(shown.variation, name) for name in ("map_l1", "iou_mean"))
        allowed = natural(*changes)["natural_l1"].double().numpy()
    calm = plausible(moved["map_l1"], moved["iou_mean"], allowed, is_faint(benign[0]).numpy())
    return Judged(predicted, fooled, moved, allowed, {name: fooled & each for name, each in calm.items()})
