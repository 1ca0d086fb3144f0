"""The paper's numbers (Zhang et al. 2020), as its tables print them; shares are of 1.

    EFFECTIVENESS["ResNet"]["adv2", "mask"]         # ASR .98, MC .99 (Table 3)

Its classifiers are ResNet-50 and DenseNet-169 on ImageNet.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

Pair = tuple[float, float]
INTERPRETERS = ("grad", "cam", "mask", "rts")
ANCHORS = "anchors"  # in run.json: the classifier asked for


def network_of(info: Mapping[str, Any]) -> str:
    """Which of the paper's two classifiers to put beside a run, by its run.json: the one asked for.

    Else DenseNet where the model's architecture or its name says so, and ResNet everywhere else.
    """
    model = info["model"]
    named = info.get(ANCHORS) or f"{model.get('architecture')} {model['name']}"
    return "DenseNet" if "densenet" in named.lower() else "ResNet"


def _by_attack(**columns: tuple[Pair, ...]) -> Mapping[tuple[str, str], Pair]:
    return {
        (attack, name): pair
        for attack, pairs in columns.items()
        for name, pair in zip(INTERPRETERS, pairs, strict=True)
    }


# Table 2: error in weakly supervised localisation
LOCALISATION: Mapping[str, float] = MappingProxyType({"grad": 0.431, "cam": 0.438, "mask": 0.452, "rts": 0.342})

# Table 3: ASR and MC
EFFECTIVENESS: Mapping[str, Mapping[tuple[str, str], Pair]] = MappingProxyType(
    {
        "ResNet": _by_attack(pgd=((1.0, 1.0),) * 4, adv2=((1.0, 0.99), (1.0, 1.0), (0.98, 0.99), (1.0, 1.0))),
        "DenseNet": _by_attack(pgd=((1.0, 1.0),) * 4, adv2=((1.0, 0.98), (1.0, 1.0), (0.96, 0.98), (1.0, 1.0))),
    }
)

# Table 12: dL1 and dL2 to the benign map
DISTANCES: Mapping[str, Mapping[tuple[str, str], Pair]] = MappingProxyType(
    {
        "ResNet": _by_attack(
            pgd=((0.10, 0.14), (0.22, 0.28), (0.28, 0.38), (0.22, 0.42)),
            adv2=((0.04, 0.07), (0.05, 0.06), (0.09, 0.16), (0.01, 0.06)),
        ),
        "DenseNet": _by_attack(
            pgd=((0.11, 0.15), (0.31, 0.36), (0.27, 0.37), (0.26, 0.48)),
            adv2=((0.05, 0.07), (0.04, 0.05), (0.09, 0.17), (0.02, 0.09)),
        ),
    }
)

# Table 13: the same on skin lesions
SKIN_DISTANCES = MappingProxyType(
    _by_attack(
        pgd=((0.19, 0.23), (0.25, 0.31), (0.23, 0.30), (0.15, 0.26)),
        adv2=((0.06, 0.09), (0.06, 0.08), (0.08, 0.11), (0.02, 0.07)),
    )
)
SKIN_ACCURACY = 0.8227  # weighted by class, of the case study's classifier

# Table 4: detected shares by squeezer; (attack, interpreter), A* being the attack that evades this squeezer
DETECTED: Mapping[str, Mapping[tuple[str, str | None], float]] = MappingProxyType(
    {
        squeezer: dict(
            zip((("PGD", None), ("A", "mask"), ("A", "rts"), ("A∗", "mask"), ("A∗", "rts")), shares, strict=True)
        )
        for squeezer, shares in {
            "bits:2": (0.923, 0.841, 0.940, 0.117, 0.294),
            "bits:3": (0.727, 0.892, 0.883, 0.359, 0.139),
            "median:3": (0.973, 0.986, 0.990, 0.165, 0.034),
            "nlm:11-3-4": (0.523, 0.747, 0.753, 0.517, 0.294),
        }.items()
    }
)

# Table 5: dL1 and IoU to the benign map, of PGD, A and A*
EVASION_COST: Mapping[str, tuple[Pair, Pair, Pair]] = MappingProxyType(
    {"mask": ((0.28, 0.21), (0.09, 0.65), (0.09, 0.61)), "rts": ((0.22, 0.29), (0.01, 0.93), (0.02, 0.94))}
)

# Tables 6 and 8: ASR and MC of ADV2 that wants a patch, and another class's map
PATCH = MappingProxyType(dict(zip(INTERPRETERS, ((1.0, 0.98), (1.0, 1.0), (0.99, 0.95), (1.0, 1.0)), strict=True)))
CLASS = MappingProxyType(dict(zip(INTERPRETERS, ((1.0, 0.99), (1.0, 0.99), (1.0, 0.99), (1.0, 1.0)), strict=True)))

# Table 7: dL1 to the benign and to the target map
PATCH_DISTANCES = MappingProxyType(
    dict(zip(INTERPRETERS, ((0.16, 0.10), (0.50, 0.04), (0.42, 0.15), (0.49, 0.07)), strict=True))
)

# Table 9: dL1 to the benign map; (source, shown by), source None being PGD
TRANSFER: Mapping[tuple[str | None, str], float] = MappingProxyType(
    {
        (source, shown): distance
        for source, distances in {
            "grad": (0.04, 0.24, 0.22, 0.24),
            "cam": (0.09, 0.05, 0.18, 0.13),
            "mask": (0.12, 0.34, 0.09, 0.74),
            "rts": (0.10, 0.17, 0.20, 0.01),
            None: (0.10, 0.22, 0.28, 0.22),
        }.items()
        for shown, distance in zip(INTERPRETERS, distances, strict=True)
    }
)

# Table 10: dL1 of benign maps between RTS and RTS^A, of attacked ones to the own benign map on RTS and on RTS^A
AID_BENIGN, AID_UNDEFENDED, AID_DEFENDED = 0.03, 0.01, 0.10
