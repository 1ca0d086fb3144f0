"""On scenes whose objects are known an interpreter that works beats chance, and forgets with its classifier."""

import pytest
import torch

from underfire import CAM, GRAD, MASK, RTS, Classifier
from underfire.core.rng import halves, image_keys
from underfire.data.demo import demo_images, demo_masks
from underfire.data.selection import LocatedObjects, locate
from underfire.interpreters.baselines import RandomMap
from underfire.interpreters.mask.solver import Solver
from underfire.interpreters.protocol import Explainer, Interpreter
from underfire.interpreters.randomize import every_layer, randomized, rebind
from underfire.metrics.localisation import fit_all, hits, is_wrong, overlaps, upscaled
from underfire.metrics.maps import rank_correlation

ALL = {"grad": GRAD(), "cam": CAM(), "mask": MASK(Solver(steps=60)), "rts": RTS.demo()}
MARGIN = {"grad": 0.4, "cam": 0.3, "mask": 0.1, "rts": 0.6}  # in localisation error, below chance
SLOW = {"mask": pytest.mark.extended}
every_interpreter = pytest.mark.parametrize("interpreter", ALL.values(), ids=ALL)


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier.load("demo")


@pytest.fixture(scope="module")
def scenes() -> LocatedObjects:
    return locate(demo_images(), demo_masks(), n=40, seed=0)


def score(model: Classifier, scenes: LocatedObjects, interpreter: Explainer) -> tuple[float, float]:
    """(error on one half under the rule chosen on the other, pointing game)."""
    ids, x, labels = vars(scenes.chosen.samples()).values()
    predicted = model(x).argmax(1)
    maps = upscaled(interpreter.explain(model, x, predicted, image_keys(ids)), *x.shape[2:])
    fitting, judged = halves(ids, seed=0)
    scored = fit_all(overlaps(maps, scenes.objects), predicted != labels, fitting)
    best = min(scored, key=lambda rule: rule.choice.error)
    error = is_wrong(best.ious, predicted != labels)[judged].double().mean()
    return float(error), float(hits(maps, scenes.objects).mean())


@pytest.mark.parametrize(
    "interpreter", [pytest.param(each, id=name, marks=SLOW.get(name, ())) for name, each in ALL.items()]
)
def test_an_interpreter_finds_objects_where_chance_does_not(
    model: Classifier, scenes: LocatedObjects, interpreter: Interpreter
) -> None:
    error, pointing = score(model, scenes, interpreter)
    error_by_chance, pointing_by_chance = score(model, scenes, RandomMap())
    assert error_by_chance > 0.7
    assert error < error_by_chance - MARGIN[interpreter.name]
    assert pointing > pointing_by_chance + 0.15


@every_interpreter
def test_maps_depend_on_what_the_classifier_learned(
    model: Classifier, scenes: LocatedObjects, interpreter: Interpreter
) -> None:
    ids, x, y = vars(scenes.chosen.samples(range(4))).values()
    keys, others = image_keys(ids), image_keys(map(str, range(4)))
    reset = randomized(model, every_layer(model, x), seed=0)
    maps, again = (interpreter.explain(model, x, y, drawn) for drawn in (keys, others))
    of_reset = rebind(interpreter, reset).explain(reset, x, y, keys)
    repeated, kept = rank_correlation(maps, again).mean(), rank_correlation(maps, of_reset).mean()
    assert repeated > 0.6
    assert kept < repeated - 0.3
    assert torch.equal(interpreter.explain(model, x, y, keys), maps)
