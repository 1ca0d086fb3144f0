"""Maps of randomised classifiers: several draws of the weights, averaged image by image."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from underfire.core.rng import image_keys
from underfire.data.image_set import ImageSet
from underfire.interpreters import CAM
from underfire.interpreters.randomize import DEPTHS, randomized
from underfire.metrics.intervals import mean_interval
from underfire.models.classifier import Classifier
from underfire.runs.execute import Manner, execute
from underfire.runs.folder import Run
from underfire.studies import sanity
from underfire.studies.base import Subject

N, SEED = 3, 5
SEEDS = tuple(range(SEED, SEED + sanity.SEEDS))


@pytest.fixture
def run(tiny_model: str, tiny_photos: Path, classifier: Classifier, image_set: ImageSet, tmp_path: Path) -> Run:
    """Three photos' maps by CAM, of the classifier and of those that are randomised."""
    settings = sanity.SanitySettings(
        model=tiny_model, images=str(tiny_photos), n=N, seed=SEED, interpreters=("cam",), normalize="none"
    )
    made = sanity.experiment(settings, Subject(classifier, image_set))
    return execute(made, tmp_path / "sanity", classifier, Manner("test"))


def test_weights_are_drawn_by_several_seeds(run: Run, classifier: Classifier) -> None:
    assert len(SEEDS) >= 3
    rows = sanity.comparisons(run).to_pylist()
    assert [(row["compared_with"], row["weights_seed"]) for row in rows[::N]] == [
        ("the same again", None),
        *((f"{depth} randomised", seed) for depth in DEPTHS for seed in SEEDS),
        ("another image", None),
    ]
    ids, images = run.images("benign")
    x, keys = torch.from_numpy(images), image_keys(ids)
    y = classifier(x).argmax(1)
    for seed in SEEDS:
        other = randomized(classifier, DEPTHS["all"](classifier, x), seed)
        stored = torch.from_numpy(run.maps(f"all-randomised-{seed}", "cam")[1])
        torch.testing.assert_close(stored, CAM().explain(other, x, y, keys))


def test_draws_are_averaged_image_by_image() -> None:
    """Twelve images with three draws each are twelve measures, however far the draws of one image lie apart."""
    rows = [
        {
            "id": f"{i}", "interpreter": "cam", "compared_with": "head randomised", "weights_seed": seed,
            "rank_correlation": i / 100 + (0.5, 0.0, -0.5)[seed], "map_l1": i / 10, "constant": seed == 0,
        }
        for seed in range(3)
        for i in range(12)
    ]  # fmt: skip
    (summary,) = sanity.summarise(pa.Table.from_pylist(rows, sanity.SCHEMA))
    assert summary.rank_correlation.n == summary.map_l1.n == 12
    expected = mean_interval([i / 100 for i in range(12)])
    assert summary.rank_correlation.value == pytest.approx(expected.value)
    assert summary.rank_correlation.high - summary.rank_correlation.low == pytest.approx(
        expected.high - expected.low, rel=0.2
    )
    assert summary.constant == 12
