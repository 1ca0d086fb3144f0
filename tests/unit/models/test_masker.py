"""The masker: oracle 9, each image on its own, and files that hold what was written or are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiny_maskers import WIDTH, masker_file, tiny_masker
from tiny_networks import CLASSES, classifier
from underfire.core.errors import UnderfireError
from underfire.models.classifier import Classifier
from underfire.models.masker import MaskerNetwork, read_masker, share
from underfire.training.loop import initialised

Y = torch.tensor([0, 3, 4])


@pytest.fixture(scope="module")
def model() -> Classifier:
    return classifier("resnet")


def features(n: int, *channels: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, count, 4 * 2**i, 4 * 2**i, generator=generator, dtype=torch.float64).to(dtype)
        for i, count in enumerate(channels)
    ]


def masker(*channels: int, classes: int = CLASSES, **options: Any) -> MaskerNetwork:
    return initialised(lambda: MaskerNetwork(channels, classes, WIDTH, **options), seed=0).requires_grad_(False)


# ------------------------------------------------------------------ network


def test_oracle_9() -> None:
    """a = -1, b = 3; and no mask where neither says anything."""
    x = torch.tensor([[-1.0, 2.0, 0.0], [3.0, -2.0, 0.0]]).view(1, 2, 1, 3)
    torch.testing.assert_close(share(x), torch.tensor([[[0.25, 0.5, 0.0]]]))


@pytest.mark.parametrize("channels", [(6,), (6, 4), (6, 4, 3, 2)])
def test_masks_have_the_grid_asked_for_and_all_of_0_to_1(channels: tuple[int, ...]) -> None:
    masks = masker(*channels)(features(3, *channels), Y, 13, 9)
    assert masks.shape == (3, 13, 9)
    assert 0 <= masks.min() < masks.max() <= 1
    assert masks.flatten(1).std(1).min() > 0.01


def test_sizes_need_not_double() -> None:
    """13, 27 and 55 cells, as in SqueezeNet at 224 pixels."""
    pyramid = [torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(side)) for side in (13, 27, 55)]
    assert masker(4, 4, 4)(pyramid, Y[:1], 56, 56).shape == (1, 56, 56)


def test_selector_is_the_sigmoid_of_the_inner_product() -> None:
    network, (deepest,) = masker(6), features(3, 6, dtype=torch.float64)
    inner = torch.einsum("nc,ncij->nij", network.embedding[Y].double(), deepest)
    torch.testing.assert_close(network.double().select(deepest, Y), torch.sigmoid(inner))


def test_among_many_classes_the_selector_is_closed_unless_a_cell_speaks_up() -> None:
    for classes, expected in ((10, 0.5), (1000, torch.sigmoid(torch.tensor(-6.0)).item())):
        silent = masker(6, classes=classes).select(torch.zeros(1, 6, 2, 2), torch.tensor([1]))
        torch.testing.assert_close(silent, torch.full((1, 2, 2), expected))


def test_only_the_selected_features_reach_the_decoder() -> None:
    """With a selector that is shut for class 0 and open for class 1."""
    network, (deepest,) = masker(6), features(2, 6)
    network.embedding.zero_()
    network.embedding[:2, 0] = torch.tensor([-1000.0, 1000.0])
    deepest[:, 0] = 1
    shut, opened = network([deepest], torch.tensor([0, 1]), 4, 4)
    torch.testing.assert_close(shut, network([torch.zeros(1, 6, 4, 4)], Y[:1], 4, 4)[0])
    entered = network.exit(network.entry(deepest[1:]))
    torch.testing.assert_close(opened, share(entered)[0])


def test_neighbours_change_no_bit() -> None:
    network, pyramid = masker(6, 4).eval(), features(3, 6, 4)
    order = torch.tensor([2, 0, 1])
    masks, reordered = network(pyramid, Y, 8, 8), network([f[order] for f in pyramid], Y[order], 8, 8)
    assert torch.equal(masks[order], reordered)


def test_the_class_decides_what_is_shown() -> None:
    network, (deepest, *rest) = masker(6, 4), features(1, 6, 4)
    one, other = (network([deepest, *rest], torch.tensor([y]), 8, 8) for y in (1, 2))
    assert (one - other).abs().max() > 0.01


def test_features_are_standardised_as_measured() -> None:
    network, (deepest,) = masker(6), [5 + 3 * features(40, 6)[0]]
    network.measure([deepest])
    standard = network.standardise[0](deepest)
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std((0, 2, 3)), torch.ones(6))
    torch.testing.assert_close(network.pool(deepest), standard.mean((2, 3)))


def test_distance_from_the_prototype_of_each_image_s_class() -> None:
    network, (deepest,) = masker(6, prototypes=True), features(3, 6)
    network.prototypes[3] = network.pool(deepest)[1] + 2
    distance = network.prototype_distance(deepest, Y)
    torch.testing.assert_close(distance[1], torch.tensor(4.0))
    torch.testing.assert_close(distance[0], network.pool(deepest)[0].square().mean())


def test_upsampling_begins_without_checkerboards() -> None:
    """The four cells made of one cell are equal."""
    for up in masker(6, 4).up:
        doubled = up(torch.randn(1, WIDTH, 5, 5, generator=torch.Generator().manual_seed(0)))
        torch.testing.assert_close(doubled, doubled[:, :, ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))


# ------------------------------------------------------------------ file


def test_a_file_holds_manifest_and_network_to_the_bit(tmp_path: Path, model: Classifier) -> None:
    manifest, network = tiny_masker(model)
    read = read_masker(masker_file(tmp_path / "masker.safetensors", model))
    assert read.manifest == manifest
    written, held = network.state_dict(), read.network.state_dict()
    assert list(written) == list(held)
    assert all(torch.equal(written[name], held[name]) for name in written)
    assert not read.network.training
    assert not any(p.requires_grad for p in read.network.parameters())


def test_the_digest_is_the_content_s(tmp_path: Path, model: Classifier) -> None:
    paths = [masker_file(tmp_path / f"{i}" / "masker.safetensors", model, seed) for i, seed in enumerate((0, 0, 1))]
    first, again, other = (read_masker(path).digest for path in paths)
    assert first == again != other


def damaged(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], None]) -> Path:
    """The masker of a file with something in its manifest or among its tensors changed."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    manifest, tensors = json.loads(metadata["masker"]), load_file(path)
    change(manifest, tensors)
    save_file(tensors, path, metadata={"masker": json.dumps(manifest)})
    return path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m, t: m.update(format=2), "masker of format 2; this version reads format 1"),
        (lambda m, t: m.pop("classifier"), r"damaged manifest \(classifier: Field required\)"),
        (lambda m, t: m.update(extra=1), r"damaged manifest \(extra"),
        (lambda m, t: m.update(classes=0), r"damaged manifest \(classes"),
        (lambda m, t: m.update(classes=10**12), r"damaged manifest \(classes"),
        (lambda m, t: m.update(classes=10**6), "weights do not fit"),
        (lambda m, t: m.update(width=12), "weights do not fit"),
        (lambda m, t: m["encoder"].update(channels=[]), r"damaged manifest \(encoder"),
        (lambda m, t: m["encoder"].update(channels=[12]), r"damaged manifest \(encoder"),
        (lambda m, t: t.pop("embedding"), "weights do not fit: .*embedding"),
        (lambda m, t: t.update(embedding=t["embedding"][:2]), "weights do not fit: .*embedding"),
        (lambda m, t: t["embedding"].fill_(torch.nan), "not all finite"),
        (lambda m, t: t.update(embedding=t["embedding"].long()), "weights do not fit"),
    ],
)
def test_damage_is_one_sentence(
    tmp_path: Path, model: Classifier, change: Callable[[dict[str, Any], dict[str, Tensor]], None], complaint: str
) -> None:
    path = damaged(masker_file(tmp_path / "masker.safetensors", model), change)
    with pytest.raises(UnderfireError, match=complaint):
        read_masker(path)


def test_no_masker_no_file_no_safetensors(tmp_path: Path) -> None:
    with pytest.raises(UnderfireError, match=r"There is no masker .*train one with: underfire train rts"):
        read_masker(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("not tensors")
    with pytest.raises(UnderfireError, match="cannot be read as a masker"):
        read_masker(text)
    weights = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, weights)
    with pytest.raises(UnderfireError, match="holds tensors but no masker"):
        read_masker(weights)
