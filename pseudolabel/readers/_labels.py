"""Image-level labels as files give them: a csv, lists of numbers, VOC's XML."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from pseudolabel.errors import DataError
from pseudolabel.readers._files import read_lines, read_text
from pseudolabel.records import BACKGROUND, LabelSpace, nearest

KEYS = ("id", "file", "image")
LABELS = ("labels", "label", "tags", "classes")
BETWEEN = (";", "|", ",")  # what may stand between names; blanks where none of these does


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a label file.

    Attributes:
        number: in the file, from 1.
        key: the image's id or file as written.
        names: class names as written, in the order of the line, none twice.
        split: what the column `split` says, or None where there is no such column.
    """

    number: int
    key: str
    names: tuple[str, ...]
    split: str | None = None


def read_csv(path: Path, known: Collection[str] | None = None) -> list[Line]:
    """Labels from a csv with a header: a column id, file or image, a column labels, perhaps split.

    Columns are parted by comma, semicolon or tab, names by `;`, `|`, `,` or blanks: what the file
    uses. Names that run over past the last column belong to it, if that is the column of labels.

    Args:
        path: the file.
        known: class names, so that a name with a blank in it is known as one.

    Raises:
        DataError: missing file, no such header, a line with another number of fields, mixed separators.
    """
    text = read_text(path)
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((start, [field.strip() for field in fields]))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: is not csv ({error}); check the quotes") from error
    if not rows:
        raise DataError(f"{path}:1: no header, the file is empty; name the columns, such as 'id,labels'")
    first, header = rows[0]
    columns = [name.casefold() for name in header]
    key, labels = _column(columns, KEYS), _column(columns, LABELS)
    if key is None or labels is None:
        raise DataError(f"{path}:{first}: {_lacking(header, key, labels)}")
    split = columns.index("split") if "split" in columns else None
    fields_of = [_fields_of(path, number, fields, columns, labels, delimiter) for number, fields in rows[1:]]
    between = next((sign for sign in BETWEEN if any(sign in fields[labels] for fields in fields_of)), None)
    return [
        Line(
            number,
            fields[key],
            _names(fields[labels], between, known, f"{path}:{number}"),
            None if split is None else fields[split],
        )
        for (number, _), fields in zip(rows[1:], fields_of, strict=True)
    ]


def has_header(path: Path) -> bool:
    """Whether a file begins like a csv of labels.

    Raises:
        DataError: missing file.
    """
    text = read_text(path)
    columns = [name.strip().casefold() for name in _first_line(text).split(_delimiter(text))]
    return _column(columns, KEYS) is not None and _column(columns, LABELS) is not None


def _delimiter(text: str) -> str:
    return max(",;\t", key=_first_line(text).count)


def _first_line(text: str) -> str:
    """The first line that is not empty: the header, if there is one."""
    return next((line for line in text.splitlines() if line.strip()), "")


def _lacking(header: list[str], key: int | None, labels: int | None) -> str:
    """What a first line lacks to be the header of a csv of labels."""
    shown = ",".join(header)
    if key is None and labels is None:
        return (
            f"no header; the first line must name the columns, such as 'id,labels', and it is {shown!r}: no "
            f"column {_either(KEYS)}, none {_either(LABELS)}"
        )
    names, what = (KEYS, "the image") if key is None else (LABELS, "the labels")
    return f"the header {shown!r} has no column of {what}; name it {_either(names)}"


def _either(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _column(columns: list[str], names: tuple[str, ...]) -> int | None:
    return next((columns.index(name) for name in names if name in columns), None)


def _fields_of(
    path: Path, number: int, fields: list[str], columns: list[str], labels: int, delimiter: str
) -> list[str]:
    """The fields of a row, one a column."""
    if len(fields) > len(columns) and labels == len(columns) - 1:
        rest = delimiter.join(field for field in fields[labels:] if field)
        return [*fields[:labels], rest.replace("\t", ";")]
    if len(fields) != len(columns):
        raise DataError(
            f"{path}:{number}: {len(fields)} fields where the header has {len(columns)}; "
            "put quotes round a field that holds a separator"
        )
    return fields


def _names(field: str, between: str | None, known: Collection[str] | None, where: str) -> tuple[str, ...]:
    if known is not None and field in known:
        return (field,)
    names = [name.strip() for name in field.split(between)]
    for name in names:
        if any(sign in name for sign in BETWEEN):
            raise DataError(f"{where}: elsewhere {between!r} parts the names; write {name!r} the same way")
    return tuple(dict.fromkeys(name for name in names if name))


def read_numbers(path: Path, space: LabelSpace) -> list[Line]:
    """Labels from lines `id c c ...` with numbers from 0 for the first class after the background.

    Raises:
        DataError: missing file, something that is no class number.
    """
    lines = []
    for number, line in read_lines(path):
        key, *classes = line.split()
        names = []
        for text in classes:
            if not (text.isascii() and text.isdecimal() and int(text) < space.foreground):
                raise DataError(
                    f"{path}:{number}: {text!r} is not a class number 0..{space.foreground - 1}; "
                    "0 is the first class after the background"
                )
            names.append(space.names[int(text) + 1])
        lines.append(Line(number, key, tuple(dict.fromkeys(names))))
    return lines


def read_annotation(path: Path) -> tuple[str, ...]:
    """Names of the objects in a VOC annotation, difficult ones too, as IRN and others count them.

    Raises:
        DataError: missing file, no XML, or one that declares entities.
    """
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: declares entities, which annotations do not need; remove them")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: is not XML ({error}); make it again") from error
    names = [(item.findtext("name") or "").strip() for item in root.iter("object")]
    if "" in names:
        raise DataError(f"{path}: an object has no name; give it one or remove it")
    return tuple(dict.fromkeys(names))


def ids_of(names: Iterable[str], space: LabelSpace, where: str) -> tuple[int, ...]:
    """Class ids in ascending order.

    Raises:
        DataError: a name is not in the class list, or it is the background's.
    """
    ids = set()
    for name in names:
        if name not in space.names:
            raise DataError(f"{where}: {name!r} is not in the class list; {nearest(name, space.names[1:])}")
        index = space.names.index(name)
        if index == BACKGROUND:
            raise DataError(
                f"{where}: {name!r} is the background, the first name of the class list; "
                "put 'background' before it or remove the label"
            )
        ids.add(index)
    return tuple(sorted(ids))
