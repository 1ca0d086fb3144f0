"""Nothing is made, read or hashed more often than it must be: counted on a run of 4 images and 2 interpreters."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from underfire.attacks import recipes
from underfire.core import io
from underfire.interpreters import rts
from underfire.models.classifier import Classifier
from underfire.runs import specs, store
from underfire.runs.attack_settings import AttackSettings
from underfire.runs.execute import Manner
from underfire.runs.plan import AttackPlan
from underfire.studies.base import Subject
from underfire.studies.effectiveness import execute


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing was done; run.json alone of the JSON files."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, what: str, wanted: Callable[..., bool] = lambda *_, **__: True) -> None:
        do = getattr(owner, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            counts[what] += wanted(*arguments, **named)
            return do(*arguments, **named)

        monkeypatch.setattr(owner, name, counting)

    def is_run_json(path: Path, *_: Any, **__: Any) -> bool:
        return path.name == "run.json"

    count(AttackPlan, "of", "plans made")
    count(rts, "read_masker", "masker read")
    count(specs.json, "dumps", "specs hashed", lambda content, **how: "separators" in how and "type" in content)
    count(store, "safe_open", "shards opened")
    count(Path, "read_text", "run.json read", is_run_json)
    count(io, "write_atomically", "run.json written", is_run_json)
    return counts


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    short = replace(recipes.RECIPES["annealed"], warm_steps=1, plain_steps=1)
    monkeypatch.setattr(recipes, "RECIPES", {**recipes.RECIPES, "annealed": short})

    def run() -> None:
        settings = AttackSettings(model="demo", images="demo", interpreters=("cam", "rts"), n=4, steps=1)
        subject = Subject(Classifier.load("demo"), settings.open_images(20))
        execute(settings, subject, tmp_path / "run", Manner("test"))

    return run


def test_a_run_does_everything_once_and_is_looked_at_when_it_is_finished(
    counted: Counter[str], start: Callable[[], None], tmp_path: Path
) -> None:
    start()
    stages = len(list((tmp_path / "run" / "stages").iterdir()))
    assert counted["plans made"] == 1
    assert counted["masker read"] <= 2, "once to check its name, once for the plan"
    assert counted["specs hashed"] <= stages + 2 * 12, (
        "each stage once, and what comes up a second time where maps are drawn"
    )
    assert counted["shards opened"] <= stages, "once to read its rows"
    assert counted["run.json read"] <= 4
    assert counted["run.json written"] <= stages + 1, "at the start, and each stage's time"
    counted.clear()
    start()
    assert counted["plans made"] == 1
    assert counted["shards opened"] <= 1, "of the images, which are stored before the stages and have no index"
    assert counted["run.json read"] <= 6
    assert counted["run.json written"] == 0
