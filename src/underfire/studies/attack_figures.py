"""What the studies of attacks draw: the paper's galleries and bar charts from a run folder."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from underfire.attacks.names import MAP_AWARE, attack_name, attacker, in_order, interpreter_name
from underfire.runs.folder import Run
from underfire.studies import effectiveness as effectiveness_run
from underfire.studies import paper, transfer
from underfire.studies.attack_tables import averages, interpreter_titles, led_away, mean
from underfire.studies.figures import Drawing, Figure, Panel, Series, bars, gallery

SAMPLES = 3  # images in a gallery


def effectiveness(run: Run) -> Iterator[Figure]:
    """Fig. 1, 4 (17 on a DenseNet), 5 and 6."""
    network = paper.network_of(run.info["model"]["name"])
    names = _interpreters(run)
    yield Figure("figure-1", _title(1, "Benign, regular and dual adversarial inputs"), partial(_trios, run, names[0]))
    number = 4 if network == "ResNet" else 17
    yield Figure(
        f"figure-{number}",
        _title(number, "Attribution maps of benign and adversarial (PGD, ADV²) inputs"),
        partial(_maps_by_attack, run, names),
    )
    printed = {pair: distances[0] for pair, distances in paper.DISTANCES[network].items()}
    yield Figure(
        "figure-5",
        _title(5, "L1 distance between benign and adversarial maps"),
        lambda: bars(interpreter_titles(names), [("ΔL1", _series(run, "map_l1", printed))]),
    )
    yield Figure(
        "figure-6",
        _title(6, "IoU scores of adversarial maps with respect to benign maps"),
        lambda: bars(interpreter_titles(names), [("IoU", _series(run, "iou_mean"))]),
    )


def spatial(run: Run) -> Iterator[Figure]:
    """Fig. 9 and 10 (19 and 20 on a DenseNet)."""
    maps, measures = (9, 10) if paper.network_of(run.info["model"]["name"]) == "ResNet" else (19, 20)
    names = _interpreters(run)
    yield Figure(
        f"figure-{maps}",
        _title(maps, "Attribution maps of benign and adversarial (StAdv, ADV² on StAdv) inputs"),
        partial(_maps_by_attack, run, names),
    )
    yield Figure(
        f"figure-{measures}",
        _title(measures, "L1 measures (a) and IoU scores (b) with respect to benign maps"),
        lambda: bars(interpreter_titles(names), _both(run)),
    )


def case_study(run: Run) -> Iterator[Figure]:
    """Fig. 7 and 8."""
    names = _interpreters(run)
    printed = {pair: distances[0] for pair, distances in paper.SKIN_DISTANCES.items()}
    yield Figure(
        "figure-7",
        _title(7, "Attribution maps of benign and adversarial (ADV²) inputs"),
        partial(_above_adversarial, run, names, "benign", partial(_benign, run)),
    )
    yield Figure(
        "figure-8",
        _title(8, "L1 measures (a) and IoU scores (b) with respect to benign maps"),
        lambda: bars(interpreter_titles(names), _both(run, printed)),
    )


def random_patch(run: Run) -> Iterator[Figure]:
    """Fig. 11."""
    names = _interpreters(run)
    title = _title(11, "ADV² targeting random patch interpretations")
    yield Figure("figure-11", title, partial(_above_adversarial, run, names, "target", partial(_benign, run)))


def random_class(run: Run) -> Iterator[Figure]:
    """Fig. 12 and 13 (21 and 22 on a DenseNet)."""
    maps, measures = (12, 13) if paper.network_of(run.info["model"]["name"]) == "ResNet" else (21, 22)
    names = _interpreters(run)
    title = _title(maps, "Target and adversarial (ADV²) inputs and their attribution maps")
    yield Figure(f"figure-{maps}", title, partial(_above_adversarial, run, names, "target", partial(_donor, run)))
    title = _title(measures, "L1 measures (a) and IoU scores (b) of adversarial maps against benign and target maps")
    yield Figure(f"figure-{measures}", title, lambda: _led_away(run, names))


def transfers(run: Run) -> Iterator[Figure]:
    """Fig. 14."""
    title = _title(14, "Maps of adversarial inputs across interpreters: benign left, adversarial right")
    yield Figure("figure-14", title, partial(_across, run, _interpreters(run)))


def _title(number: int, text: str) -> str:
    return f"Fig. {number}. {text}"


def _interpreters(run: Run) -> list[str]:
    return list(dict.fromkeys(run.outcomes()["interpreter"].to_pylist()))


def _attacks(run: Run) -> list[str]:
    """The plain attack and ADV2 of each solver."""
    held = in_order(run.outcomes()["attack"].to_pylist())
    return [each for each in held if (known := attacker(each)) and not known.adaptive]


def _series(run: Run, column: str, printed: dict[tuple[str, str], float] | None = None) -> list[Series]:
    means, names = averages(run.outcomes()), _interpreters(run)
    return [
        Series(
            attack_name(attack),
            [mean(means, attack, name, column) for name in names],
            [(printed or {}).get((attack, name)) for name in names],
        )
        for attack in _attacks(run)
    ]


def _both(run: Run, printed: dict[tuple[str, str], float] | None = None) -> list[tuple[str, list[Series]]]:
    return [("ΔL1", _series(run, "map_l1", printed)), ("IoU", _series(run, "iou_mean"))]


def _led_away(run: Run, names: list[str]) -> Drawing:
    found = led_away(run, names)
    panels = [
        (measure, [Series(f"to the {to} map", values) for (of, to), values in found.items() if of == measure])
        for measure in ("ΔL1", "IoU")
    ]
    return bars(interpreter_titles(names), panels)


# --- galleries --------------------------------------------------------------------------------


def _chosen(run: Run) -> list[str]:
    """The first images on which most attacks succeeded, in the order of the run."""
    outcomes = run.outcomes()
    successes: dict[str, int] = {}
    for name, success in zip(outcomes["id"].to_pylist(), outcomes["success"].to_pylist(), strict=True):
        successes[name] = successes.get(name, 0) + bool(success)
    order = list(successes)
    return sorted(sorted(order, key=lambda name: -successes[name])[:SAMPLES], key=order.index)


def _image(run: Run, id: str, attack: str, interpreter: str | None = None) -> Panel:
    return torch.from_numpy(run.images(attack, interpreter, only=(id,))[1][0])


def _benign(run: Run, id: str) -> Panel:
    return _image(run, id, "benign")


def _map(run: Run, id: str, attack: str, interpreter: str) -> Panel:
    return torch.from_numpy(run.maps(attack, interpreter, only=(id,))[1][0])


def _trios(run: Run, name: str) -> Drawing:
    """Each image benign, under the plain attack and under ADV2, with its map."""
    rows = []
    attacks = _attacks(run)
    for id in _chosen(run):
        panels = [_image(run, id, "benign"), _map(run, id, "benign", name)]
        for attack in attacks:
            made = name if attack in MAP_AWARE else None
            panels += [_image(run, id, attack, made), _map(run, id, attack, name)]
        rows.append(("", panels))
    titles = [title for attack in ("benign", *attacks) for title in (attack_name(attack), interpreter_name(name))]
    return gallery(titles, rows)


def _maps_by_attack(run: Run, names: list[str]) -> Drawing:
    """For each image a row benign and a row per attack: the image, then every interpreter's map.

    ADV2 has another image for every interpreter, so none is shown.
    """
    rows = []
    for id in _chosen(run):
        for attack in ("benign", *_attacks(run)):
            image = None if attack in MAP_AWARE else _image(run, id, attack)
            rows.append((attack_name(attack), [image, *(_map(run, id, attack, name) for name in names)]))
    return gallery(["input", *interpreter_titles(names)], rows)


def _above_adversarial(run: Run, names: list[str], kind: str, image_of: Callable[[str], Panel]) -> Drawing:
    """For each image a row of maps of that kind, and below them those of ADV2; its image is the first interpreter's."""
    rows = []
    for id in _chosen(run):
        rows.append((attack_name(kind), [image_of(id), *(_map(run, id, kind, name) for name in names)]))
        adversarial = _image(run, id, "adv2", names[0])
        rows.append((attack_name("adv2"), [adversarial, *(_map(run, id, "adv2", name) for name in names)]))
    return gallery(["input", *interpreter_titles(names)], rows)


def _donor(run: Run, id: str) -> Panel:
    """The image whose benign map is wanted, if there is one."""
    outcomes = run.outcomes()
    donors = dict(zip(outcomes["id"].to_pylist(), outcomes["target_map_of"].to_pylist(), strict=True))
    return None if donors[id] is None else _image(run, donors[id], "benign")


def _across(run: Run, names: list[str]) -> Drawing:
    """One image: rows are whom it was made for, pairs of columns who shows it."""
    settings, select = effectiveness_run.recorded(run)
    id = _chosen(run)[0]
    rows = []
    for source in transfer.sources(settings, select):
        if source.interpreter is None:
            continue
        panels = [_image(run, id, "adv2", source.interpreter.name)]
        for shown in settings.explainers():
            panels.append(_map(run, id, "benign", shown.name))
            panels.append(transfer.map_of(run, id, source, shown))
        rows.append((interpreter_name(source.interpreter.name), panels))
    titles = ["input", *(title for name in names for title in (interpreter_name(name), "adversarial"))]
    return gallery(titles, rows)
