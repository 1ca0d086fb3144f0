"""Workers that Ray starts, on this machine or on a cluster's nodes: each loads the classifier once and computes pieces.

    with hired(Hiring(workers=2)) as workers:
        run = execute(..., crew=seeing(workers, Reference.of(settings.model_dump(), classifier)))

A worker knows no store: it is given rows and gives rows back. Where one is lost, Ray starts another in its place, and
`underfire.runs.dispatch` has the piece computed again.
"""

import os
import queue
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from underfire.attacks.engine import Progress
from underfire.core.errors import UnderfireError, first_line
from underfire.models.classifier import Classifier
from underfire.models.user_code import modules_of_users
from underfire.runs.compute import Context, compute_as_fits
from underfire.runs.dispatch import Computed, Ended, Event
from underfire.runs.needs import StageInputs
from underfire.runs.reference import Reference
from underfire.runs.specs import Identified, key

SAID_EVERY = 0.5  # seconds between two reports of progress
PATIENCE = 10  # seconds for something to listen at an address
GREETINGS = 3  # of workers, before one that is lost meanwhile is given up
RETURN = 120  # seconds for a lost worker to come back where all are lost
STORE_BYTES = 256 << 20  # of shared memory for each worker of this machine
KEPT = 16  # specs in shared memory, which may hold networks
LEFT_BEHIND = (".git", ".venv", "venv", "runs", "site", "dist")  # of the working folder, by those who go to a cluster


@dataclass(frozen=True)
class Hiring:
    """How many workers, on which Ray cluster (None for this machine alone), and on what they compute."""

    workers: int
    address: str | None = None
    threads: int = 1
    device: str = "cpu"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for each worker."""
        return {"num_cpus": float(self.threads), "num_gpus": 0.0 if self.device == "cpu" else 1.0}


class Worker:
    """The part that runs in a process of Ray's."""

    def __init__(self, device: str, threads: int) -> None:
        self._device, self._threads = torch.device(device), threads
        self._classifiers = dict[str, Classifier]()

    def greet(self, reference: Reference) -> str | None:
        """Load a classifier; a sentence if that cannot be done."""
        torch.set_num_threads(self._threads)
        try:
            self._classifier(reference)
        except UnderfireError as problem:
            return str(problem)
        return None

    def answer(self) -> None:
        """Be there."""

    def stream(self, spec: Identified, inputs: StageInputs, reference: Reference, batch_size: int) -> Iterator[Event]:
        """Rows and progress as they come, and at last Ended."""
        events = queue.SimpleQueue[Event]()
        work = threading.Thread(target=self._work, args=(spec, inputs, reference, batch_size, events.put), daemon=True)
        work.start()
        event: Event = Progress(0, 0, 0, 1)
        while not isinstance(event, Ended):
            event = events.get()
            yield event

    def whole(self, spec: Identified, inputs: StageInputs, reference: Reference, batch_size: int) -> list[Event]:
        """The same in one list, for drivers outside the cluster, which Ray streams nothing to."""
        return list(self.stream(spec, inputs, reference, batch_size))

    def _work(
        self, spec: Identified, inputs: StageInputs, reference: Reference, batch_size: int, put: Callable[[Event], None]
    ) -> None:
        torch.set_num_threads(self._threads)  # of this very thread
        said = time.monotonic()

        def on_step(progress: Progress) -> None:
            nonlocal said
            if time.monotonic() - said >= SAID_EVERY:
                said = time.monotonic()
                put(progress)

        try:
            for ids, tensors in compute_as_fits(
                spec, inputs, Context(self._classifier(reference), batch_size, on_step)
            ):
                put(Computed(ids, tensors))
        except Exception as problem:  # whatever a user's model raises
            put(Ended(f"{problem}" if isinstance(problem, UnderfireError) else f"{type(problem).__name__}: {problem}"))
        else:
            put(Ended())

    def _classifier(self, reference: Reference) -> Classifier:
        if reference.fingerprint not in self._classifiers:
            self._classifiers[reference.fingerprint] = reference.load(self._device)
        return self._classifiers[reference.fingerprint]


