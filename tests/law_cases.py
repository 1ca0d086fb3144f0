"""Which pairs of network and interpreter a law is tried on.

@pytest.mark.parametrize(("net", "name"), pairs(NETWORKS, INTERPRETERS))
"""

from collections.abc import Iterable
from typing import Any

import pytest

ON_TRANSFORMERS = (("transformer", "rollout"), ("transformer", "grad-rollout"))


def pairs(networks: Iterable[str], interpreters: Iterable[str]) -> list[Any]:
    """(net, name) of the whole product, all marked `extended` but one network for each interpreter.

    Beside it those that take a transformer, on the one that they can explain.
    Interpreters take networks in turn; with as many interpreters as networks or more, each network has one or more.
    """
    nets, names = list(networks), list(interpreters)
    assert len(names) >= len(nets), "some network would have no interpreter"
    of_any = [
        pytest.param(net, name, id=f"{net}-{name}", marks=[pytest.mark.extended] if (j - i) % len(nets) else [])
        for i, name in enumerate(names)
        for j, net in enumerate(nets)
    ]
    return [*of_any, *(pytest.param(net, name, id=f"{net}-{name}") for net, name in ON_TRANSFORMERS)]
