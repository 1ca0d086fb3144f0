"""Law 9, workers: one, two, and two of which one is lost give the bits of this process, on two nodes of Ray.

Both are in this machine, their ports on loopback, and the cluster is started once for all tests.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compared_runs import same
from underfire.attacks import recipes
from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.data.image_set import open_images
from underfire.interpreters import RTS
from underfire.models.classifier import Classifier
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.folder import Run, open_run
from underfire.runs.plan import Planned
from underfire.runs.reference import Reference
from underfire.runs.study_settings import DetectSettings, StudySettings
from underfire.runs.workers import Hiring, Seeing, Workers, hired, seeing
from underfire.studies import detect, effectiveness
from underfire.studies.base import Subject
from underfire.studies.catalogue import STUDIES
from underfire.training.aid import AidRecipe, train_aid
from underfire.training.dataset import read_training_set

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # everything on loopback
os.environ["RAY_USAGE_STATS_ENABLED"] = os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112

Report = Callable[[Planned, Progress], None]
STORE = 80 << 20  # bytes of shared memory for each node, the least that Ray takes
SOURCE: dict[str, Any] = {"model": "tiny.py:build", "normalize": "none"}


def nothing(planned: Planned, progress: Progress) -> None:
    """Nobody hears of the progress."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_photos: Path) -> Iterator[Path]:
    """The working folder: a model's file and photos, which go to the workers as they are; and a short recipe."""
    folder, before = tmp_path_factory.mktemp("home"), Path.cwd()
    shutil.copy(Path(__file__).parents[1] / "tiny.py", folder)
    shutil.copytree(tiny_photos, folder / "photos")
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        short = replace(recipes.RECIPES["annealed"], warm_steps=3, plain_steps=6)
        patch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
        yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """A head and another node with one processor each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": STORE, "node_ip_address": "127.0.0.1"}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def workers(address: str) -> Iterator[Workers]:
    with hired(Hiring(2, address)) as found:
        yield found


@pytest.fixture(scope="module")
def classifier(home: Path) -> Classifier:
    return Classifier.load("tiny.py:build", None, "none")


@pytest.fixture(scope="module")
def crew(workers: Workers, classifier: Classifier) -> Seeing:
    return seeing(workers, Reference.of(SOURCE, classifier))


@pytest.fixture(scope="module")
def start(home: Path, classifier: Classifier) -> Callable[..., Run]:
    """The same attack and detection in any folder."""

    def run(name: str, crew: Seeing | None = None, on_progress: Report = nothing) -> Run:
        settings = AttackSettings(**SOURCE, images="photos", n=4, steps=3, eps=0.02, interpreters=("cam",))
        subject, manner = Subject(classifier, open_images("photos")), Manner("test", batch_size=2, crew=crew)
        attacking = replace(manner, on_progress=on_progress)
        made = effectiveness.execute(settings, subject, home / "runs" / name, attacking)
        return detect.execute(DetectSettings(benign=4, fpr=0.5), made, subject, manner)

    return run


@pytest.fixture(scope="module")
def whole(start: Callable[..., Run]) -> Run:
    """What this process computes alone."""
    return start("alone")


def same_detections(one: Run, other: Run) -> bool:
    return (one.path / "detections.parquet").read_bytes() == (other.path / "detections.parquet").read_bytes()


def test_two_workers_give_the_bits_of_this_process(start: Callable[..., Run], crew: Seeing, whole: Run) -> None:
    made = start("two", crew)
    assert same(made, whole)
    assert same_detections(made, whole)


def test_a_lost_worker_changes_no_bit(start: Callable[..., Run], crew: Seeing, whole: Run) -> None:
    """Killed while both are at work; Ray starts another."""
    import ray

    lost = list[int]()

    def lose(planned: Planned, progress: Progress) -> None:
        if not lost and progress.steps > progress.planned_steps // 2:
            lost.append(progress.steps)
            ray.kill(crew.workers._actors[1], no_restart=False)

    made = start("lost", crew, lose)
    assert lost
    assert same(made, whole)
    assert same_detections(made, whole)


def test_a_killed_driver_goes_on_with_or_without_workers(
    start: Callable[..., Run], crew: Seeing, workers: Workers, classifier: Classifier, whole: Run
) -> None:
    def give_up(planned: Planned, progress: Progress) -> None:
        if progress.steps > progress.planned_steps // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start("killed", crew, give_up)
    assert not (whole.path.parent / "killed" / "outcomes.parquet").exists()
    shutil.copytree(whole.path.parent / "killed", whole.path.parent / "killed alone")
    assert same(start("killed", crew), whole)
    assert same(start("killed alone"), whole)


@pytest.mark.extended  # a study runs the stages of an attack
def test_a_study_is_the_same(home: Path, classifier: Classifier, crew: Seeing) -> None:
    """One whose target maps are other images' benign maps."""
    request = StudySettings(**SOURCE, images="photos", n=4, steps=3, interpreters=("cam",), seed=1)
    subject, study = Subject(classifier, open_images("photos")), STUDIES["random-class"].study
    made = [
        study.execute(request, subject, home / "runs" / name / "random-class", Manner("test", 2, crew=who))
        for name, who in (("study", None), ("study by workers", crew))
    ]
    tables = [{path.name: path.read_bytes() for path in (run.path / "tables").iterdir()} for run in made]
    assert made[0].outcomes() == made[1].outcomes()
    assert tables[0] == tables[1]


