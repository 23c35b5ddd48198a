"""Raw folder: masks and maps as NumPy arrays, as another program has left them.

    SOURCE/<id>.npy          uint8 ids
    SOURCE/<id>.maps.npz     on request: `ids` (K,) and `scores` (K, H, W)
    SOURCE/classes.json      the names, background first

Source: ours, an example.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pseudolabel.errors import DataError
from pseudolabel.records import IGNORE, Imported, ImportItem, LabelSpace, Scores
from pseudolabel.registry import Parameters, component, parameter


class RawFolder(Parameters):
    """How "ignore" is written, and whether maps are read."""

    ignore: int = parameter(255, ge=0, le=255, help="the value that becomes 255")
    maps: bool = parameter(False, help="read the maps as well")


@component(RawFolder, kind="importers", oracles="acme_components.oracles")
def raw_folder(source: Path, params: RawFolder) -> Imported:
    """Read a folder of arrays.

    Raises:
        DataError: there is no such folder, or it holds no class list.
    """
    path = source / "classes.json"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; give the folder that raw_ids has written")
    return Imported(LabelSpace(tuple(json.loads(path.read_bytes()))), _items(source, params))


def _items(source: Path, params: RawFolder) -> Iterator[ImportItem]:
    for path in sorted(source.glob("*.npy")):
        mask = np.load(path)
        maps = None
        if params.maps:
            with np.load(path.with_suffix(".maps.npz")) as file:
                ids = tuple(int(label) for label in file["ids"])
                maps = (Scores(ids, torch.from_numpy(file["scores"])),)
        mask = np.where(mask == params.ignore, np.uint8(IGNORE), mask)
        yield ImportItem(path.stem, mask, None, maps)
