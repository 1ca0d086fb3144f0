"""Can maps be led to a random patch? ADV2 after a map that is a patch (Tables 6 and 7, Fig. 11)."""

from collections.abc import Iterator

from underfire.runs.folder import Run
from underfire.runs.outcomes import OUTCOMES
from underfire.studies import effectiveness, paper
from underfire.studies.averages import Averages, success_table
from underfire.studies.base import Study
from underfire.studies.figures import Figure, papers
from underfire.studies.galleries import above_adversarial
from underfire.studies.tables import Row, Table, Value


def tables(run: Run) -> Iterator[Table]:
    """Tables 6 and 7."""
    means, printed = Averages.of(run), {("adv2", name): pair for name, pair in paper.PATCH.items()}
    yield success_table(means, "table-6", "Table 6. ASR (MC) of ADV² targeting random patch interpretations", printed)
    of_benign, of_target = [], []
    for name in means.interpreters:
        benign, target = (means.mean("adv2", name, column) for column in ("benign_l1", "map_l1"))
        paper_benign, paper_target = paper.PATCH_DISTANCES.get(name, (None, None))
        of_benign.append((Value("ΔbL1", benign, paper_benign),))
        of_target.append((Value("ΔtL1", target, paper_target),))
    rows = Row(("ΔbL1",), tuple(of_benign)), Row(("ΔtL1",), tuple(of_target))
    title = "Table 7. Distance of ADV² maps to benign maps (Δb) and to the target maps (Δt)"
    yield Table("table-7", title, ("",), means.headings, rows)


def figures(run: Run) -> Iterator[Figure]:
    """Fig. 11."""
    names = Averages.of(run).interpreters
    text = "ADV² targeting random patch interpretations"
    yield papers(11, text, lambda: above_adversarial(run, names, "target"))


STUDY = Study(effectiveness.attacking(target_map="patch"), (OUTCOMES,), tables, figures)
