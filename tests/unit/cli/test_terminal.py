"""What the commands share: image sizes as asked for, else as the weights want them."""

import pytest
from torch import nn

from underfire.cli.terminal import sizes
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
