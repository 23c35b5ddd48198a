"""A folder of images and a table of tags: a csv, or lines `id c c` with class numbers.

Needs no ground truth and no layout. An image is named by its id or by its file; the id is the file's
name without folder and suffix, always text.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pseudolabel.errors import DataError
from pseudolabel.readers import _files, _labels
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.registry import Parameters, component, parameter


class Table(Parameters):
    """Where the images lie and which file labels them."""

    root: str = parameter(help="folder that the other paths start from")
    labels: str = parameter(
        help="csv with a header (id, file or image; labels; perhaps split), or .txt of `id c c`; in root"
    )
    images: str = parameter(".", help="folder of the images, in root")
    split: str | None = parameter(None, help="lines whose column `split` says this; null takes every line")
    classes: str | None = parameter(
        None, help="class list, background first, in root; null takes the names found, in alphabetical order"
    )
    masks: str | None = parameter(None, help="folder of `<id>.png` with ground truth, in root")
    missing: Literal["refuse", "skip"] = parameter(
        "refuse", help="what becomes of lines without an image and of images without a line"
    )
    empty: Literal["refuse", "background"] = parameter("refuse", help="what a line without labels means")


@component(Table)
def table(params: Table) -> Dataset:
    """Read tagged images in the order of the table.

    Raises:
        DataError: a file, an image or a label is missing or does not fit; place and remedy are named.
    """
    root = Path(params.root).expanduser()
    folder, path = _files.below(root, params.images), _files.below(root, params.labels)
    masks = None if params.masks is None else _files.below(root, params.masks)
    for place in (root, folder, masks):
        if place is not None and not place.is_dir():
            raise DataError(f"{place}: there is no such folder; check the path")
    space = None if params.classes is None else LabelSpace.read(_files.below(root, params.classes))
    lines = _read(path, space)
    if space is None:
        space = _space_of(lines, path)
    images = _Folder(folder, root)
    chosen: list[tuple[_labels.Line, str, Path]] = []
    lost: list[_labels.Line] = []
    named: set[Path] = set()
    for line in lines:
        image = images.find(line.key, f"{path}:{line.number}")
        if image is None:
            lost.append(line)
            continue
        named.add(image)
        chosen.append((line, _files.stem(image.name), image))
    bare = [] if params.missing == "skip" else [name for name in images.names() if folder / name not in named]
    if lost and params.missing == "refuse":
        raise DataError(
            f"{path}:{lost[0].number}: no image {lost[0].key!r} in {folder} "
            f"({len(lost)} of {len(lines)} lines have none); add them, or say `missing: skip`"
        )
    if bare:
        raise DataError(
            f"{path}: no line for {_files.some(bare)} ({len(bare)} images in {folder} have none); "
            "add lines, or say `missing: skip`"
        )
    chosen = _once(chosen, path)
    if params.split is not None:
        chosen = _of_split(chosen, params.split, path)
    if not chosen:
        raise DataError(f"{path}: no image is left; check `images` and the lines")
    return Dataset(
        tuple(_record(line, name, image, masks, params, space, path) for line, name, image in chosen),
        space,
        labels_from=_form(path),
    )


class _Folder:
    """The images of a folder by name and by id; listed once, and only when first asked."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self._ids: dict[str, list[str]] | None = None

    def ids(self) -> dict[str, list[str]]:
        """File names by id."""
        if self._ids is None:
            self._ids = {}
            for name in sorted(os.listdir(self.folder)):
                if name.lower().endswith(_files.SUFFIXES) and not name.startswith("."):
                    self._ids.setdefault(_files.stem(name), []).append(name)
        return self._ids

    def names(self) -> list[str]:
        """All images."""
        return [name for group in self.ids().values() for name in group]

    def find(self, key: str, where: str) -> Path | None:
        """The image that a line names, by file or by id, or None.

        Raises:
            DataError: the path leaves the folder, or two files have this id.
        """
        place = PurePosixPath(key.replace("\\", "/"))
        if not key or "\0" in key or place.is_absolute() or ".." in place.parts or place.parts[0][1:2] == ":":
            raise DataError(f"{where}: {key!r} leaves {self.folder}; name a file in it")
        name = place.name
        if name.lower().endswith(_files.SUFFIXES):
            _files.check_id(_files.stem(name), where)
            file = _files.find(self.folder / place.parent, name, self.root, where)
            if file is not None:
                return self._inside(file, where)
        if len(place.parts) > 1:
            file = _files.find_image(self.folder / place.parent, name, self.root, where)
            return None if file is None else self._inside(file, where)
        _files.check_id(name, where)
        files = self.ids().get(name, [])
        if len(files) > 1:
            raise DataError(f"{where}: {key!r} may be {' or '.join(files)}; write the file's whole name")
        return _files.find(self.folder, files[0], self.root, where) if files else None

    def _inside(self, file: Path, where: str) -> Path:
        """A file found below a subfolder, which may be a link."""
        home = os.path.realpath(self.root)
        if file.parent != self.folder and os.path.commonpath((home, os.path.realpath(file))) != home:
            raise DataError(f"{where}: {file} leaves {self.root} through a link; put the file itself there")
        return file


