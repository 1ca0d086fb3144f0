"""What `make test` tries a law on: each interpreter on one network, each network with one interpreter or more."""

from collections import Counter

import pytest

from law_cases import ON_TRANSFORMERS, pairs
from tiny_attacks import INTERPRETERS, OF_TRANSFORMERS
from tiny_networks import NETWORKS, SMOOTH, TRANSFORMERS


@pytest.mark.parametrize("networks", [[*NETWORKS], [*SMOOTH], [*NETWORKS, *SMOOTH]], ids=["relu", "smooth", "all"])
def test_no_interpreter_and_no_network_is_left_to_the_extended_run(networks: list[str]) -> None:
    *cases, rollout, grad_rollout = pairs(networks, INTERPRETERS)
    assert [rollout.values, grad_rollout.values] == [*ON_TRANSFORMERS]
    assert {*ON_TRANSFORMERS} == {(net, name) for net in TRANSFORMERS for name in OF_TRANSFORMERS}
    chosen = [case.values for case in cases if not case.marks]
    assert {case.values for case in cases} == {(net, name) for net in networks for name in INTERPRETERS}
    assert Counter(name for _, name in chosen) == dict.fromkeys(INTERPRETERS, 1)
    assert min(Counter(net for net, _ in chosen)[net] for net in networks) >= 1
