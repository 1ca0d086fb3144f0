"""What can be said of workers without starting any; the rest is law 9."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from underfire.core.errors import UnderfireError
from underfire.models.classifier import Classifier
from underfire.runs import workers
from underfire.runs.reference import Reference
from underfire.runs.workers import Hiring, Workers


@pytest.mark.parametrize("address", ["nowhere", "ray://", "host:", "host:port", ":6379"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UnderfireError, match=rf"--ray {address} is no address; write auto, HOST:PORT or ray://HOST"):
        workers._check_listening(address)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_where_nothing_listens_is_named(address: str) -> None:
    with pytest.raises(UnderfireError, match=rf"^Nothing listens at {address} \(Connection refused\); start a cluster"):
        workers._check_listening(address)


def test_a_worker_has_a_gpu_or_its_threads() -> None:
    assert Hiring(2, threads=3).resources == {"num_cpus": 3, "num_gpus": 0}
    assert Hiring(2, device="cuda").resources == {"num_cpus": 1, "num_gpus": 1}


def test_a_classifier_is_found_from_another_folder(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a worker whose working folder lacks the file, on a disk that both see."""
    file, builder = tiny_model.split(":")
    named = f"{Path(file).name}:{builder}"
    monkeypatch.chdir(Path(file).parent)
    classifier = Classifier.load(named, None, "none")
    reference = Reference.of({"model": named, "normalize": "none", "images": "photos"}, classifier)
    monkeypatch.chdir(tmp_path)
    assert reference.load(classifier.device).fingerprint() == classifier.fingerprint()
    assert reference.source == {"model": named, "normalize": "none"}


class RayError(Exception):
    """Ray's, of a worker that is being started again."""


@pytest.fixture
def reference(tiny_model: str) -> Reference:
    return Reference({"model": tiny_model, "normalize": "none"}, fingerprint="", folder="")


def losing(greetings: int) -> Workers:
    """Two workers, one of which answers, and is lost before it has loaded a classifier, so many times."""
    ray = MagicMock()
    ray.exceptions.RayError = RayError
    ray.get.side_effect = [RayError("The actor is restarting.")] * greetings + [[None, None]]
    return Workers(ray, [MagicMock(), MagicMock()])


def test_a_worker_that_was_lost_since_it_answered_is_greeted_again(reference: Reference) -> None:
    losing(2).greet(reference)


def test_a_worker_that_is_lost_at_every_greeting_is_given_up(reference: Reference) -> None:
    with pytest.raises(UnderfireError, match=r"^A worker could not be started: The actor is restarting\.$"):
        losing(3).greet(reference)