def _form(path: Path) -> str:
    """`csv`, or `txt` for a list of numbers: a .txt without the header of a csv."""
    return "csv" if path.suffix.lower() != ".txt" or _labels.has_header(path) else "txt"


def _read(path: Path, space: LabelSpace | None) -> list[_labels.Line]:
    """Lines of a csv, or of a list of numbers."""
    if _form(path) == "csv":
        lines = _labels.read_csv(path, None if space is None else space.names)
    elif space is None:
        raise DataError(f"{path}: a list of class numbers needs `classes`, a file with their names")
    else:
        lines = _labels.read_numbers(path, space)
    if not lines:
        raise DataError(f"{path}: there are no lines below the header; add a line an image")
    return lines


def _space_of(lines: Sequence[_labels.Line], path: Path) -> LabelSpace:
    """The names of a table as its classes."""
    first: dict[str, tuple[str, int]] = {}
    for line in lines:
        for name in line.names:
            other, number = first.setdefault(name.casefold(), (name, line.number))
            if other != name:
                raise DataError(
                    f"{path}:{line.number}: {name!r} is {other!r} in line {number}; write one of them"
                )
    if "background" in first:
        raise DataError(
            f"{path}:{first['background'][1]}: 'background' is no label; leave the labels empty and say "
            "`empty: background`"
        )
    if not first:
        raise DataError(f"{path}: no line has a label; nothing can be learnt from it")
    return LabelSpace(("background", *sorted(name for name, _ in first.values())))


Chosen = tuple[_labels.Line, str, Path]


def _once(chosen: Sequence[Chosen], path: Path) -> list[Chosen]:
    """Each image once; a line that says the same again is dropped, another one is refused."""
    by_file: dict[Path, _labels.Line] = {}
    kept = []
    for line, name, image in chosen:
        other = by_file.setdefault(image, line)
        if other is line:
            kept.append((line, name, image))
        elif (set(other.names), other.split) != (set(line.names), line.split):
            raise DataError(
                f"{path}:{line.number}: {line.key!r} has other labels in line {other.number}; keep one"
            )
    _files.check_apart([(name, f"{path}:{line.number}") for line, name, _ in kept])
    return kept


def _of_split(chosen: Sequence[Chosen], split: str, path: Path) -> list[Chosen]:
    splits = sorted({line.split for line, _, _ in chosen if line.split is not None})
    if not splits:
        raise DataError(f"{path}:1: has no column 'split'; add one, or leave `split` out to take every line")
    if split not in splits:
        raise DataError(f"{path}: no line has split {split!r}; there are {_files.some(splits, 10)}")
    return [entry for entry in chosen if entry[0].split == split]


def _record(
    line: _labels.Line,
    name: str,
    image: Path,
    masks: Path | None,
    params: Table,
    space: LabelSpace,
    path: Path,
) -> ImageRecord:
    where = f"{path}:{line.number}"
    labels = _labels.ids_of(line.names, space, where)
    if not labels and params.empty == "refuse":
        raise DataError(
            f"{where}: {line.key!r} has no label; add one, or say `empty: background` if that is meant"
        )
    mask = None if masks is None else _files.find(masks, f"{name}.png", masks, where)
    return ImageRecord(name, image, labels, mask)
