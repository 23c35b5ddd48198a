"""A folder of images and nothing else: no labels, no class list, no ground truth.

For `pl generate` with `labels: {source: predicted}`, whose classifier then says which classes there are.
An image's id is its path in the folder without the suffix, `holiday/007` for `holiday/007.jpg`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pseudolabel.errors import DataError
from pseudolabel.readers import _files
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.registry import Parameters, component, parameter


class Folder(Parameters):
    """Where the images lie."""

    root: str = parameter(help="folder of the images")
    recursive: bool = parameter(True, help="look into its folders as well, hidden ones and links left aside")


@component(Folder)
def folder(params: Folder) -> Dataset:
    """List every image by its suffix, in the order of their paths; none is opened.

    Returns:
        Records without labels and masks, over no classes.

    Raises:
        DataError: no folder, no image, two images of one id, or a link that leaves the folder.
    """
    root = Path(params.root).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; check data.root")
    records: list[ImageRecord] = []
    places: list[tuple[str, str]] = []
    for place, name in _images(root, params.recursive):
        where = str(place / name)
        stem = _files.stem(name)
        _files.check_id(stem, where)
        file = _files.find(place, name, root, where)
        if file is None:
            raise DataError(f"{where}: a link that leads nowhere; remove it")
        parts = place.relative_to(root).parts
        records.append(ImageRecord("/".join((*parts, stem)), file))
        places.append((records[-1].id, where))
    if not records:
        below = "" if params.recursive else "; recursive: true looks into its folders"
        raise DataError(f"{root}: holds no image ({', '.join(_files.SUFFIXES)}){below}")
    _files.check_apart(places)
    return Dataset(tuple(records), LabelSpace.none())


def _images(root: Path, recursive: bool) -> list[tuple[Path, str]]:
    """Folder and file name of each image."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); look at its rights") from error

    files: list[tuple[Path, str]] = []
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [each for each in folders if recursive and not each.startswith(".")]
        files += [
            (Path(place), name)
            for name in names
            if name.lower().endswith(_files.SUFFIXES) and not name.startswith(".")
        ]
    return sorted(files, key=lambda each: (*each[0].relative_to(root).parts, each[1]))
