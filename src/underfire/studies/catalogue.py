"""Every table and figure of the paper as a study on anybody's classifier and images.

    study = STUDIES["random-patch"].study                         # STUDY in studies/random_patch.py
    run = study.execute(request, subject, Path("runs/x/random-patch"), Manner("…"))
    tables, figures = list(study.tables(run)), list(study.figures(run))

Studies of one folder share its stages: what one has computed no other computes again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # to name the studies takes no torch
    from underfire.runs.folder import Run
    from underfire.studies.base import Study


@dataclass(frozen=True)
class Entry:
    """A study by its name: what it makes of the paper's tables and figures, and what it asks."""

    name: str
    paper: str
    question: str

    @property
    def study(self) -> "Study":
        """The STUDY of the module of this name."""
        study: Study = import_module(f"underfire.studies.{self.name.replace('-', '_')}").STUDY
        return study


_ENTRIES = (
    Entry("localisation", "Table 2", "Do interpreters find the object?"),
    Entry(
        "effectiveness",
        "Tables 3 and 12; Fig. 1, 4, 5, 6 and 17",
        "Does ADV² fool classifier and interpreter at once?",
    ),
    Entry(
        "evasiveness",
        "Tables 4 and 5",
        "Would a detector have noticed, even where the attacker knows of it?",
    ),
    Entry(
        "case-study",
        "Table 13; Fig. 7, 8 and 18",
        "Is the classifier right, and do its maps stay on the lesion when it is not?",
    ),
    Entry("spatial", "Fig. 9, 10, 19 and 20", "Does it work by bending the image?"),
    Entry("random-patch", "Tables 6 and 7; Fig. 11", "Can maps be led to a random patch?"),
    Entry("random-class", "Table 8; Fig. 12, 13, 21 and 22", "Can maps be led to those of another image?"),
    Entry("transfer", "Table 9; Fig. 14", "Are other interpreters deceived, too?"),
    Entry("blackbox", "not in the paper", "How much must an attacker know?"),
    Entry("gap", "Proposition 1", "How much does an attack move by integrated gradients, and would IG show it?"),
    Entry("aid", "Table 10; Fig. 15 and 16", "Do defended interpreters tell?"),
    Entry("threats", "not in the paper", "How little must change, in L2 or within a patch?"),
    Entry("sanity", "not in the paper", "Do maps depend on what was learned?"),
)

STUDIES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def done(folder: Path) -> "dict[str, Run]":
    """The studies that a folder holds so far, in the order of the catalogue; an attack of such a name is none."""
    from underfire.runs.folder import open_run

    held = {name: open_run(folder / name) for name in STUDIES if (folder / name / "run.json").is_file()}
    return {name: run for name, run in held.items() if run.shares_stages}
