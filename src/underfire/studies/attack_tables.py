"""What the studies of attacks print: the paper's tables from the outcomes of a run, ours beside the paper's."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import torch

from underfire.attacks.names import attack_name, detector_part, in_order, interpreter_name, made_for
from underfire.core.io import rows_where
from underfire.metrics.intervals import Estimate, mean_interval
from underfire.metrics.maps import compare_maps
from underfire.runs.folder import Run
from underfire.runs.outcomes import AttackSummary, summarise
from underfire.studies import gap, paper, transfer
from underfire.studies.detections import DetectionRate, detections, matrix
from underfire.studies.tables import Cell, Row, Table, Value

Averages = Mapping[tuple[str, str], AttackSummary]  # by attack and interpreter


def effectiveness(run: Run) -> Iterator[Table]:
    """Tables 3 and 12, and the numbers of Fig. 6."""
    network = paper.network_of(run.info["model"]["name"])
    means = averages(run.outcomes())
    yield _successes(
        means,
        "table-3",
        f"Table 3. ASR (MC) of PGD and ADV² by interpreter; the paper's {network}",
        paper.EFFECTIVENESS[network],
    )
    title = f"Table 12. Distance between attribution maps of benign and adversarial inputs; the paper's {network}"
    yield _distances(means, "table-12", title, paper.DISTANCES[network])
    yield _overlaps(means, "figure-6", "Fig. 6 in numbers. IoU with the benign map")


def spatial(run: Run) -> Iterator[Table]:
    """The numbers of Fig. 10 and 20; the paper prints none."""
    means = averages(run.outcomes())
    yield _successes(means, "stadv-asr", "ASR (MC) of StAdv and ADV² on StAdv", {})
    yield _distances(means, "figure-10-l1", "Fig. 10 (a) in numbers. Distance to the benign map", {})
    yield _overlaps(means, "figure-10-iou", "Fig. 10 (b) in numbers. IoU with the benign map")


def case_study(run: Run) -> Iterator[Table]:
    """Table 13 and the numbers of Fig. 8."""
    means = averages(run.outcomes())
    yield _successes(means, "case-study-asr", "ASR (MC) of PGD and ADV²", {})
    title = "Table 13. Distance between attribution maps of benign and adversarial inputs"
    yield _distances(means, "table-13", title, paper.SKIN_DISTANCES)
    yield _overlaps(means, "figure-8-iou", "Fig. 8 (b) in numbers. IoU with the benign map")


def random_patch(run: Run) -> Iterator[Table]:
    """Tables 6 and 7."""
    means, patch = averages(run.outcomes()), {("adv2", name): pair for name, pair in paper.PATCH.items()}
    yield _successes(means, "table-6", "Table 6. ASR (MC) of ADV² targeting random patch interpretations", patch)
    names = _interpreters(means)
    both = {"ΔbL1": "benign_l1", "ΔtL1": "map_l1"}
    rows = [
        Row(
            (title,),
            tuple(
                (Value(title, mean(means, "adv2", name, column), _at(paper.PATCH_DISTANCES.get(name), place)),)
                for name in names
            ),
        )
        for place, (title, column) in enumerate(both.items())
    ]
    title = "Table 7. Distance of ADV² maps to benign maps (Δb) and to the target maps (Δt)"
    yield Table("table-7", title, ("",), interpreter_titles(names), tuple(rows))


def random_class(run: Run) -> Iterator[Table]:
    """Table 8 and the numbers of Fig. 13."""
    means, other = averages(run.outcomes()), {("adv2", name): pair for name, pair in paper.CLASS.items()}
    yield _successes(means, "table-8", "Table 8. ASR (MC) of ADV² with random class interpretations", other)
    names = _interpreters(means)
    rows = [
        Row((f"{measure}, {to}",), tuple((Value(measure, value),) for value in values))
        for (measure, to), values in led_away(run, names).items()
    ]
    title = "Fig. 13 in numbers. ADV² maps against benign and target maps"
    yield Table("figure-13", title, ("",), interpreter_titles(names), tuple(rows))


def evasiveness(run: Run) -> Iterator[Table]:
    """Tables 4 and 5."""
    found = matrix(detections(run))
    made = list(dict.fromkeys(cell.interpreter for cell in found if cell.interpreter is not None))
    columns = [("PGD", None), *((kind, name) for name in made for kind in ("A", "A∗"))]
    rows = []
    for detector in dict.fromkeys(cell.calibration.detector for cell in found):
        part = detector.removeprefix("fs:")
        if detector == part or "+" in part:
            continue
        cells = []
        for kind, name in columns:
            detected = _detected(found, detector, kind, name)
            printed = paper.DETECTED.get(part, {}).get((kind, name))
            cells.append((Value("detected", detected, printed, percent=True),))
        rows.append(Row((detector_part(detector),), tuple(cells)))
    titles = tuple("PGD" if name is None else f"{interpreter_name(name)}-{kind}" for kind, name in columns)
    note = (
        "A∗ hides from the squeezer of its row. Thresholds are those that 5 % of benign images exceed; "
        "shares are of successful images."
    )
    title = "Table 4. Detectability of PGD, basic ADV² (A) and adaptive ADV² (A∗) using feature squeezing"
    yield Table("table-4", title, ("Squeezer",), titles, tuple(rows), note)
    yield _cost_of_evasion(run.outcomes(), made)


def _cost_of_evasion(outcomes: pa.Table, made: list[str]) -> Table:
    """Table 5; A* is the mean over the attacks that hide from one squeezer each, its interval over images."""
    attacks = dict.fromkeys(outcomes["attack"].to_pylist())
    kinds = {
        "P": ["pgd"],
        "A": ["adv2"],
        "A∗": [each for each in attacks if each.startswith("adv2-evading-fs:") and "+" not in each],
    }
    columns = [(name, kind) for name in made for kind in kinds]
    rows = []
    for place, (title, column) in enumerate({"ΔL1": "map_l1", "IoU": "iou_mean"}.items()):
        cells = []
        for name, kind in columns:
            table = rows_of(outcomes, kinds[kind], name)
            printed = paper.EVASION_COST.get(name)
            number = None if printed is None else printed[list(kinds).index(kind)][place]
            cells.append((Value(title, mean_interval(table[column].to_numpy(), table["id"].to_pylist()), number),))
        rows.append(Row((title,), tuple(cells)))
    title = "Table 5. Adversarial maps of PGD (P), basic (A) and adaptive ADV² (A∗) against benign maps"
    titles = tuple(f"{interpreter_name(name)} {kind}" for name, kind in columns)
    return Table("table-5", title, ("Metric",), titles, tuple(rows), "A∗ is the mean over the squeezers of Table 4.")


def _detected(found: list[DetectionRate], detector: str, kind: str, name: str | None) -> Estimate | None:
    attack = {"PGD": "pgd", "A": "adv2", "A∗": f"adv2-evading-{detector}"}[kind]
    fitting = (
        cell.successes
        for cell in found
        if (cell.calibration.detector, cell.attack, cell.interpreter) == (detector, attack, name)
    )
    return next(fitting, None)


def transfers(run: Run) -> Iterator[Table]:
    """Table 9 on the run's own classifier, with noise of the attack's size below."""
    own = rows_where(transfer.transfers(run), model_fingerprint=run.info["model"]["fingerprint"])
    cells = {(each.attack, each.source, each.interpreter): each.map_l1 for each in transfer.summarise(own)}
    shown = list(dict.fromkeys(name for _, _, name in cells))
    rows = []
    for attack, source in dict.fromkeys((attack, source) for attack, source, _ in cells):
        printed = paper.TRANSFER if attack in ("adv2", "pgd") else {}
        values = tuple(
            (Value("ΔL1", cells.get((attack, source, name)), printed.get((source, name))),) for name in shown
        )
        rows.append(Row((made_for(attack, source),), values))
    title = "Table 9. L1 distance between attribution maps of adversarial and benign inputs (row/column: source/target)"
    yield Table("table-9", title, ("",), interpreter_titles(shown), tuple(rows))


def bound(run: Run) -> Iterator[Table]:
    """Both sides of Proposition 1, of which the paper prints no numbers."""
    rows = [
        Row(
            (made_for(each.attack, each.interpreter),),
            (
                (Value("prediction loss", each.prediction_loss),),
                (Value("interpretation loss", each.interpretation_loss),),
                (Value("gap", each.gap),),
            ),
        )
        for each in gap.summarise(gap.gaps(run))
    ]
    title = "Proposition 1. Prediction loss is at most the interpretation loss by integrated gradients"
    yield Table("proposition-1", title, ("",), ("prediction loss", "interpretation loss", "gap"), tuple(rows))


def led_away(run: Run, names: list[str]) -> dict[tuple[str, str], list[Estimate]]:
    """L1 and IoU of ADV2 maps against benign and target maps, for each interpreter."""
    found: dict[tuple[str, str], list[Estimate]] = {}
    for name in names:
        maps = {kind: torch.from_numpy(run.maps(kind, name)[1]) for kind in ("adv2", "benign", "target")}
        for to in ("benign", "target"):
            compared = compare_maps(maps["adv2"], maps[to])
            for measure, column in {"ΔL1": "map_l1", "IoU": "iou_mean"}.items():
                found.setdefault((measure, to), []).append(mean_interval(compared[column].numpy()))
    return dict(sorted(found.items(), key=lambda item: item[0][0] == "IoU"))


def averages(outcomes: pa.Table) -> Averages:
    return {(each.attack, each.interpreter): each for each in summarise(outcomes)}


def rows_of(outcomes: pa.Table, attacks: list[str], interpreter: str) -> pa.Table:
    """The outcomes of these attacks by one interpreter's maps."""
    pairs = zip(*(outcomes[name].to_pylist() for name in ("attack", "interpreter")), strict=True)
    return outcomes.filter(pa.array([attack in attacks and name == interpreter for attack, name in pairs], pa.bool_()))


