"""The folder layout of PASCAL VOC, read from a list of ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pseudolabel import masks
from pseudolabel.errors import DataError
from pseudolabel.readers import _files, _labels
from pseudolabel.records import BACKGROUND, IGNORE, Dataset, ImageRecord, LabelSpace, nearest

VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
IMAGES = "JPEGImages"
MASKS = ("SegmentationClass", "SegmentationClassAug")
ANNOTATIONS = "Annotations"
LISTS = ("ImageSets/Segmentation", "ImageSets/Main")

Entry = tuple[str, str]  # id, where it stands
Empty = Literal["refuse", "background"]


def read(
    root: Path,
    split: str,
    *,
    labels: str | None = None,
    classes: str | None = None,
    empty: Empty = "refuse",
    parts: Path | None = None,
) -> Dataset:
    """A data set in VOC layout; no image is decoded, and masks only where they give the labels.

    Args:
        root: folder with JPEGImages and ImageSets.
        split: name of a list.
        labels: "csv", "xml", "masks", "none" or the path of a csv in root; None takes labels.csv, or else
            Annotations.
        classes: class list in root; None takes root/classes.txt, or the twenty classes of VOC.
        empty: whether an image may be labelled with nothing.
        parts: handed on.

    Raises:
        DataError: a file, an image or a label is missing or does not fit; place and remedy are named.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; give the one that holds {IMAGES} and ImageSets")
    entries = read_list(root, split)
    space = _space(root, classes)
    images, lost = root / IMAGES, []
    files: list[tuple[str, Path, Path | None]] = []
    for name, where in entries:
        image = _files.find_image(images, name, root, where)
        if image is None:
            lost.append((name, where))
            continue
        options = (_files.find(root / folder, f"{name}.png", root, where) for folder in MASKS)
        files.append((name, image, next((mask for mask in options if mask is not None), None)))
    if lost:
        name, where = lost[0]
        more = f" ({len(lost)} are missing)" if len(lost) > 1 else ""
        raise DataError(f"{where}: no image {images / name}.jpg{more}; add it or remove the line")
    labels_from, source = _source(root, labels)
    given = source(entries, [mask for _, _, mask in files], space) if source else [None] * len(entries)
    for (name, where), row in zip(entries, given, strict=True):
        if row == () and empty == "refuse":
            raise DataError(
                f"{where}: {name!r} has no label; add one, or say `empty: background` if that is meant"
            )
    records = tuple(
        ImageRecord(name, image, row, mask) for (name, image, mask), row in zip(files, given, strict=True)
    )
    return Dataset(records, space, parts, labels_from)


def read_list(root: Path, split: str) -> list[Entry]:
    """The ids of a list with their places.

    Raises:
        DataError: no such list (those present are named), it is empty, an id cannot be one or is there twice.
    """
    _files.check_id(split, "split")
    places = [root / folder / f"{split}.txt" for folder in LISTS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = [file.stem for file in sorted((root / LISTS[0]).glob("*.txt"))]
        hint = nearest(split, known) if known else "a list has one id a line"
        raise DataError(f"{places[0]}: there is no such list; {hint}")
    entries = [(line, f"{path}:{number}") for number, line in _files.read_lines(path)]
    if not entries:
        raise DataError(f"{path}: the list is empty; write one id a line")
    for name, where in entries:
        _files.check_id(name, where)
    _files.check_apart(entries)
    return entries


def _space(root: Path, classes: str | None) -> LabelSpace:
    if classes is not None:
        return LabelSpace.read(_files.below(root, classes))
    own = root / "classes.txt"
    return LabelSpace.read(own) if own.is_file() else LabelSpace(VOC)


Source = Callable[[Sequence[Entry], Sequence[Path | None], LabelSpace], list[tuple[int, ...] | None]]


def _source(root: Path, labels: str | None) -> tuple[str | None, Source | None]:
    """Where labels come from: its name, and a function of the entries, their masks and the classes.

    Raises:
        DataError: nothing says where they come from. Pixel masks give labels only where they are asked for.
    """
    own = root / "labels.csv"
    if labels is None:
        if own.is_file():
            labels = "csv"
        elif (root / ANNOTATIONS).is_dir():
            labels = "xml"
        else:
            raise DataError(
                f"{root}: no labels (no {own.name}, no {ANNOTATIONS}); write labels: FILE for a csv in root, "
                "labels: masks to take them from the pixel masks, or labels: none where none are needed"
            )
    match labels:
        case "none":
            return None, None
        case "csv":
            return "csv", _from_csv(own)
        case "xml":
            return "xml", _from_annotations(root)
        case "masks":
            return "masks", _from_masks
        case _:
            return "csv", _from_csv(_files.below(root, labels))


def _from_csv(path: Path) -> Source:
    def source(
        entries: Sequence[Entry], _: Sequence[Path | None], space: LabelSpace
    ) -> list[tuple[int, ...] | None]:
        lines: dict[str, _labels.Line] = {}
        for line in _labels.read_csv(path, space.names):
            other = lines.setdefault(line.key, line)
            if set(other.names) != set(line.names):
                raise DataError(
                    f"{path}:{line.number}: {line.key!r} has other labels in line {other.number}; keep one"
                )
        lost = [(name, where) for name, where in entries if name not in lines]
        if lost:
            name, where = lost[0]
            raise DataError(
                f"{path}: no line for {name!r} ({where}; {len(lost)} of {len(entries)} have none); "
                "add the lines or shorten the list"
            )
        return [
            _labels.ids_of(lines[name].names, space, f"{path}:{lines[name].number}") for name, _ in entries
        ]

    return source


def _from_annotations(root: Path) -> Source:
    def source(
        entries: Sequence[Entry], _: Sequence[Path | None], space: LabelSpace
    ) -> list[tuple[int, ...] | None]:
        rows: list[tuple[int, ...] | None] = []
        for name, where in entries:
            path = _files.find(root / ANNOTATIONS, f"{name}.xml", root, where)
            if path is None:
                raise DataError(
                    f"{where}: no annotation {root / ANNOTATIONS / name}.xml; add it or give a csv as labels"
                )
            rows.append(_labels.ids_of(_labels.read_annotation(path), space, str(path)))
        return rows

    return source


def _from_masks(
    entries: Sequence[Entry], paths: Sequence[Path | None], space: LabelSpace
) -> list[tuple[int, ...] | None]:
    rows: list[tuple[int, ...] | None] = []
    for (name, where), path in zip(entries, paths, strict=True):
        if path is None:
            raise DataError(f"{where}: {name!r} has no mask to take labels from; give a csv")
        mask = masks.read_mask(path)
        masks.check_values(mask, space, path)
        rows.append(tuple(int(value) for value in np.unique(mask) if value not in (BACKGROUND, IGNORE)))
    return rows
