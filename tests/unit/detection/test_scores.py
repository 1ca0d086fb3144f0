"""Scorers: what each of them measures, on numbers that can be worked out by hand."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tiny_networks import classifier, images
from tiny_scorers import score, scorers_of
from underfire.core.image_ops import area_mean
from underfire.core.rng import image_keys
from underfire.core.types import Images, Keys, Labels, Maps
from underfire.data.corruptions import Crop, InPlace, Noise
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing, Scorer, Seen, Shown, look, shown
from underfire.detection.squeezers import BitDepth, Median
from underfire.interpreters import CAM, GRAD, GradCAM
from underfire.interpreters.protocol import Explainer
from underfire.models.classifier import Classifier

KEYS = image_keys(["a", "b", "c", "d"])


@dataclass(frozen=True)
class Swapped(InPlace):
    """Red for blue, as a squeezer and as a change."""

    name: str = "swapped"

    def __call__(self, images: Images, keys: Keys | None = None) -> Images:
        return images.flip(1)


class Colours(torch.nn.Module):
    """Logits that are the logarithms of the mean colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)).log()


@dataclass(frozen=True)
class Channel:
    """Shows the channel of class y on a grid of that many cells a side."""

    side: int = 4
    name: str = "channel"

    def explain(self, classifier: Classifier, x: Images, y: Labels, keys: Keys) -> Maps:
        return area_mean(x[torch.arange(len(x)), y][:, None], self.side, self.side)[:, 0]


COLOURS = Classifier(Colours(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PLAIN = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.1]])[:, :, None, None].expand(-1, -1, 4, 4)


# ------------------------------------------------------------------ feature squeezing


def test_squeezing_is_the_l1_distance_of_the_probabilities() -> None:
    scores = score(FeatureSqueezing(Swapped()), COLOURS, PLAIN, KEYS[:2])
    assert scores.tolist() == pytest.approx([0.3 + 0 + 0.3, 0], abs=1e-6)


@pytest.mark.parametrize("squeezer", [BitDepth(2), Median(3)])
def test_squeezing_leaves_no_graph(squeezer: BitDepth | Median) -> None:
    x = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1)) / 2 + 0.25
    scores = score(FeatureSqueezing(squeezer), COLOURS, x.requires_grad_(), KEYS)
    assert not scores.requires_grad
    assert (scores > 0).all()


def test_an_image_that_squeezing_does_not_change_scores_zero() -> None:
    thirds = torch.ones(2, 3, 4, 4) / 3
    assert score(FeatureSqueezing(BitDepth(2)), COLOURS, thirds, KEYS[:2]).tolist() == [0, 0]


# ------------------------------------------------------------------ what is shown


def test_what_is_shown_explains_the_reported_class() -> None:
    model, x = classifier("resnet"), images(4)
    found = shown(CAM(), model, x, KEYS)
    assert torch.equal(found.reported, model(x).argmax(1))
    assert torch.equal(found.maps, CAM().explain(model, x, found.reported, KEYS))
    assert not found.maps.requires_grad


def test_a_look_has_one_map_per_interpreter_in_order() -> None:
    model, x = classifier("resnet"), images(2)
    seen = look(model, x, KEYS[:2], (GRAD(), CAM()))
    for each, interpreter in zip(seen.shown, (GRAD(), CAM()), strict=True):
        assert torch.equal(each.maps, interpreter.explain(model, x, each.reported, KEYS[:2]))
    assert look(model, x, KEYS[:2]).shown == ()


# ------------------------------------------------------------------ consistency


def test_consistency_keeps_to_the_class_reported_before_the_change() -> None:
    """Red is reported, .5; where red and blue change places its channel holds .2. Green stays where it is."""
    scores = score(Consistency(Channel(), Swapped()), COLOURS, PLAIN, KEYS[:2])
    assert scores.tolist() == pytest.approx([0.3, 0], abs=1e-6)


@pytest.mark.parametrize("change", [Noise(0.0), Crop(1.0)])
@pytest.mark.parametrize("interpreter", [CAM(), GRAD(), GradCAM()])
def test_a_change_that_changes_nothing_scores_zero(interpreter: Explainer, change: Noise | Crop) -> None:
    scores = score(Consistency(interpreter, change), classifier("resnet"), images(4), KEYS)
    assert scores.tolist() == [0, 0, 0, 0]


def test_a_map_that_moves_with_the_image_is_consistent() -> None:
    """A crop moves what it shows, so the map before it is cropped too."""
    x = images(4) * 0.98 + 0.01
    model = Classifier(Colours(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    scores = score(Consistency(Channel(16), Crop(0.7)), model, x, KEYS)
    assert scores.tolist() == pytest.approx([0] * 4, abs=1e-6)


# ------------------------------------------------------------------ disagreement


def test_an_interpreter_agrees_with_itself() -> None:
    scores = score(Disagreement(GRAD(), GRAD()), classifier("resnet"), images(4), KEYS)
    assert scores.tolist() == [0, 0, 0, 0]


def test_maps_are_compared_on_the_coarser_grid() -> None:
    fine = torch.tensor([[[0.0, 1.0, 0.2, 0.2], [1.0, 0.0, 0.2, 0.2], [0, 0, 0, 0], [0, 0, 0, 0.4]]])
    coarse = torch.tensor([[[0.5, 0.2], [0.0, 0.5]]])
    both = (Shown(torch.tensor([0]), fine), Shown(torch.tensor([0]), coarse))
    pair = Disagreement(CAM(), GRAD())
    for order in (both, both[::-1]):
        assert pair.scores(COLOURS, Seen(PLAIN[:1], KEYS[:1], order)).tolist() == pytest.approx([0.4 / 4])


def test_grids_need_not_divide_each_other() -> None:
    both = (Shown(torch.tensor([0]), torch.full((1, 7, 4), 0.7)), Shown(torch.tensor([0]), torch.full((1, 5, 9), 0.2)))
    assert Disagreement(CAM(), GRAD()).scores(COLOURS, Seen(PLAIN[:1], KEYS[:1], both)).tolist() == pytest.approx([0.5])


def test_constant_maps_are_scored_like_any_others() -> None:
    nothing = Shown(torch.tensor([0]), torch.zeros(1, 4, 4))
    half = Shown(torch.tensor([0]), torch.tensor([0.0, 1.0]).repeat(8).view(1, 4, 4))
    scores = Disagreement(CAM(), GRAD()).scores(COLOURS, Seen(PLAIN[:1], KEYS[:1], (nothing, half)))
    assert scores.tolist() == [0.5]


def test_every_scorer_says_what_it_is() -> None:
    model = classifier("resnet")
    scorers = scorers_of("cam", model)
    assert [each.name for each in scorers] == [
        *("fs:bits:2", "fs:median:3"),
        *(f"consistency:cam:{change}" for change in ("noise", "jpeg", "blur", "crop")),
        "ensemble:cam+grad-cam",
    ]
    for each in scorers:
        scores = score(each, model, images(4).requires_grad_(), KEYS)
        assert isinstance(each, Scorer)
        assert scores.shape == (4,)
        assert not scores.requires_grad