def _successes(means: Averages, name: str, title: str, printed: Mapping[tuple[str, str], paper.Pair]) -> Table:
    """ASR (MC): attacks by interpreters."""
    names, rows = _interpreters(means), []
    for attack in _attacks(means):
        cells: list[Cell] = []
        for interpreter in names:
            summary, pair = means.get((attack, interpreter)), printed.get((attack, interpreter))
            asr, mc = (None, None) if summary is None else (summary.asr, summary.mc)
            cells.append((Value("ASR", asr, _at(pair, 0), percent=True), Value("MC", mc, _at(pair, 1))))
        rows.append(Row((attack_name(attack),), tuple(cells)))
    return Table(name, title, ("",), interpreter_titles(names), tuple(rows))


def _distances(means: Averages, name: str, title: str, printed: Mapping[tuple[str, str], paper.Pair]) -> Table:
    """L1 and L2 by interpreter and attack."""
    rows = []
    for interpreter in _interpreters(means):
        for attack in _attacks(means):
            pair = printed.get((attack, interpreter))
            cells = tuple(
                (Value(measure, mean(means, attack, interpreter, column), _at(pair, place)),)
                for place, (measure, column) in enumerate({"ΔL1": "map_l1", "ΔL2": "map_l2"}.items())
            )
            rows.append(Row((interpreter_name(interpreter), attack_name(attack)), cells))
    return Table(name, title, ("Interpreter", "Attack"), ("ΔL1", "ΔL2"), tuple(rows))


