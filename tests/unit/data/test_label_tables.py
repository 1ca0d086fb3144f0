"""Label tables: three layouts are told apart by their columns, and what is wrong with one is one sentence."""

from pathlib import Path

import pytest
from PIL import Image

from underfire.core.errors import UnderfireError
from underfire.data.image_set import open_images
from underfire.data.label_tables import LabelTable, read_label_table

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos as HAM10000 brings them: names without extension in the table, two folders of files."""
    for name in ("part_1/ISIC_1.jpg", "part_1/ISIC_2.JPG", "part_2/ISIC_3.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name, format="JPEG")
    return tmp_path


def table_of(folder: Path, *lines: str) -> LabelTable:
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return read_label_table(folder / "table.csv", folder)


def test_the_metadata_of_ham10000(folder: Path) -> None:
    table = table_of(
        folder,
        HAM,
        "HAM_7,ISIC_2,nv,histo,80.0,male,scalp",
        "HAM_8,ISIC_1,bkl,consensus,,unknown,back",
        "HAM_7,ISIC_3,nv,histo,80.0,male,scalp",
        "HAM_9,ISIC_4,df,histo,80.0,male,scalp",
    )
    assert table.classes == ("bkl", "df", "nv")
    assert [(e.file, e.label, e.lesion, e.part) for e in table.entries] == [
        ("part_1/ISIC_2.JPG", 2, "HAM_7", ""),
        ("part_1/ISIC_1.jpg", 0, "HAM_8", ""),
        ("part_2/ISIC_3.jpg", 2, "HAM_7", ""),
        ("ISIC_4", 1, "HAM_9", ""),
    ]
    images = open_images(folder, folder / "table.csv")
    assert images.skipped == (("ISIC_4", "the file is missing"),)
    assert images.classes == ("bkl", "df", "nv")
    assert images.groups == ("HAM_7", "HAM_8", "HAM_7")
    assert images.read(2).shape == (3, 4, 4)


def test_the_ground_truth_of_isic_2018(folder: Path) -> None:
    table = table_of(folder, "image,MEL,NV,BCC", "ISIC_1,0.0,1.0,0.0", "ISIC_3,0,0,1", "ISIC_2,1.0,0.0,0.0")
    assert table.classes == ("MEL", "NV", "BCC")
    assert [(e.file, e.label) for e in table.entries] == [
        ("part_1/ISIC_1.jpg", 1),
        ("part_2/ISIC_3.jpg", 2),
        ("part_1/ISIC_2.JPG", 0),
    ]


def test_lesions_and_parts_are_no_classes(folder: Path) -> None:
    table = table_of(folder, "image,lesion_id,MEL,split,NV", "ISIC_1,IL_5,0,val,1")
    (entry,) = table.entries
    assert table.classes == ("MEL", "NV")
    assert (entry.label, entry.lesion, entry.part) == (1, "IL_5", "val")


def test_our_own_layout_takes_class_names_from_dx(folder: Path) -> None:
    lines = ("file,split,dx,class_index,lesion_id", "b.jpg,train,nv,2,L2", "a.jpg,test,mel,0,L1", "c.jpg,test,,4,")
    table = table_of(folder, *lines)
    assert table.classes == ("mel", "1", "nv", "3", "4")
    assert [(e.line, e.file, e.lesion, e.part) for e in table.entries] == [
        (2, "b.jpg", "L2", "train"),
        (3, "a.jpg", "L1", "test"),
        (4, "c.jpg", "", "test"),
    ]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (("image_id,dx", "ISIC_1,"), "line 2 of .* has no dx: every image needs a diagnosis"),
        (("image,NV", "ISIC_1,1"), "has a column image and 1 for classes: it needs two or more"),
        (("image,MEL,NV", "ISIC_1,1,1"), "line 2 of .* has a 1 in 2 columns: one class must have it"),
        (("image,MEL,NV", "ISIC_2,0,1", "ISIC_1,0,0"), "line 3 of .* has a 1 in 0 columns"),
        (("image,MEL,NV", "ISIC_1,0,yes"), "line 2 of .* has NV 'yes': it must be 0 or 1"),
        (("image,MEL,NV", "ISIC_1,0.5,1"), "line 2 of .* has MEL '0.5': it must be 0 or 1"),
        (("image_id,diagnosis", "ISIC_1,nv"), "lacks the column class_index and the column file"),
    ],
)
def test_tables_that_are_refused(folder: Path, lines: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        table_of(folder, *lines)


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "part_2" / "ISIC_1.png")
    with pytest.raises(UnderfireError, match=r"two images ISIC_1, part_1/ISIC_1\.jpg and part_2/ISIC_1\.png: keep one"):
        table_of(folder, "image_id,dx", "ISIC_1,nv")
    assert len(table_of(folder, "image_id,dx", "ISIC_2,nv").entries) == 1


@pytest.mark.parametrize("name", ["../out.jpg", "/etc/out.jpg"])
def test_no_layout_reaches_outside_the_folder(folder: Path, name: str) -> None:
    table_of(folder, "image_id,dx", "ISIC_1,nv", f"{name},mel")
    with pytest.raises(UnderfireError, match=r"line 3 of .*: files must lie inside"):
        open_images(folder, folder / "table.csv")


# ------------------------------------------------------------------ as spreadsheets write them


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_codings_and_line_ends(folder: Path, separator: str, encoding: str, end: str) -> None:
    rows = (
        ("File", " CLASS_INDEX", "Class Name "),
        ("part_1/ISIC_1.jpg", "1", '"naevus, ""mole"""'),
        ("ISIC_3", "0", "é"),
    )
    text = end.join(separator.join(row) for row in rows) + end
    (folder / "table.csv").write_bytes(text.encode(encoding))
    table = read_label_table(folder / "table.csv", folder)
    assert table.classes == ("é", 'naevus, "mole"')
    assert [(e.file, e.label) for e in table.entries] == [("part_1/ISIC_1.jpg", 1), ("part_2/ISIC_3.jpg", 0)]


