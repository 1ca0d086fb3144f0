"""Families of detectors, by their names on the command line:

    fs            the squeezers of feature squeezing       fs:bits:2+median:3
    consistency   interpreters, each with its changes      consistency:cam+mask:blur
    ensemble      pairs of interpreters                    ensemble:cam+grad+rts

A family is given with its parts, joined by +, or alone with all that it has; several families are separated by commas.
Whatever has several parts is also scored as a whole, under the name of what its parts have in common. Families that are
joined by + are one detector, the maximum of all their parts: fs+consistency:cam.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

from underfire.core.errors import UnderfireError
from underfire.data.corruptions import CHANGES, change_named
from underfire.detection.calibration import AS_IT_IS, STANDARDISED, Scale
from underfire.detection.names import DETECTORS, families_in
from underfire.detection.scores import Consistency, Disagreement, FeatureSqueezing, Scorer
from underfire.detection.squeezers import squeezer_named
from underfire.interpreters.protocol import Explainer
from underfire.interpreters.registry import canonical, interpreter_named

SQUEEZED = ("bits:2", "bits:3", "median:3", "nlm:11-3-4")  # by default


@dataclass(frozen=True)
class Judgement:
    """What one detector goes by: the maximum of its parts, each on the scale that benign scores give it."""

    name: str
    family: str
    parts: tuple[Scorer, ...]
    scale: Scale = AS_IT_IS


def judgements_named(text: str, of_run: Sequence[str] = ()) -> tuple[Judgement, ...]:
    """The detectors that a comma-separated list of families means, as on the command line.

    of_run are a run's interpreters as they were named there; a name in the list means the run's, if it has one.
    UnderfireError says what is wrong with the list.
    """
    named = [families_in(each) for each in text.split(",")]
    _check_families([family for families in named if len(families) == 1 for family in families])
    held = {each.partition(":")[0]: each for each in of_run}
    found = [_family(each[0], held) if len(each) == 1 else [_joint(each, held)] for each in named]
    return tuple(each for family in found for each in family)


def evaded_named(
    text: str, interpreter: Explainer, of_run: Sequence[str] = ()
) -> tuple[FeatureSqueezing | Consistency, ...]:
    """The scores that an attack on this interpreter keeps low; `consistency` alone means that of its own maps.

    UnderfireError says what is wrong with the name, or that there is no such attack.
    """
    _check_families(families := families_in(text))
    scores = list[Scorer]()
    for family in families:
        if family == "consistency":
            scores += [Consistency(interpreter, change) for change in CHANGES.values()]
        else:
            scores += judgements_named(family, of_run)[-1].parts
    evadable = tuple(each for each in scores if isinstance(each, FeatureSqueezing | Consistency))
    if len(evadable) < len(scores):
        raise UnderfireError(f"'{text}' cannot be evaded in part; name fs, consistency or both, or ensemble alone.")
    return evadable


Parts = Sequence[str] | None  # as written; None where the family is named alone
Held = Mapping[str, str]  # a run's interpreters by name, each as it was named there


def _check_families(families: Sequence[str]) -> None:
    names = [each.partition(":")[0] for each in families]
    if unknown := [name for name in names if name not in _FAMILIES]:
        raise UnderfireError(f"There is no detector '{unknown[0]}'; there are {', '.join(DETECTORS)}.")
    if repeated := _repeated(names):
        raise UnderfireError(f"Detector '{repeated}' is named twice; name it once, with its parts joined by +.")


def _family(text: str, held: Held) -> list[Judgement]:
    name, colon, parts = text.partition(":")
    return _FAMILIES[name]([each.strip() for each in parts.split("+")] if colon else None, held)


def _joint(families: Sequence[str], held: Held) -> Judgement:
    """One detector of several families: of each what it has as a whole."""
    _check_families(families)
    wholes = [_family(each, held)[-1] for each in families]
    parts = tuple(part for whole in wholes for part in whole.parts)
    return Judgement("+".join(each.name for each in wholes), "joint", parts, STANDARDISED)


def _squeezing(parts: Parts, held: Held) -> list[Judgement]:
    squeezers = [squeezer_named(each) for each in parts or SQUEEZED]
    if repeated := _repeated([each.name for each in squeezers]):
        raise UnderfireError(f"Squeezer '{repeated}' is named twice; name it once.")
    scorers = [FeatureSqueezing(each) for each in squeezers]
    return [*_singly("fs", scorers), *_as_a_whole("fs", "fs", scorers, AS_IT_IS)]


def _consistency(parts: Parts, held: Held) -> list[Judgement]:
    family, wanted = "consistency", dict[str, list[str]]()
    for part in tuple(held) if parts is None else parts:
        name, colon, change = part.partition(":")
        wanted.setdefault(canonical(name), []).extend([change] if colon else CHANGES)
    judgements, everything = list[Judgement](), list[Scorer]()
    for name, changes in wanted.items():
        if repeated := _repeated(changes):
            raise UnderfireError(f"Change '{repeated}' of {name} is named twice; name it once.")
        explainer = _interpreter(name, held)
        scorers = [Consistency(explainer, change_named(each)) for each in changes]
        judgements += [
            *_singly(family, scorers),
            *_as_a_whole(f"{family}:{name}", family, scorers, STANDARDISED),
        ]
        everything += scorers
    several = len(wanted) > 1
    return judgements + (_as_a_whole(family, family, everything, STANDARDISED) if several else [])


def _ensemble(parts: Parts, held: Held) -> list[Judgement]:
    family, names = "ensemble", tuple(held) if parts is None else tuple(map(canonical, parts))
    if len(names) < 2:
        raise UnderfireError("An ensemble takes two interpreters or more; name them, as in ensemble:cam+grad.")
    if repeated := _repeated(names):
        raise UnderfireError(f"Interpreter '{repeated}' is named twice; name it once.")
    scorers = [Disagreement(*pair) for pair in combinations([_interpreter(each, held) for each in names], 2)]
    return [*_singly(family, scorers), *_as_a_whole(family, family, scorers, STANDARDISED)]


_FAMILIES: Mapping[str, Callable[[Parts, Held], list[Judgement]]] = MappingProxyType(
    {"fs": _squeezing, "consistency": _consistency, "ensemble": _ensemble}
)


def _singly(family: str, scorers: Sequence[Scorer]) -> list[Judgement]:
    return [Judgement(each.name, family, (each,)) for each in scorers]


def _as_a_whole(name: str, family: str, scorers: Sequence[Scorer], scale: Scale) -> list[Judgement]:
    """All of them together; nothing where there is one."""
    return [Judgement(name, family, tuple(scorers), scale)] if len(scorers) > 1 else []


def _interpreter(name: str, held: Held) -> Explainer:
    if ":" in name:
        raise UnderfireError(
            f"Interpreter '{name}' is one of the run's or needs no file; leave out ':' and what follows."
        )
    return interpreter_named(held.get(name, name))


def _repeated(names: Sequence[str]) -> str | None:
    """The first name that comes twice."""
    return next((name for i, name in enumerate(names) if name in names[:i]), None)
