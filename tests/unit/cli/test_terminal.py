"""What the commands share: image sizes as asked for, else as the weights want them, and budgets as they are typed."""

import pytest
from torch import nn

from underfire.cli.terminal import budget_in, sizes
from underfire.core.types import UnderfireError
from underfire.models.loading import LoadedNetwork


@pytest.mark.parametrize(
    ("wanted", "asked", "expected"),
    [
        ((224, 256), (None, None), (224, 256)),
        ((224, 256), (None, 300), (224, 300)),
        ((224, 256), (100, None), (100, None)),
        ((None, 48), (None, None), (None, 48)),
        ((None, None), (None, 300), (None, 300)),
    ],
)
def test_sizes(wanted: tuple[int | None, ...], asked: tuple[int | None, ...], expected: tuple[int | None, ...]) -> None:
    crop, resize = wanted
    assert sizes(LoadedNetwork(nn.Identity(), crop=crop, resize=resize), *asked) == expected
    assert sizes(None, *asked) == asked


@pytest.mark.parametrize(
    ("text", "budget"),
    [(None, None), ("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.031", 0.031), ("1e-2", 0.01), ("2", 2)],
)
def test_a_budget_is_a_fraction_or_a_number(text: str | None, budget: float | None) -> None:
    assert budget_in(text) == budget


@pytest.mark.parametrize("text", ["", "eight", "8/0", "8/255/2", "8/", "/255", "8 255"])
def test_any_other_budget_is_refused(text: str) -> None:
    with pytest.raises(UnderfireError, match=f"^--eps {text} is no number; write it like 8/255 or 0.031.$"):
        budget_in(text)