@pytest.mark.parametrize("name", ["ISIC_1", "part_1/ISIC_1", "part_1/ISIC_1.jpg", "ISIC_1.jpg", "part_1\\ISIC_1.jpg"])
@pytest.mark.parametrize(
    "header", ["file,class_index", "file,class_name", "file,dx", "image_id,dx", "image,MEL,NV", "FILE,Class-Index"]
)
def test_what_a_table_may_call_a_file(folder: Path, header: str, name: str) -> None:
    cells = "0,1" if header.startswith("image,") else "0"
    (entry,) = table_of(folder, header, f" {name} ,{cells}").entries
    assert entry.file == "part_1/ISIC_1.jpg"


def test_a_name_with_extension_is_no_other_file(folder: Path) -> None:
    (entry,) = table_of(folder, "file,class_index", "ISIC_1.png,0").entries
    assert entry.file == "ISIC_1.png"


def test_names_with_points_and_no_extension(folder: Path) -> None:
    Image.new("RGB", (4, 4)).save(folder / "scan.0012.png")
    (entry,) = table_of(folder, "file,class_index", "scan.0012,0").entries
    assert entry.file == "scan.0012.png"


def test_names_in_place_of_indices(folder: Path) -> None:
    table = table_of(folder, "file,class_name", "ISIC_1,dog", "ISIC_2, cat", "ISIC_3,dog ")
    assert table.classes == ("cat", "dog")
    assert [entry.label for entry in table.entries] == [1, 0, 1]
    assert table.by_name


def test_lines_without_content_and_cells_beyond_the_header_that_are_empty(folder: Path) -> None:
    table = table_of(folder, "file;class_index;;", "ISIC_1;1;;", ";;;", "", "ISIC_2;0;;;;")
    assert [entry.line for entry in table.entries] == [2, 5]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (("file,class_index,File", "ISIC_1,0,ISIC_2"), "has the column file twice: keep one"),
        (("file,class_index,class_name", "ISIC_1,0,tench, Tinca"), "line 2 of .* has 4 cells, its header 3: put names"),
        (("file,class_index", "ISIC_1,1000000000"), "a whole number from 0 to 999999"),
        (("file,class_index", "ISIC_1," + "9" * 200_000), "cannot be read as a UTF-8 CSV file: field larger"),
        (("file,class_name", "ISIC_1, "), "line 2 of .* has no class_name: every image needs a class"),
    ],
)
def test_lines_that_are_refused(folder: Path, lines: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UnderfireError, match=complaint):
        table_of(folder, *lines)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "x/" * 3000, ".", "", "..", "C:\\a.png"])
def test_names_that_no_file_can_have(folder: Path, name: str) -> None:
    table_of(folder, "file,class_index", "ISIC_1,0", f"{name},0")
    try:
        images = open_images(folder, folder / "table.csv")
    except UnderfireError:
        return
    assert images.ids == ("part_1/ISIC_1.jpg",)
    assert len(images.skipped) == 1
