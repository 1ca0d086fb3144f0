"""Tables that say which image is of which class, in three layouts that are told apart by their columns.

    file, class_index [, class_name or dx]      underfire's own
    image_id, dx                                HAM10000's metadata; classes are the sorted diagnoses
    image, MEL, NV, ...                         ISIC 2018's ground truth; one column per class, 1 where it holds

Each may say by `lesion_id` which photos show the same lesion, and by `split` of which part an image is. Images that are
named without extension are looked for below the folder.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from underfire.core.types import UnderfireError

MOST_CLASSES = 1_000_000

Cells = Mapping[str, str]


@dataclass(frozen=True)
class LabelEntry:
    """One image of a table; lesion and part are empty where the table does not say them."""

    line: int
    file: str
    label: int
    lesion: str
    part: str


@dataclass(frozen=True)
class LabelTable:
    """The images that a table lists, and the name of each class by its index, "7" where class 7 has none."""

    entries: tuple[LabelEntry, ...]
    classes: tuple[str, ...]


def read_label_table(table: Path, folder: Path) -> LabelTable:
    """What a table says of the images in a folder; UnderfireError if it is of no known layout or a cell is wrong."""
    header, rows = _rows(table)
    for columns, read in _LAYOUTS.items():
        if all(name in header for name in columns):
            return read(table, folder, header, rows)
    return _own(table, folder, header, rows)


def read_class_table(table: Path, *columns: str) -> Iterator[tuple[int, str, int, Cells]]:
    """(line number, file, class, row) of a CSV; the class is in the first of `columns` that the table has.

    UnderfireError if a column or a class is missing.
    """
    yield from _classes(table, columns, *_rows(table))


def _classes(
    table: Path, columns: Sequence[str], header: Sequence[str], rows: list[tuple[int, Cells]]
) -> Iterator[tuple[int, str, int, Cells]]:
    found = [name for name in columns if name in header]
    missing = [] if found else [" or ".join(columns)]
    missing += [] if "file" in header else ["file"]
    if missing:
        raise UnderfireError(f"{table} lacks the column {' and the column '.join(missing)}")
    for line, row in rows:
        label = row[found[0]].strip()
        if not label.isdecimal() or len(label) > len(str(MOST_CLASSES)) or int(label) >= MOST_CLASSES:
            raise UnderfireError(
                f"line {line} of {table} has {found[0]} {label!r}: "
                f"it must be a whole number from 0 to {MOST_CLASSES - 1}"
            )
        yield line, row["file"], int(label), row


def _rows(table: Path) -> tuple[list[str], list[tuple[int, Cells]]]:
    """The columns, and (line number, row) of a CSV in UTF-8; missing cells are empty."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, restval="")
            return list(reader.fieldnames or ()), [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise UnderfireError(f"{table} cannot be read as a UTF-8 CSV file: {problem}") from problem


# --- layouts ----------------------------------------------------------------------------------

Layout = Callable[[Path, Path, Sequence[str], list[tuple[int, Cells]]], LabelTable]


def _own(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
    entries, names = list[LabelEntry](), dict[int, str]()
    for line, name, label, row in _classes(table, ("class_index",), header, rows):
        entries.append(_entry(line, name, label, row))
        names[label] = row.get("class_name") or row.get("dx") or str(label)
    classes = tuple(names.get(label, str(label)) for label in range(max(names, default=-1) + 1))
    return LabelTable(tuple(entries), classes)


def _by_diagnosis(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
    classes = sorted({row["dx"] for _, row in rows})
    if "" in classes:
        line = next(line for line, row in rows if not row["dx"])
        raise UnderfireError(f"line {line} of {table} has no dx: every image needs a diagnosis")
    files = _Files(folder)
    entries = (_entry(line, files.of(row["image_id"]), classes.index(row["dx"]), row) for line, row in rows)
    return LabelTable(tuple(entries), tuple(classes))


def _one_hot(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
    classes = [name for name in header if name not in ("image", "lesion_id", "split")]
    if len(classes) < 2:
        raise UnderfireError(f"{table} has a column image and {len(classes)} for classes: it needs two or more")
    files, entries = _Files(folder), list[LabelEntry]()
    for line, row in rows:
        marked = [i for i, name in enumerate(classes) if _is_marked(table, line, name, row[name])]
        if len(marked) != 1:
            raise UnderfireError(f"line {line} of {table} has a 1 in {len(marked)} columns: one class must have it")
        entries.append(_entry(line, files.of(row["image"]), marked[0], row))
    return LabelTable(tuple(entries), tuple(classes))


_LAYOUTS: Mapping[tuple[str, ...], Layout] = {
    ("file", "class_index"): _own,
    ("image_id", "dx"): _by_diagnosis,
    ("image",): _one_hot,
}


def _entry(line: int, file: str, label: int, row: Cells) -> LabelEntry:
    return LabelEntry(line, file, label, row.get("lesion_id", "").strip(), row.get("split", "").strip())


def _is_marked(table: Path, line: int, column: str, cell: str) -> bool:
    try:
        return {0.0: False, 1.0: True}[float(cell)]
    except (ValueError, KeyError):
        raise UnderfireError(f"line {line} of {table} has {column} {cell!r}: it must be 0 or 1") from None


class _Files:
    """The image files below a folder by their names without extension."""

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets.folder import IMG_EXTENSIONS

        self.folder = folder
        self.found: dict[str, list[str]] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMG_EXTENSIONS:
                self.found.setdefault(path.stem, []).append(path.relative_to(folder).as_posix())

    def of(self, name: str) -> str:
        """The file of that name, which is the name itself where there is none."""
        found = self.found.get(name, [name])
        if len(found) > 1:
            raise UnderfireError(f"{self.folder} holds two images {name}, {found[0]} and {found[1]}: keep one")
        return found[0]
