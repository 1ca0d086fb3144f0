"""Folders and diagnoses mean the classifier's classes by name; what means none of them is refused, never renumbered."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from underfire.core.errors import UnderfireError
from underfire.data.class_names import (
    ClassNames,
    for_classifier,
    imagenet_names,
    imagenet_wnids,
    shortened,
    with_classes_of,
)
from underfire.data.image_set import ImageSet, Numbering, open_images
from underfire.models.classifier import Classifier
from underfire.models.loading import LoadedNetwork

SKIN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


class Outputs(nn.Module):
    """So many logits, all alike."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None].expand(-1, self.count)


def classifier_of(count: int, names: tuple[str, ...] = ()) -> Classifier:
    classifier = Classifier(Outputs(count))
    classifier.origin = LoadedNetwork(classifier.network, classes=names)
    return classifier


def folders(root: Path, *names: str) -> ImageSet:
    """One image in a subfolder of each name."""
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / name / "a.png")
    return open_images(root)


def table(root: Path, *lines: str) -> ImageSet:
    """As many images as the table has lines."""
    for i in range(len(lines) - 1):
        Image.new("RGB", (4, 4)).save(root / f"{i}.png")
    (root / "labels.csv").write_text("\n".join(lines))
    return open_images(root)


# ------------------------------------------------------------------ names


def test_the_table_of_wordnet_ids_is_that_of_the_photos(testbed: Path) -> None:
    lines = [line.split(",")[1:3] for line in (testbed / "imagenet" / "labels.csv").read_text().splitlines()[1:]]
    assert {wnid: int(index) for index, wnid in lines} == imagenet_wnids()
    assert len(imagenet_names()) == len(imagenet_wnids()) == 1000


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("tench", 0),
        ("English springer", 217),
        ("english_springer", 217),
        ("English-Springer", 217),
        ("EnglishSpringer", 217),
        (" garbage truck ", 569),
        ("n03417042", 569),
        ("n02085620-Chihuahua", 151),
        ("tench, Tinca tinca", 0),
        ("cardigan", 474),
        ("Cardigan", 264),
        ("n99999999", None),
        ("unicorn", None),
        ("", None),
    ],
)
def test_names_of_imagenet(name: str, index: int | None) -> None:
    assert ClassNames(imagenet_names()).index(name) == index


def test_every_class_of_imagenet_is_found_by_each_of_its_names() -> None:
    names = ClassNames(imagenet_names())
    assert [names.index(name) for name in imagenet_names()] == list(range(1000))
    assert [names.index(name) for name in imagenet_wnids()] == list(range(1000))


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("NV", 5),
        ("Melanocytic nevi", 5),
        ("melanoma", 4),
        ("Basal_cell_carcinoma", 1),
        ("Bowen's disease", 0),
        ("vascular lesions", 6),
        ("Benign keratosis-like lesions", 2),
    ],
)
def test_diagnoses_of_ham10000(name: str, index: int) -> None:
    assert ClassNames(SKIN).index(name) == index


def test_a_name_that_two_classes_have_means_neither() -> None:
    assert ClassNames(("Crane", "crane ", "heron")).index("CRANE") is None
    assert ClassNames(("Crane", "crane", "heron")).index("crane") == 1


# ------------------------------------------------------------------ folders and tables


def test_a_class_without_photos_moves_no_other(tmp_path: Path) -> None:
    images = with_classes_of(folders(tmp_path, "BCC", "bkl", "Melanoma", "nv"), SKIN, 7)
    assert images.labels.tolist() == [1, 4, 2, 5]  # in the order of the folders' names
    assert images.classes == SKIN
    assert images.numbering is Numbering.MATCHED


