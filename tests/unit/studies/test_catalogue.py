"""The catalogue: each row is a module with a study, says what it makes of the paper's and is in the documentation.

The laws are asked of every row there is; what the paper's tables need is asked of the catalogue as a whole.
"""

from collections import Counter
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from printed import DENSENET, RESNET, held_run, numbers_of
from underfire import studies
from underfire.runs.study_settings import SCALES, StudySettings
from underfire.studies.base import Study
from underfire.studies.catalogue import STUDIES, Entry

DOCS = Path(__file__).parents[3] / "docs"
ENTRIES = tuple(STUDIES.values())
each_study = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


# ------------------------------------------------------------------ every row


@each_study
def test_a_row_is_a_module_with_a_study(entry: Entry) -> None:
    assert STUDIES[entry.name] is entry
    assert entry.name == entry.name.lower()
    assert isinstance(entry.study, Study)
    assert entry.study.leaves
    assert all(Path(leaf).suffix == ".parquet" for leaf in entry.study.leaves)


def test_every_module_with_a_study_has_a_row() -> None:
    modules = [module.name for module in iter_modules(studies.__path__)]
    with_study = {name for name in modules if hasattr(import_module(f"underfire.studies.{name}"), "STUDY")}
    assert with_study == {name.replace("-", "_") for name in STUDIES}


@each_study
def test_a_row_asks_a_question_and_says_what_it_makes(entry: Entry) -> None:
    assert entry.question.endswith("?")
    assert entry.paper == "not in the paper" or any(word in entry.paper for word in ("Table", "Fig.", "Proposition"))


@each_study
def test_a_row_is_in_the_documentation(entry: Entry) -> None:
    assert f"| `underfire study {entry.name}` |" in (DOCS / "reproduce.md").read_text(encoding="utf-8")


@each_study
def test_what_a_study_lacks_is_said_as_the_end_of_a_sentence(entry: Entry) -> None:
    lacking = entry.study.lacking(StudySettings(model="demo", images="demo"))
    assert lacking is None or (lacking.startswith("needs ") and "--" in lacking)


# ------------------------------------------------------------------ the catalogue as a whole


def test_every_table_and_figure_of_the_paper_has_one_study() -> None:
    """Tables 1 and 11 and Fig. 2 and 3 report no measurement."""
    made = Counter(each for entry in ENTRIES for each in numbers_of(entry.paper))
    expected = [*(("table", n) for n in (*range(2, 11), 12, 13)), *(("figure", n) for n in (1, *range(4, 23)))]
    assert made == Counter(expected)


@pytest.mark.parametrize("name", ["effectiveness", "case-study", "spatial", "random-patch", "random-class"])
def test_figures_are_those_of_the_paper_on_both_of_its_classifiers(name: str) -> None:
    """Drawn for either classifier under the number that the paper gives it there."""
    attacks = ("stadv", "adv2-stadv") if name == "spatial" else ("pgd", "adv2")
    runs = [held_run(*attacks, info=info) for info in (RESNET, DENSENET)]
    drawn = {figure.name for run in runs for figure in STUDIES[name].study.figures(run)}
    assert drawn == {f"figure-{n}" for kind, n in numbers_of(STUDIES[name].paper) if kind == "figure"}


def test_masks_and_defended_interpreters_are_all_that_studies_lack() -> None:
    bare = StudySettings(model="demo", images="demo")
    given = {"localisation": {"masks": "masks"}, "aid": {"defended": ("smooth:cam",)}}
    assert {entry.name for entry in ENTRIES if entry.study.lacking(bare)} == set(given)
    assert "--masks" in str(STUDIES["localisation"].study.lacking(bare))
    assert "--defended" in str(STUDIES["aid"].study.lacking(bare))
    for name, changes in given.items():
        assert STUDIES[name].study.lacking(bare.model_copy(update=changes)) is None


def test_the_request_says_how_many_images() -> None:
    request = StudySettings(model="demo", images="demo", scale="quick")
    assert (request.attacked, request.sizes) == (SCALES["quick"].attacked, SCALES["quick"])
    assert StudySettings(model="demo", images="demo", n=7).attacked == 7
    assert StudySettings(model="demo", images="demo", scale="full").attacked == 1000