def test_a_defended_masker_is_the_same(
    home: Path, classifier: Classifier, workers: Workers, crew: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attacks within AID's training, one worker lost on the way."""
    import ray

    from tiny_maskers import masker_file

    init = RTS.load(masker_file(home / "init.safetensors", classifier))
    photos = read_training_set(open_images("photos"))
    recipe = AidRecipe(
        steps=4, batch=4, width=8, judge_every=4, pool=4, attack_steps=3, attack_batch=2, judged_attacks=2,
        judge_steps=3, held_out=0.2,
    )  # fmt: skip

    def lose(step: int, loss: float) -> None:
        if step == 1:
            ray.kill(workers._actors[1], no_restart=False)

    files = [home / "aid alone.safetensors", home / "aid.safetensors"]
    train_aid(classifier, init, photos, recipe, files[0])
    train_aid(classifier, init, photos, recipe, files[1], lose, crew)
    alone, shared = (RTS.load(file).masker.network.state_dict() for file in files)
    assert all(torch.equal(value, shared[name]) for name, value in alone.items())


def test_a_worker_that_is_being_started_again_is_waited_for(workers: Workers, classifier: Classifier) -> None:
    workers._ray.kill(workers._actors[0], no_restart=False)
    seeing(workers, Reference.of(SOURCE, classifier))


def test_a_worker_with_another_model_or_none_is_refused(workers: Workers, classifier: Classifier, home: Path) -> None:
    right = Reference.of(SOURCE, classifier)
    with pytest.raises(UnderfireError, match=r"A worker on \S+ was refused: its model tiny\.py:build has the fingerpr"):
        seeing(workers, replace(right, fingerprint="0123456789abcdef"))
    without = replace(right, fingerprint="fedcba9876543210", source={**right.source, "weights": "gone.safetensors"})
    with pytest.raises(UnderfireError, match=r"A worker on \S+ cannot load the model: .*gone\.safetensors"):
        seeing(workers, without)


def test_more_workers_than_the_cluster_has_room_for_are_refused(address: str, workers: Workers) -> None:
    from underfire.runs import workers as module

    with pytest.raises(UnderfireError, match="3 workers need 3 CPUs and the cluster has 2; ask for fewer"):
        module._check_room(module._ray(), Hiring(3, address))


# ------------------------------------------------------------------ the command line


def underfire(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from underfire.cli.main import main; main()", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.extended  # `tests/unit/runs/test_workers.py` asks the function
def test_an_address_where_nothing_listens_is_one_sentence(home: Path) -> None:
    begun = time.monotonic()
    options = "attack --model demo --images demo --out refused --ray 127.0.0.1:9"
    process = underfire(*options.split(), cwd=home)
    _, err = process.communicate(timeout=120)
    assert time.monotonic() - begun < 60, "Python's start, on a busy machine, and no more than 10 seconds of waiting"
    assert process.returncode == 1
    assert err == (
        "underfire: Nothing listens at 127.0.0.1:9 (Connection refused); start a cluster with: ray start --head\n"
    )
    assert not (home / "refused").exists()


def left_behind(folder: Path) -> list[str]:
    """What is in a folder for temporary files, and the processes that name it."""
    found = [path.name for path in folder.iterdir()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [line] if str(folder) in line else []
    return found


@pytest.mark.extended
@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.extended) for each in (signal.SIGINT, "success", "error")),
    ],
)
def test_nothing_is_left_behind(home: Path, how: str | signal.Signals) -> None:
    pytest.importorskip("ray")
    temporary = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    options = "--model tiny.py:build --images photos --normalize none --n 4 --steps 3 --interpreter cam --workers 2"
    out = home / "ended" / str(how)
    if how == "error":
        options += " --target-class 99"
    folders = {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(home / "torch")}  # which stays, by design
    process = underfire("attack", *options.split(), "--out", str(out), cwd=home, **folders)
    if isinstance(how, signal.Signals):
        while process.poll() is None and not list(out.glob("stages/*/shard-*")):
            time.sleep(0.02)
        process.send_signal(how)
    _, err = process.communicate(timeout=120)
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130, "success": 0, "error": 1}
    assert process.returncode == codes[how], err
    for _ in range(50):
        if not (left := left_behind(temporary)):
            break
        time.sleep(0.1)
    assert left == []
    temporary.rmdir()
    if how == "success":
        assert open_run(out).outcomes().num_rows == 8
