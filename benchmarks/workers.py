"""What workers save, and what a run costs beside the passes of its network.

    python benchmarks/workers.py --model models.py:resnet20 --weights w.safetensors --images test.npz --n 400

Rounds alternate between one worker and two, each with one thread and an attack of the same images in a fresh folder;
the ratio is taken within a round, so that other work on the machine slows both alike. What counts is the time from the
first piece to the last, without the start of Ray. The last lines are what the process that drives spent of its own,
which passes nothing through the network, and its peak memory. Both are the same for any network, so run a small one on
more and fewer images:

    python benchmarks/workers.py --workers 1 --rounds 1 --interpreter cam --steps 5 --labels predicted --n 2000 …
"""

import argparse
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from underfire.data.class_names import for_classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.reference import Reference
from underfire.runs.workers import Hiring, hired, seeing
from underfire.studies import effectiveness
from underfire.studies.base import Subject


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "images"):
        parser.add_argument(f"--{name}", default="demo")
    for name in ("weights", "normalize", "labels"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--interpreter", default="cam,grad")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{'round':>5} " + " ".join(f"{count:>9} w" for count in given.workers) + "    first / last")
    ratios = []
    for turn in range(given.rounds):
        order = given.workers if turn % 2 == 0 else given.workers[::-1]
        spent = {count: timed(given, count) for count in order}
        seconds = {count: each.wall for count, each in spent.items()}
        ratios.append(seconds[given.workers[0]] / seconds[given.workers[-1]])
        print(
            f"{turn + 1:>5} "
            + " ".join(f"{seconds[count]:>9.1f} s" for count in given.workers)
            + f" {ratios[-1]:>10.2f}"
        )
    print(f"median ratio {statistics.median(ratios):.2f}")
    own = 1000 * spent[given.workers[0]].own / given.n
    print(f"time of the driver {own:.2f} ms per image")
    print(f"peak memory of the driver {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


@dataclass(frozen=True)
class Spent:
    """Seconds from the first piece to the table, and those in which the driver itself computed."""

    wall: float
    own: float


def timed(given: argparse.Namespace, count: int) -> Spent:
    """What so many workers and their driver take for all stages."""
    settings = AttackSettings(
        model=given.model,
        weights=given.weights,
        normalize=given.normalize,
        images=given.images,
        labels=given.labels,
        interpreters=given.interpreter,
        n=given.n,
        steps=given.steps,
    )
    classifier = settings.load(settings.model, "cpu")
    images, begun = for_classifier(settings.open_images(given.n * 2), classifier), list[tuple[float, float]]()
    with TemporaryDirectory() as folder, hired(Hiring(count)) as workers:
        crew = seeing(workers, Reference.of(settings.model_dump(), classifier))
        manner = Manner(
            "benchmark", on_notice=lambda said: begun.append((time.perf_counter(), time.process_time())), crew=crew
        )
        effectiveness.execute(settings, Subject(classifier, images), Path(folder) / "run", manner)
        wall, own = begun[0]
        return Spent(time.perf_counter() - wall, time.process_time() - own)


if __name__ == "__main__":
    main()