def _overlaps(means: Averages, name: str, title: str) -> Table:
    """IoU and the share of plausible maps: attacks by interpreters."""
    names = _interpreters(means)
    rows = [
        Row(
            (attack_name(attack),),
            tuple(
                (
                    Value("IoU", mean(means, attack, each, "iou_mean")),
                    Value("plausible", mean(means, attack, each, "plausible"), percent=True),
                )
                for each in names
            ),
        )
        for attack in _attacks(means)
    ]
    return Table(
        name,
        title,
        ("",),
        interpreter_titles(names),
        tuple(rows),
        "In brackets the share of plausible or unchanged maps, where there is anything to see.",
    )


def mean(means: Averages, attack: str, interpreter: str, column: str) -> Estimate | None:
    summary = means.get((attack, interpreter))
    return None if summary is None else summary.all_images[column]


def _at(pair: paper.Pair | None, place: int) -> float | None:
    return None if pair is None else pair[place]


def _interpreters(means: Averages) -> list[str]:
    return list(dict.fromkeys(interpreter for _, interpreter in means))


def _attacks(means: Averages) -> list[str]:
    return in_order(attack for attack, _ in means)


def interpreter_titles(names: list[str]) -> tuple[str, ...]:
    return tuple(interpreter_name(name) for name in names)
