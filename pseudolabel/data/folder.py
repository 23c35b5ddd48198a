"""A folder of photographs and nothing else: no labels, no class list, no ground truth.

For `pl generate` with `labels: {source: predicted}`, whose classifier then says which classes there are.
A picture's id is its path in the folder without the suffix, `holiday/007` for `holiday/007.jpg`.
"""

from __future__ import annotations

import os
from pathlib import Path

from pseudolabel.data import _files
from pseudolabel.errors import DataFault
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.registry import Parameters, brick, parameter


class Folder(Parameters):
    """Where the pictures lie."""

    root: str = parameter(help="folder of the pictures")
    recursive: bool = parameter(True, help="look into its folders as well, hidden ones and links left aside")


@brick(Folder)
def folder(params: Folder) -> Dataset:
    """List every picture by its suffix, in the order of their paths; none is opened.

    Returns:
        Records without labels and masks, over no classes.

    Raises:
        DataFault: no folder, no picture, two pictures of one id, or a link that leaves the folder.
    """
    root = Path(params.root).expanduser()
    if not root.is_dir():
        raise DataFault(f"{root}: there is no such folder; check data.root")
    records: list[ImageRecord] = []
    places: list[tuple[str, str]] = []
    for place, name in _pictures(root, params.recursive):
        where = str(place / name)
        stem = _files.stem(name)
        _files.check_id(stem, where)
        found = _files.find(place, name, root, where)
        if found is None:
            raise DataFault(f"{where}: a link that leads nowhere; remove it")
        parts = place.relative_to(root).parts
        records.append(ImageRecord("/".join((*parts, stem)), found))
        places.append((records[-1].id, where))
    if not records:
        below = "" if params.recursive else "; recursive: true looks into its folders"
        raise DataFault(f"{root}: holds no picture ({', '.join(_files.SUFFIXES)}){below}")
    _files.check_apart(places)
    return Dataset(tuple(records), LabelSpace.none())


def _pictures(root: Path, recursive: bool) -> list[tuple[Path, str]]:
    """Folder and file name of each picture."""

    def refuse(error: OSError) -> None:
        raise DataFault(f"{error.filename}: cannot be read ({error.strerror}); look at its rights") from error

    found: list[tuple[Path, str]] = []
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = [each for each in folders if recursive and not each.startswith(".")]
        found += [
            (Path(place), name)
            for name in names
            if name.lower().endswith(_files.SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found, key=lambda each: (*each[0].relative_to(root).parts, each[1]))