class Workers:
    """Ray actors by their places. One that was lost has no place until Ray has started another for it."""

    def __init__(self, ray: Any, actors: list[Any]) -> None:
        self._ray, self._actors = ray, actors
        self._streams = not ray.util.client.ray.is_connected()
        self._at_work, self._coming_back = dict[int, Any](), dict[int, Any]()
        self._specs = dict[str, Any]()

    @property
    def places(self) -> list[int]:
        return [place for place in range(len(self._actors)) if place not in self._coming_back]

    def greet(self, reference: Reference) -> None:
        """Have all load a classifier, also those that are being started again; UnderfireError if one cannot."""
        for attempt in range(GREETINGS):
            awake = [actor.answer.options(max_task_retries=-1).remote() for actor in self._actors]
            self._ray.wait(awake, num_returns=len(awake), timeout=RETURN)
            try:
                said = self._ray.get([actor.greet.remote(reference) for actor in self._actors])
                break
            except self._ray.exceptions.RayError as problem:  # also of one that answered and was lost since
                if attempt == GREETINGS - 1:
                    raise UnderfireError(f"A worker could not be started: {first_line(problem)}") from problem
        if refused := [each for each in said if each is not None]:
            raise UnderfireError(refused[0])

    def begin(self, place: int, spec: Identified, inputs: StageInputs, reference: Reference, batch_size: int) -> None:
        """Have the free worker at a place compute rows."""
        if key(spec) not in self._specs:
            for module in modules_of_users():
                self._ray.cloudpickle.register_pickle_by_value(module)
            self._specs[key(spec)] = self._ray.put(spec)
            for oldest in list(self._specs)[:-KEPT]:
                del self._specs[oldest]
        actor = self._actors[place]
        method = actor.stream.options(num_returns="streaming") if self._streams else actor.whole
        self._at_work[place] = method.remote(self._specs[key(spec)], inputs, reference, batch_size)

    def heard(self) -> list[tuple[int, Event]]:
        """What came first, waiting for it; nothing where a lost worker came back. UnderfireError if none does."""
        awaited = [*self._at_work.values(), *self._coming_back.values()]
        ready, _ = self._ray.wait(awaited, timeout=None if self._at_work else RETURN)
        if not ready:
            raise UnderfireError(f"All workers were lost, and none came back within {RETURN} seconds.")
        for place in [place for place, back in self._coming_back.items() if back in ready]:
            del self._coming_back[place]
        places = [place for place, work in self._at_work.items() if work in ready]
        return [(place, event) for place in places for event in self._events(place)]

    def drop(self) -> None:
        """Let go of what is at work: its workers begin anew."""
        for place in list(self._at_work):
            self._ray.kill(self._actors[place], no_restart=False)
            self._lose(place)

    def _events(self, place: int) -> list[Event]:
        """The next event of a stream, or all of what was computed as a whole."""
        work = self._at_work[place]
        try:
            found = [self._ray.get(next(work))] if self._streams else self._ray.get(work)
        except self._ray.exceptions.RayError as problem:
            self._lose(place)
            return [Ended(f"the worker was lost ({first_line(problem)})")]
        if isinstance(found[-1], Ended):
            del self._at_work[place]
        return found

    def _lose(self, place: int) -> None:
        """Wait until the worker answers again."""
        del self._at_work[place]
        self._coming_back[place] = self._actors[place].answer.options(max_task_retries=-1).remote()


@dataclass(frozen=True)
class Seeing:
    """A crew (see `underfire.runs.dispatch`): workers that compute with this classifier."""

    workers: Workers
    reference: Reference

    @property
    def places(self) -> list[int]:
        return self.workers.places

    def begin(self, place: int, spec: Identified, inputs: StageInputs, batch_size: int) -> None:
        self.workers.begin(place, spec, inputs, self.reference, batch_size)

    def heard(self) -> list[tuple[int, Event]]:
        return self.workers.heard()

    def drop(self) -> None:
        self.workers.drop()


def seeing(workers: Workers, reference: Reference) -> Seeing:
    """The workers with this classifier, once all have loaded it; UnderfireError if one cannot."""
    workers.greet(reference)
    return Seeing(workers, reference)


@contextmanager
def hired(hiring: Hiring) -> Iterator[Workers]:
    """Workers until the end of the block, whatever ends it; UnderfireError if there can be none.

    Ray on this machine is started for them and stopped after them, with all that it wrote.
    """
    ray = _ray()
    folder = tempfile.mkdtemp(prefix="uf-")
    try:
        with _same_signals():
            _connect(ray, hiring, folder)
        _check_room(ray, hiring)
        actor = ray.remote(Worker).options(
            **hiring.resources,
            max_restarts=-1,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(hiring.threads)}},
        )
        yield Workers(ray, [actor.remote(hiring.device, hiring.threads) for _ in range(hiring.workers)])
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nobody is told
    os.environ.setdefault("RAY_worker_niceness", "0")  # no lower priority than this process has
    try:
        import ray
        import ray.util.client
    except ImportError:
        raise UnderfireError("Workers need Ray; install it with: pip install 'underfire[cluster]'.") from None
    return ray


def _connect(ray: Any, hiring: Hiring, folder: str) -> None:
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if hiring.address is None:
        ray.init(
            address="local",
            num_cpus=hiring.workers * hiring.threads,
            object_store_memory=STORE_BYTES * hiring.workers,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            **quiet,
        )
        return
    _check_listening(hiring.address)
    try:
        shipped = {"working_dir": str(Path.cwd()), "excludes": list(LEFT_BEHIND)}
        ray.init(address=hiring.address, runtime_env=shipped, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as problem:
        raise UnderfireError(f"There is no Ray cluster at {hiring.address}: {first_line(problem)}") from problem


def _check_listening(address: str) -> None:
    """UnderfireError unless something listens; `auto` is looked up by Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise UnderfireError(f"--ray {address} is no address; write auto, HOST:PORT or ray://HOST:PORT.")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as problem:
        raise UnderfireError(
            f"Nothing listens at {address} ({problem.strerror or problem}); start a cluster with: ray start --head"
        ) from problem


def _check_room(ray: Any, hiring: Hiring) -> None:
    """UnderfireError where workers would wait for ever."""
    held, needed = ray.cluster_resources(), {"CPU": hiring.resources["num_cpus"], "GPU": hiring.resources["num_gpus"]}
    for name, each in needed.items():
        if held.get(name, 0) < each * hiring.workers:
            raise UnderfireError(
                f"{hiring.workers} workers need {each * hiring.workers:g} {name}s and the cluster has "
                f"{held.get(name, 0):g}; ask for fewer with --workers or --threads."
            )


@contextmanager
def _same_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, if there is one; Ray's own ends the process, too, and lets it clean up."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if callable(handler):
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGTERM, handler)
