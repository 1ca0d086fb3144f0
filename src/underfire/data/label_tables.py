"""Tables that say which image is of which class, in layouts that are told apart by their columns.

    file, class_index [, class_name or dx]      underfire's own
    file, class_name or dx                      the same by name; classes are the sorted names
    image_id, dx                                HAM10000's metadata; classes are the sorted diagnoses
    image, MEL, NV, ...                         ISIC 2018's ground truth; one column per class, 1 where it holds

Each may say by `lesion_id` which photos show the same lesion, and by `split` of which part an image is. Cells are
separated by commas, semicolons or tabs; spaces around them and the case of the column names do not matter. Images that
are named without extension, or lie in a folder that the table does not name, are looked for below the folder.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from underfire.core.errors import UnderfireError
from underfire.data.folders import images_below, is_image

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
    """The images that a table lists, and the name of each class by its index, "7" where class 7 has none.

    Indices that are not the table's own are places among its names.
    """

    entries: tuple[LabelEntry, ...]
    classes: tuple[str, ...]
    by_name: bool


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
        label = row[found[0]]
        if not label.isdecimal() or len(label) > len(str(MOST_CLASSES)) or int(label) >= MOST_CLASSES:
            raise UnderfireError(
                f"line {line} of {table} has {found[0]} {label!r}: "
                f"it must be a whole number from 0 to {MOST_CLASSES - 1}"
            )
        yield line, row["file"], int(label), row


def _rows(table: Path) -> tuple[list[str], list[tuple[int, Cells]]]:
    """The columns, and (line number, row) of a table; cells are stripped, missing ones empty.

    UnderfireError if it is not a table, names a column twice or has a line longer than its header.
    """
    try:
        lines = _lines(_text(table))
    except (OSError, UnicodeError, csv.Error) as problem:
        raise UnderfireError(f"{table} cannot be read as a UTF-8 CSV file: {problem}") from problem
    if not lines:
        return [], []
    header = [_column(name) for name in lines[0][1]]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise UnderfireError(f"{table} has the column {twice[0]} twice: keep one")
    rows = list[tuple[int, Cells]]()
    for line, cells in lines[1:]:
        if any(cells[len(header) :]):
            raise UnderfireError(
                f"line {line} of {table} has {len(cells)} cells, its header {len(header)}: "
                "put names with separators in quotes"
            )
        if any(cells):
            rows.append((line, dict(zip(header, cells + [""] * len(header), strict=False))))
    return header, rows


def _text(table: Path) -> str:
    data = table.read_bytes()
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _lines(text: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of all lines that are not empty, the separator told by the header."""
    separator = max(",;\t", key=lambda each: len(next(csv.reader(text.splitlines()[:1], delimiter=each), ())))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]


def _column(name: str) -> str:
    """A known column whatever its case and spaces, any other as it is written."""
    known = name.lower().replace(" ", "_").replace("-", "_")
    return known if known in _KNOWN else name


# --- layouts ----------------------------------------------------------------------------------

Layout = Callable[[Path, Path, Sequence[str], list[tuple[int, Cells]]], LabelTable]


def _own(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
    files, entries, names = _Files(folder), list[LabelEntry](), dict[int, str]()
    for line, name, label, row in _classes(table, ("class_index",), header, rows):
        entries.append(_entry(line, files.of(name), label, row))
        names[label] = row.get("class_name") or row.get("dx") or str(label)
    classes = tuple(names.get(label, str(label)) for label in range(max(names, default=-1) + 1))
    return LabelTable(tuple(entries), classes, by_name=False)


def _by_name(file: str, name: str) -> Layout:
    """The layout whose columns are those of the file and of the class's name."""

    def read(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
        if nameless := [line for line, row in rows if not row[name]]:
            wanted = "diagnosis" if name == "dx" else "class"
            raise UnderfireError(f"line {nameless[0]} of {table} has no {name}: every image needs a {wanted}")
        place = {each: i for i, each in enumerate(sorted({row[name] for _, row in rows}))}
        files = _Files(folder)
        entries = (_entry(line, files.of(row[file]), place[row[name]], row) for line, row in rows)
        return LabelTable(tuple(entries), tuple(place), by_name=True)

    return read


def _one_hot(table: Path, folder: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> LabelTable:
    classes = [name for name in header if name not in ("", "image", "lesion_id", "split")]
    if len(classes) < 2:
        raise UnderfireError(f"{table} has a column image and {len(classes)} for classes: it needs two or more")
    files, entries = _Files(folder), list[LabelEntry]()
    for line, row in rows:
        marked = [i for i, name in enumerate(classes) if _is_marked(table, line, name, row[name])]
        if len(marked) != 1:
            raise UnderfireError(f"line {line} of {table} has a 1 in {len(marked)} columns: one class must have it")
        entries.append(_entry(line, files.of(row["image"]), marked[0], row))
    return LabelTable(tuple(entries), tuple(classes), by_name=True)


_LAYOUTS: Mapping[tuple[str, ...], Layout] = {
    ("file", "class_index"): _own,
    ("image_id", "dx"): _by_name("image_id", "dx"),
    ("file", "class_name"): _by_name("file", "class_name"),
    ("file", "dx"): _by_name("file", "dx"),
    ("image",): _one_hot,
}
_KNOWN = frozenset(name for columns in _LAYOUTS for name in columns) | {"target", "lesion_id", "split"}


def _entry(line: int, file: str, label: int, row: Cells) -> LabelEntry:
    return LabelEntry(line, file, label, row.get("lesion_id", ""), row.get("split", ""))


def _is_marked(table: Path, line: int, column: str, cell: str) -> bool:
    try:
        return {0.0: False, 1.0: True}[float(cell)]
    except (ValueError, KeyError):
        raise UnderfireError(f"line {line} of {table} has {column} {cell!r}: it must be 0 or 1") from None


class _Files:
    """The image files below a folder by what a table may call them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, name: str) -> str:
        """The file of that name as it stands, else the one below the folder, else the name itself."""
        if _is_file(self.folder / name):
            return name
        name = name.replace("\\", "/")
        found = self._by_name.get(PurePosixPath(name).as_posix(), [name])
        if len(found) > 1:
            raise UnderfireError(f"{self.folder} holds two images {name}, {found[0]} and {found[1]}: keep one")
        return found[0]

    @cached_property
    def _by_name(self) -> Mapping[str, list[str]]:
        """Files by path and by name, each with extension and without."""
        found: dict[str, list[str]] = {}
        for file in images_below(self.folder).images:
            path = PurePosixPath(file)
            for called in {file, path.name, path.with_suffix("").as_posix(), path.stem}:
                found.setdefault(called, []).append(file)
        return found


def _is_file(path: Path) -> bool:
    """Whether there is a file of that name that can be an image by its ending; False for names that none can have."""
    try:
        return is_image(path.name) and path.is_file()
    except (OSError, ValueError):
        return False