@pytest.mark.parametrize("names", [(), imagenet_names()])
def test_wordnet_ids_are_classes_of_imagenet(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = folders(tmp_path, "n01440764", "n02102040", "n03888257")
    related = for_classifier(images, classifier_of(1000, names))
    assert related.labels.tolist() == [0, 217, 701]
    assert related.classes == imagenet_names()


def test_wordnet_ids_are_found_by_the_names_of_a_smaller_classifier(tmp_path: Path) -> None:
    images = folders(tmp_path, "n01440764", "n03888257")
    assert with_classes_of(images, ("parachute", "tench", "church"), 3).labels.tolist() == [1, 0]
    assert with_classes_of(folders(tmp_path / "b", "church"), ("n03028079", "n01440764"), 2).labels.tolist() == [0]


def test_the_columns_of_isic_are_found_in_another_order(tmp_path: Path) -> None:
    images = table(tmp_path, "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC,UNK", "0,1,0,0,0,0,0,0,0", "1,0,0,0,1,0,0,0,0")
    assert with_classes_of(images, SKIN, 7).labels.tolist() == [4, 0]


def test_spaces_around_a_diagnosis_are_no_part_of_it(tmp_path: Path) -> None:
    images = table(tmp_path, "image_id;dx", " 0 ; nv", "1;nv ", '2;" mel "')
    assert images.classes == ("mel", "nv")
    assert with_classes_of(images, SKIN, 7).labels.tolist() == [5, 5, 4]


def test_numbers_as_folder_names_are_in_their_own_order(tmp_path: Path) -> None:
    images = folders(tmp_path, *map(str, range(11)))
    assert images.classes == tuple(map(str, range(11)))
    assert dict(zip(images.ids, images.labels.tolist(), strict=True)) == {f"{i}/a.png": i for i in range(11)}


@pytest.mark.parametrize("names", [(), imagenet_names()])
def test_numbers_that_fit_are_class_indices(tmp_path: Path, names: tuple[str, ...]) -> None:
    images = with_classes_of(folders(tmp_path, "0", "2", "217"), names, 1000)
    assert sorted(images.labels.tolist()) == [0, 2, 217]
    assert images.numbering is Numbering.INDICES
    assert len(images.classes) == 1000


def test_numbers_from_one_are_counted_where_they_are_as_many_as_outputs(tmp_path: Path) -> None:
    images = with_classes_of(folders(tmp_path, "1", "2", "3"), (), 3)
    assert images.labels.tolist() == [0, 1, 2]
    assert images.numbering is Numbering.SORTED
    with pytest.raises(UnderfireError, match=r"3 classes \(1, 2, 3\), the classifier knows 2"):
        with_classes_of(images, (), 2)


def test_unknown_names_keep_their_order_where_there_are_as_many_as_outputs(tmp_path: Path) -> None:
    images = for_classifier(folders(tmp_path, "blue", "green", "red"), classifier_of(3))
    assert images.labels.tolist() == [0, 1, 2]
    assert images.classes == ("blue", "green", "red")
    assert images.numbering is Numbering.SORTED


@pytest.mark.parametrize(
    ("names", "count", "complaint"),
    [
        ((), 7, r"of 2 classes \(mel, moles\), the classifier knows 7 \(it brings no names\): name folders"),
        (SKIN, 7, r"knows 7 \(akiec, bcc, .*\); it does not know moles: name folders or diagnoses as the classifier"),
        (("mel", "nv"), 2, "it does not know moles"),
        ((), 1000, "the classifier knows 1000"),
        (imagenet_names(), 1000, r"knows 1000 \(tench, .* and 992 more\)"),
    ],
)
def test_names_that_do_not_belong_to_the_classifier(
    tmp_path: Path, names: tuple[str, ...], count: int, complaint: str
) -> None:
    images = folders(tmp_path, "mel", "moles")
    with pytest.raises(UnderfireError, match=complaint):
        for_classifier(images, classifier_of(count, names))


# ------------------------------------------------------------------ stated indices


def test_stated_indices_stand_and_take_the_names_of_the_weights(tmp_path: Path) -> None:
    images = table(tmp_path, "file,class_index,class_name", "0.png,5,", "1.png,1,carcinoma")
    related = with_classes_of(images, SKIN, 7)
    assert related.labels.tolist() == [5, 1]
    assert related.classes == ("akiec", "carcinoma", "bkl", "df", "mel", "nv", "vasc")
    assert related.numbering is Numbering.STATED


def test_stated_indices_of_another_numbering_give_way_to_names(tmp_path: Path) -> None:
    images = table(
        tmp_path, "file,class_index,class_name", "0.png,0,tench", "1.png,1,English springer", "2.png,2,church"
    )
    related = with_classes_of(images, imagenet_names(), 1000)
    assert related.labels.tolist() == [0, 217, 497]
    assert related.numbering is Numbering.MATCHED


def test_stated_indices_that_contradict_their_names_are_refused(tmp_path: Path) -> None:
    images = table(tmp_path, "file,class_index,class_name", "0.png,0,mel", "1.png,1,nv", "2.png,2,strange")
    with pytest.raises(UnderfireError, match="class 0 the name mel, which is class 4 of the classifier"):
        with_classes_of(images, SKIN, 7)


def test_stated_indices_beyond_the_outputs_are_refused(tmp_path: Path) -> None:
    images = table(tmp_path, "file,class_index", "0.png,999999")
    with pytest.raises(UnderfireError, match="go up to 999999, but the classifier knows classes 0 to 6"):
        with_classes_of(images, SKIN, 7)


def test_the_photos_of_imagenet_keep_their_indices(testbed: Path) -> None:
    images = open_images(testbed / "imagenet")
    related = with_classes_of(images, imagenet_names(), 1000)
    assert torch.equal(related.labels, images.labels)
    named = replace(images, numbering=Numbering.SORTED).take([i for i in range(1000) if images.classes[i] != "crane"])
    assert torch.equal(with_classes_of(named, imagenet_names(), 1000).labels, named.labels)


# ------------------------------------------------------------------ the classifier


def test_the_number_of_outputs_is_told_by_the_first_image_that_can_be_read(tmp_path: Path) -> None:
    images = folders(tmp_path, "a", "b", "c")
    (tmp_path / "a" / "a.png").write_bytes(b"damaged")
    with pytest.raises(UnderfireError, match="the classifier knows 4"):
        for_classifier(images, classifier_of(4))


def test_a_set_of_which_nothing_can_be_read_is_left_to_the_selection(tmp_path: Path) -> None:
    images = folders(tmp_path, "a")
    (tmp_path / "a" / "a.png").write_bytes(b"damaged")
    assert for_classifier(images, classifier_of(4)) is images


def test_lists_are_shortened() -> None:
    assert shortened("abc") == "a, b, c"
    assert shortened(str(i) for i in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
