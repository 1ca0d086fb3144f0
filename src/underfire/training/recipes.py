"""What decides the outcome of a training besides networks and images; each described field is an option.

recipe = MaskerRecipe(steps=1000)
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field

from underfire.core.errors import UnderfireError
from underfire.runs.settings import Masked, Network, Photos, Seeded, Settings

if TYPE_CHECKING:
    from underfire.core.types import Row

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]

STEPS = "Most steps; the best network on held-out images is kept."
PEAK = "Peak learning rate."


class TrainingSource(Photos, Network, Masked):
    """A classifier, images for the training of its masker, and where the objects in them are."""


class ClassifierSource(Photos, Network):
    """A network to begin with, and images of one's own classes."""

    model: str = Field(description="torchvision:NAME, timm:NAME, or file.py:builder, best with num_classes.")
    images: str = Field(description="Folder of images, or .npz with images and labels.")
    weights: str | None = Field(
        default=None, description="Where to begin: DEFAULT or a state-dict file of any task; else at random."
    )


class EncoderSource(Settings):
    """Another network for a masker to see through."""

    model_config = ConfigDict(title="Classifier")

    encoder: str | None = Field(default=None, description="Another network to see through, like --model.")
    encoder_weights: str | None = Field(default=None, description="Its weights, like --weights.")
    encoder_normalize: str | None = Field(default=None, description="Its normalisation, like --normalize.")


class TrainingRecipe(Seeded):
    """What all trainings have."""

    model_config = ConfigDict(title="Training")

    steps: int = Field(default=1200, ge=1, description=STEPS)
    batch: int = Field(default=32, ge=1, description="Images per step.")
    judge_every: int = Field(default=100, ge=1, description="Steps from one check on held-out images to the next.")


class ClassifierRecipe(TrainingRecipe):
    """What decides the outcome of a training, besides the network to begin with and the images."""

    lr: Rate = Field(default=3e-4, description=PEAK)
    augment: Literal["turned", "upright"] = Field(
        default="turned", description="turned: no up and no down, as skin; upright: mirrored and shifted, as photos."
    )
    held_out: float = Field(
        default=0.15, gt=0, lt=1, description="Share of each class by which networks are compared, not trained on."
    )
    patience: int = Field(default=6, ge=1)  # judgements without a better network


class MaskerRecipe(TrainingRecipe):
    """What decides the outcome of a training, besides classifier and images."""

    lr: Rate = Field(default=3e-3, description=PEAK)
    held_out: float = Field(default=0.1, gt=0, lt=1)  # share of the images
    patience: int = Field(default=5, ge=1)  # judgements without a better network
    width: int = Field(default=32, ge=8, multiple_of=8)  # of the network
    roughness: Weight = 2.0  # weights of Eq. 8
    area: Weight = Field(default=8.0, description="Weight of the mask's area in the loss; higher for smaller masks.")
    removed: Weight = 5.0
    power: Rate = 0.3

    def total(self, terms: "Mapping[str, Row]") -> "Row":
        """Eq. 8, per image."""
        weighted = self.roughness * terms["roughness"] + self.area * terms["area"]
        return weighted + terms["kept"] + self.removed * terms["removed"]


class AidRecipe(MaskerRecipe):
    """What decides the outcome, besides classifier, images and the masker to begin with."""

    steps: int = Field(default=600, ge=2, description=STEPS)
    lr: Rate = Field(default=1e-3, description=PEAK)
    judge_every: int = Field(default=50, ge=1, description="Steps from one check on held-out images to the next.")
    area: Weight = 8.0  # that of the masker to begin with
    patience: int = Field(default=6, ge=1)
    defence: Literal["distillation", "augmentation"] = Field(
        default="distillation", description="distillation (Eq. 16), or augmentation: Eq. 15 on attacked images too."
    )
    plain_steps: int = Field(default=1, ge=0)  # on Eq. 15, then
    defending_steps: int = Field(default=1, ge=1)  # on the defence
    pool: int = Field(default=512, ge=1, description="Images that are attacked, at most.")
    attack_steps: int = Field(default=20, ge=1, description="ADV2 steps whenever an image is attacked anew.")
    attack_batch: int = Field(
        default=16, ge=1, description="Images attacked at a time; workers share a batch by so many."
    )
    refresh: int = Field(default=1, ge=1, description="Visits of an image from one attack to the next.")
    eps: float = Field(default=8 / 255, gt=0, le=1)
    weight: Weight = Field(default=50.0, description="Weight of Eq. 16 beside Eq. 15.")
    margin: float = Field(
        default=0.2, gt=0, le=1, description="Distance of maps beyond which none is rewarded; 1: none."
    )
    drift: float = Field(
        default=0.05, ge=0, le=1, description="How far benign maps may move from those of --init; 1: anywhere."
    )
    fidelity: Weight = Field(default=200.0, description="Weight of what they move beyond that; 0: none.")
    judged_attacks: int = Field(default=32, ge=1)  # held-out images that are attacked at each check
    judge_steps: int = Field(default=100, ge=1)  # of these attacks


class Turns(Settings):
    """How steps on Eq. 15 and steps on the defence alternate."""

    model_config = ConfigDict(title="Training")

    ratio: str = Field(default="1:1", description="Steps on Eq. 15 and steps on the defence, in turns.")

    def given(self) -> dict[str, int]:
        """Both numbers, as the recipe calls them; UnderfireError if it is not a ratio."""
        plain, _, defending = self.ratio.partition(":")
        if not (plain.isdecimal() and defending.isdecimal() and int(defending)):
            raise UnderfireError(
                f"--ratio {self.ratio} is not a ratio; write it like 1:1, or 0:1 for steps on the defence alone."
            )
        return {"plain_steps": int(plain), "defending_steps": int(defending)}
