"""The paper's numbers, copied by hand from its tables."""

import pytest

from printed import ALL, numbers
from underfire.studies import paper


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    assert [paper.LOCALISATION[name] for name in ALL] == numbers("43.1% 43.8% 45.2% 34.2%")
    resnet, dense = paper.EFFECTIVENESS["ResNet"], paper.EFFECTIVENESS["DenseNet"]
    assert [resnet["adv2", name] for name in ALL] == [(1, 0.99), (1, 1), (0.98, 0.99), (1, 1)]
    assert {resnet["pgd", name] for name in ALL} == {dense["pgd", name] for name in ALL} == {(1.0, 1.0)}
    assert dense["adv2", "mask"] == (0.96, 0.98)
    for network, attack, place, line in (
        ("ResNet", "pgd", 0, ".10 .22 .28 .22"),
        ("ResNet", "adv2", 0, ".04 .05 .09 .01"),
        ("ResNet", "pgd", 1, ".14 .28 .38 .42"),
        ("ResNet", "adv2", 1, ".07 .06 .16 .06"),
        ("DenseNet", "pgd", 0, ".11 .31 .27 .26"),
        ("DenseNet", "adv2", 0, ".05 .04 .09 .02"),
    ):
        assert [paper.DISTANCES[network][attack, name][place] for name in ALL] == numbers(line)
    assert [paper.SKIN_DISTANCES["pgd", name][0] for name in ALL] == numbers(".19 .25 .23 .15")
    assert [paper.SKIN_DISTANCES["adv2", name][0] for name in ALL] == numbers(".06 .06 .08 .02")
    assert numbers("82.27%") == [paper.SKIN_ACCURACY]


@pytest.mark.parametrize(
    ("squeezer", "line"),
    [
        ("bits:2", "92.3% 84.1% 94.0% 11.7% 29.4%"),
        ("bits:3", "72.7% 89.2% 88.3% 35.9% 13.9%"),
        ("median:3", "97.3% 98.6% 99.0% 16.5% 3.4%"),
        ("nlm:11-3-4", "52.3% 74.7% 75.3% 51.7% 29.4%"),
    ],
)
def test_the_papers_detected_shares(squeezer: str, line: str) -> None:
    order = (("PGD", None), ("A", "mask"), ("A", "rts"), ("A∗", "mask"), ("A∗", "rts"))
    assert [paper.DETECTED[squeezer][each] for each in order] == pytest.approx(numbers(line))


@pytest.mark.parametrize(
    ("name", "architecture", "network"),
    [
        ("torchvision:densenet169", "DenseNet", "DenseNet"),
        ("demo", "Demo", "ResNet"),
        ("mine.py:build", "DenseNetCifar", "DenseNet"),
        ("DenseNet.py:build", "Sequential", "DenseNet"),
        ("densenet.py:resnet", None, "DenseNet"),  # a run folder of 0.1.0
        ("torchvision:resnet50", "ResNet", "ResNet"),
    ],
)
def test_the_papers_network_goes_by_architecture_and_name(name: str, architecture: str | None, network: str) -> None:
    model = {"name": name} if architecture is None else {"name": name, "architecture": architecture}
    assert paper.network_of({"model": model}) == network
    assert paper.network_of({"model": model, "anchors": None}) == network


@pytest.mark.parametrize(("anchors", "network"), [("resnet", "ResNet"), ("densenet", "DenseNet")])
def test_the_papers_network_is_the_one_asked_for(anchors: str, network: str) -> None:
    for name in ("torchvision:densenet169", "torchvision:resnet50"):
        assert paper.network_of({"model": {"name": name, "architecture": name}, "anchors": anchors}) == network
