"""Networks to train on classes of one's own: the body of the weights, and a head that is drawn anew.

    start = load_with_new_head("torchvision:squeezenet1_1", "DEFAULT", None, ("benign", "malignant"), seed=0)

The head is whatever changes its shape with the number of classes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from underfire.core.errors import UnderfireError
from underfire.models.loading import LoadedNetwork, builder_in, load_network, normalised, with_state

AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only training looks at


def load_with_new_head(
    reference: str, weights: str | None, normalize: str | None, classes: tuple[str, ...], seed: int
) -> LoadedNetwork:
    """A network whose head knows other classes, drawn from the seed; without weights the whole network is drawn.

    A file's function that takes no `num_classes` has no head of its own: all is as it builds it.
    """
    builder = _builder(reference)
    with torch.random.fork_rng(devices=[]):
        start = LoadedNetwork(nn.Identity()) if weights is None else load_network(reference, weights, None)
        torch.default_generator.manual_seed(seed)
        net = builder(num_classes=len(classes))
        wider = builder(num_classes=len(classes) + 1).state_dict()
    state = net.state_dict()
    body = {name for name, value in state.items() if value.shape == wider[name].shape}
    if weights is not None:
        known = start.net.state_dict()
        kept = {
            name: value
            for name, value in known.items()
            if name in body or (name not in state and name.partition(".")[0] not in AUXILIARY)
        }
        with_state(net, {**kept, **{name: state[name] for name in state if name not in body}}, weights)
    return normalised(replace(start, net=net, classes=classes), normalize)


def _builder(reference: str) -> Callable[..., nn.Module]:
    """What makes the network, told `num_classes`."""
    library, _, named = reference.partition(":")
    if library == "torchvision":
        from underfire.models.torchvision import builder_named, variants

        return next(variants(builder_named(named), aux=(False,)))
    if library == "timm":
        from underfire.models.timm import builder_of

        return builder_of(named)
    file, _, name = reference.rpartition(":")
    if file.endswith(".py"):
        return builder_in(Path(file), name)
    raise UnderfireError(
        f"'{reference}' has no head that can be replaced: name a torchvision:NAME, a timm:NAME or a file.py:builder, "
        "or train the model where it was made."
    )
