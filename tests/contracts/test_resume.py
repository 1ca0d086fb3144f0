"""Law 7, resume: a run that was killed anywhere and run again is the run that was never killed, bit for bit."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compared_runs import contents, same
from underfire.attacks import recipes, solvers
from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError
from underfire.data.image_set import open_images
from underfire.interpreters import MASK, registry
from underfire.interpreters.mask.solver import Solver
from underfire.models.classifier import Classifier
from underfire.runs import execute as execute_module
from underfire.runs import lock
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner, reopen
from underfire.runs.folder import Run, open_run
from underfire.runs.plan import Planned
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute, recorded

Report = Callable[[Planned, Progress], None]
Start = Callable[..., Run]


@pytest.fixture(scope="module")
def start(tiny_model: str, tiny_photos: Path) -> Start:
    """The same command in any folder, with other settings where they are named."""

    def run(out: Path, on_progress: Report = lambda planned, progress: None, **changes: Any) -> Run:
        given = {"model": tiny_model, "images": str(tiny_photos), "n": 5, "steps": 3, "normalize": "none", "eps": 0.02}
        settings = AttackSettings(**{**given, "interpreters": ("cam",), **changes})
        subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(tiny_photos))
        return execute(settings, subject, out, Manner("test", batch_size=2, on_progress=on_progress))

    return run


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Few steps, and two rungs, so that images of one batch finish at different times."""
    plain = solvers.plain
    short = replace(recipes.RECIPES["annealed"], warm_steps=3, plain_steps=90)
    patch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})
    patch.setattr(
        solvers, "plain", lambda *args, **given: replace(plain(*args, **given), rungs=(50, 40), confidence=0.5)
    )


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def finished(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return start(tmp_path_factory.mktemp("finished") / "whole")


@pytest.fixture
def whole(short_recipe: None, finished: Run, tmp_path: Path) -> Run:
    """The run that nobody interrupts."""
    return open_run(shutil.copytree(finished.path, tmp_path / "whole"))


def shards(out: Path) -> int:
    return len(list(out.glob("stages/*/shard-*")))


def snapshot(out: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


# ------------------------------------------------------------------ killed and run again


def test_images_of_one_stage_are_stored_as_they_finish(whole: Run) -> None:
    """Otherwise the tests below would interrupt no stage halfway."""
    pgd = next(e["key"] for e in whole.info["stages"] if (e["kind"], e["attack"]) == ("image", "pgd"))
    assert len(list((whole.path / "stages" / pgd).glob("shard-*"))) >= 3


@pytest.mark.parametrize(
    ("target_map", "killed_after"),
    [
        ("random-class", 10),
        *(pytest.param("patch", steps, marks=pytest.mark.extended) for steps in (5, 10)),
        pytest.param("random-class", 5, marks=pytest.mark.extended),
    ],
)
def test_target_maps_and_classes_resume(
    short_recipe: None, start: Start, tmp_path: Path, target_map: str, killed_after: int
) -> None:
    """Killed before, while and after the target maps are stored."""
    wanted = {"target_map": target_map, "target_class": "2", "interpreters": ("cam", "grad")}
    uninterrupted = start(tmp_path / "uninterrupted", **wanted)
    stages = [planned["key"] for planned in uninterrupted.info["stages"]]

    def give_up(planned: Planned, progress: Progress) -> None:
        if len(list((tmp_path / "killed" / "stages").glob("*"))) >= killed_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "killed", give_up, **wanted)
    assert len(list((tmp_path / "killed" / "stages").glob("*"))) < len(stages)
    assert same(start(tmp_path / "killed", **wanted), uninterrupted)


@pytest.mark.parametrize(
    ("killed_after", "problem"),
    [
        (4, KeyboardInterrupt),
        (40, RuntimeError),
        *(pytest.param(steps, KeyboardInterrupt, marks=pytest.mark.extended) for steps in (1, 40, 140)),
        *(pytest.param(steps, RuntimeError, marks=pytest.mark.extended) for steps in (1, 4, 140)),
    ],
)
def test_a_run_killed_between_steps_and_run_again_is_the_uninterrupted_one(
    start: Start, whole: Run, tmp_path: Path, killed_after: int, problem: type[BaseException]
) -> None:
    left = killed_after

    def give_up(planned: Planned, progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise problem

    with pytest.raises(problem):
        start(tmp_path / "killed", give_up)
    assert same(start(tmp_path / "killed"), whole)


def test_a_run_killed_within_an_image_goes_on_from_its_last_quantum(start: Start, whole: Run, tmp_path: Path) -> None:
    """PGD of 90 steps in quanta of 50, killed when the first two images have done 60 each."""
    done = 0

    def give_up(planned: Planned, progress: Progress) -> None:
        if planned.label == "pgd" and progress.steps >= 2 * 60:
            raise KeyboardInterrupt

    def count(planned: Planned, progress: Progress) -> None:
        nonlocal done
        if planned.label == "pgd":
            done = max(done, progress.steps)

    start(tmp_path / "counted", count)
    uninterrupted, done = done, 0
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "killed", give_up)
    assert len(list(tmp_path.glob("killed/stages/*/paused.safetensors"))) == 1
    assert same(start(tmp_path / "killed", count), whole)
    assert done == uninterrupted - 2 * 50, "the first quantum of two images is not done again"
    assert not list(tmp_path.glob("killed/stages/*/paused.safetensors"))


def test_a_run_killed_at_every_few_writes_still_gets_there(
    start: Start, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, writes, attempts, again = Path.replace, 0, 0, None

    def three_renames_and_no_more(path: Path, target: Path) -> Path:
        nonlocal writes
        writes += 1
        if writes > 3:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", three_renames_and_no_more)
    while again is None:
        writes, attempts = 0, attempts + 1
        assert attempts < 100
        with suppress(KeyboardInterrupt):
            again = start(tmp_path / "killed")
    assert attempts > 30
    assert same(again, whole)


def test_a_process_killed_without_warning_goes_on_where_it_was(
    start: Start, tiny_model: str, tiny_photos: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    options = "--n 3 --steps 3 --normalize none --eps 0.02 --interpreter cam --batch 2"
    command = ["attack", "--model", tiny_model, "--images", str(tiny_photos), "--out", str(killed), *options.split()]
    process = subprocess.Popen(
        [sys.executable, "-c", "from underfire.cli.main import main; main()", *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while shards(killed) < 6 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 6 <= shards(killed) < shards(start(tmp_path / "whole", n=3).path)
    assert not (killed / "outcomes.parquet").exists()
    assert same(start(killed, n=3), open_run(tmp_path / "whole"))


@pytest.mark.parametrize("recipe", ["annealed", "paper"])
def test_an_attack_that_remembers_a_solver_goes_on_where_it_was(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """MASK by both recipes, killed when one batch of ADV2 is finished and another is at work."""
    short = replace(recipes.RECIPES[recipe], warm_steps=2, plain_steps=2)
    monkeypatch.setattr(recipes, "RECIPES", {recipe: short})
    monkeypatch.setattr(registry, "INTERPRETERS", {"mask": lambda argument: MASK(Solver(steps=2))})
    left, chosen = 6, {"recipe": recipe, "interpreters": ("mask",), "n": 3}

    def give_up(planned: Planned, progress: Progress) -> None:
        nonlocal left
        left -= planned.label == "adv2, mask"
        if left == 0:
            assert progress.images > 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "killed", give_up, **chosen)
    assert same(start(tmp_path / "killed", **chosen), start(tmp_path / "whole", **chosen))


def test_an_attack_with_moments_goes_on_where_it_was(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """StAdv, killed when one batch of the warm start, and then of ADV2, is finished and another is at work."""
    short = replace(recipes.FLOW_RECIPES["annealed"], warm_steps=3, plain_steps=3)
    monkeypatch.setattr(recipes, "FLOW_RECIPES", {"annealed": short})
    chosen = {"solvers": ("stadv",), "eps": None}
    for label in ("warm start of stadv", "adv2-stadv, cam"):

        def give_up(planned: Planned, progress: Progress, at: str = label) -> None:
            if planned.label == at and progress.images >= 2 and progress.steps % 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "killed", give_up, **chosen)
    assert same(start(tmp_path / "killed", **chosen), start(tmp_path / "whole", **chosen))


# ------------------------------------------------------------------ finished


def test_running_a_finished_command_again_computes_and_writes_nothing(
    start: Start, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    call = Classifier.__call__
    monkeypatch.setattr(Classifier, "__call__", lambda self, x: calls.append(len(x)) or call(self, x))
    before = snapshot(whole.path)
    assert start(whole.path).outcomes() == whole.outcomes()
    assert calls == []
    assert snapshot(whole.path) == before


def test_a_deleted_shard_is_computed_again(start: Start, whole: Run, tmp_path: Path) -> None:
    again = start(tmp_path / "again")
    for shard in sorted(again.path.glob("stages/*/shard-*"))[::7]:
        shard.unlink()
    assert same(start(again.path), whole)


def test_a_deleted_table_is_written_again_without_the_model(
    start: Start, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = whole.outcomes()
    (whole.path / "outcomes.parquet").unlink()
    monkeypatch.setattr(Classifier, "__call__", None)
    assert start(whole.path).outcomes() == table


# ------------------------------------------------------------------ grown


@pytest.mark.parametrize(
    "more",
    [
        {"solvers": ("stadv", "pgd")},
        {"n": 6, "interpreters": ("cam", "grad"), "evade": ("ensemble",)},
        *(
            pytest.param(each, marks=pytest.mark.extended)
            for each in (
                {"n": 6},
                {"interpreters": ("cam", "grad")},
                {"interpreters": ("grad", "cam")},
                {"evade": ("fs:median:3",)},
            )
        ),
    ],
)
def test_a_grown_run_is_the_one_made_at_once(
    short_recipe: None, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """And keeps what was computed. Batches of two, so that they are as large in both."""
    flow = replace(recipes.FLOW_RECIPES["annealed"], warm_steps=3, plain_steps=3)
    monkeypatch.setattr(recipes, "FLOW_RECIPES", {"annealed": flow})
    small = contents(start(tmp_path / "grown", n=4).path)
    files = {name: file for name, file in snapshot(tmp_path / "grown" / "stages").items() if "index.json" not in name}
    grown = start(tmp_path / "grown", **{"n": 4, **more})
    assert same(grown, start(tmp_path / "at once", **{"n": 4, **more}))
    assert small.items() <= contents(grown.path).items()
    assert files.items() <= snapshot(tmp_path / "grown" / "stages").items()


@pytest.mark.parametrize("target_map", ["random-class", pytest.param("patch", marks=pytest.mark.extended)])
def test_borrowed_maps_are_chosen_anew_among_more_images(
    short_recipe: None, start: Start, tmp_path: Path, target_map: str
) -> None:
    wanted = {"target_map": target_map, "target_class": "2"}
    start(tmp_path / "grown", n=4, **wanted)
    grown, whole = start(tmp_path / "grown", n=6, **wanted), start(tmp_path / "at once", n=6, **wanted)
    assert grown.outcomes() == whole.outcomes()
    assert contents(whole.path).items() <= contents(grown.path).items()


def test_a_run_killed_while_it_grows_goes_on(short_recipe: None, start: Start, tmp_path: Path) -> None:
    left = 20

    def give_up(planned: Planned, progress: Progress) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt

    start(tmp_path / "grown", n=4)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "grown", give_up, n=8)
    assert same(start(tmp_path / "grown", n=8), start(tmp_path / "at once", n=8))


def test_the_table_of_the_smaller_run_is_none_of_the_grown_one(
    short_recipe: None, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(*given: Any) -> None:
        raise KeyboardInterrupt

    start(tmp_path / "grown", n=2)
    with monkeypatch.context() as patched:
        patched.setattr(execute_module, "write_row_groups", give_up)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "grown", n=4)
    assert len(start(tmp_path / "grown", n=4).outcomes()) == 8


# ------------------------------------------------------------------ moved


def test_a_finished_run_is_moved_and_its_photos_are_spelled_otherwise(
    start: Start, whole: Run, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.copytree(whole.path, tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tiny_photos.parent)
    for spelled in (f"{tiny_photos}/", tiny_photos.name, f"./{tiny_photos.name}/", f"x/../{tiny_photos.name}"):
        before = snapshot(moved)
        assert start(moved, images=spelled).outcomes() == whole.outcomes()
        assert snapshot(moved) == before


def test_a_run_with_relative_names_is_opened_from_another_folder(
    start: Start, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_photos.parent)
    run = start(tmp_path / "run", images=tiny_photos.name)
    monkeypatch.chdir(tmp_path)
    assert reopen(run)[1].ids == open_images(tiny_photos).ids
    assert recorded(run).settings.images == str(tiny_photos)


# ------------------------------------------------------------------ two at once


def test_a_second_start_in_the_same_folder_is_refused(
    short_recipe: None, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried once in every stage."""
    monkeypatch.setattr(lock, "PATIENCE", 0.05)
    refused: dict[str, str] = {}

    def start_again(planned: Planned, progress: Progress) -> None:
        if planned.label not in refused:
            with pytest.raises(UnderfireError) as caught:
                start(tmp_path / "run")
            refused[planned.label] = str(caught.value)

    run = start(tmp_path / "run", start_again)
    assert all(f"is in use by process {os.getpid()} on " in sentence for sentence in refused.values())
    assert len(refused) > 5
    assert len(run.ids) == len(set(run.ids)) == 5
    assert not (run.path / ".lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over_and_one_of_another_machine_is_not(
    start: Start, whole: Run, tmp_path: Path
) -> None:
    held = whole.path / ".lock"
    held.write_text(f"4000000\n{socket.gethostname()}\n")
    start(whole.path)
    assert not held.exists()
    held.write_text("7\nanother-machine\n")
    with pytest.raises(
        UnderfireError, match=r"in use by process 7 on another-machine; .* If it is gone, delete .*lock"
    ):
        start(whole.path)
    assert held.read_text() == "7\nanother-machine\n"


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"n": 4}, "n was 5 and is now 4"),
        ({"eps": 0.03}, "eps was 0.02 and is now 0.03"),
        ({"seed": 1, "steps": None}, "steps was 3 and is now None; seed was 0 and is now 1"),
        ({"interpreters": ("grad",)}, r"interpreters was \['cam'\] and is now \['grad'\]"),
        ({"solvers": ("pgd-l2",)}, r"solvers was \['pgd'\] and is now \['pgd-l2'\]"),
        ({"n": 6, "seed": 1}, "seed was 0 and is now 1; n was 5 and is now 6"),
        ({"images": "elsewhere"}, "images was .* and is now elsewhere"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    start: Start, whole: Run, changes: dict[str, Any], difference: str
) -> None:
    before = snapshot(whole.path)
    with pytest.raises(
        UnderfireError, match=rf"holds a run with other settings: {difference}\. Choose another --out\."
    ):
        start(whole.path, **changes)
    assert snapshot(whole.path) == before


def test_another_model_or_other_images_under_the_same_names_are_refused(
    start: Start, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(whole.path)
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "fingerprint", lambda self: "retrained")
        with pytest.raises(UnderfireError, match=r"model_fingerprint was [0-9a-f]+ and is now retrained\."):
            start(whole.path)
    with monkeypatch.context() as patched:
        patched.setattr("underfire.data.image_set.ImageSet.digest", "edited")
        with pytest.raises(UnderfireError, match=r"images_digest was [0-9a-f]+ and is now edited\."):
            start(whole.path)
    assert snapshot(whole.path) == before


def test_another_picture_of_the_same_size_is_refused(
    start: Start, tiny_model: str, tiny_photos: Path, tmp_path: Path
) -> None:
    photos = shutil.copytree(tiny_photos, tmp_path / "photos")

    def begin() -> Run:
        settings = AttackSettings(model=tiny_model, images=str(photos), n=2, steps=1, normalize="none")
        subject = Subject(Classifier.load(tiny_model, None, "none"), open_images(photos))
        return execute(settings, subject, tmp_path / "run", Manner("test"))

    run = begin()
    before, changed = snapshot(run.path), photos / run.ids[1]
    content = changed.read_bytes()
    changed.write_bytes(content[:-20] + bytes(20))
    for access in (begin, lambda: reopen(run)):
        with pytest.raises(UnderfireError, match=f"The image {run.ids[1]} is not the one that .* was made with: its "):
            access()
    assert snapshot(run.path) == before
    changed.write_bytes(content)
    begin()


def test_a_damaged_run_json_is_refused_and_kept(start: Start, whole: Run) -> None:
    (whole.path / "run.json").write_text('{"spec": {"mod')
    before = snapshot(whole.path)
    with pytest.raises(UnderfireError, match=r"run\.json cannot be read"):
        start(whole.path)
    assert snapshot(whole.path) == before


def test_a_folder_below_a_file_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UnderfireError, match="cannot be written to: Not a directory"):
        start(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "no folder"
