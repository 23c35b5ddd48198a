"""Raw ids: masks as NumPy arrays, the value for "ignore" as the consumer wants it.

    OUT/<id>.npy       uint8 ids; 255 becomes `ignore`
    OUT/classes.json   the names, background first

Source: ours, an example.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pseudolabel import masks
from pseudolabel.errors import DataError
from pseudolabel.records import IGNORE, Exported, ExportItem, LabelSpace
from pseudolabel.registry import Parameters, component, parameter
from pseudolabel.runs import disk, layout


class RawIds(Parameters):
    """How "ignore" is written."""

    ignore: int = parameter(255, ge=0, le=255, help="the value that pixels of 255 get")


@component(RawIds, kind="exporters", oracles="acme_components.oracles")
def raw_ids(items: Iterable[ExportItem], space: LabelSpace, out: Path, params: RawIds) -> Exported:
    """Write every mask as an array.

    Raises:
        DataError: an id that makes no file name, or a value outside the classes.
    """
    count = 0
    for item in items:
        layout.mask_file(item.id)  # refuses an id that climbs out of the folder
        path = out / f"{item.id}.npy"
        if item.id.startswith("."):
            raise DataError(f"id {item.id!r} makes a hidden file; rename the image")
        masks.check_values(item.mask, space, path)
        array = io.BytesIO()
        np.save(array, np.where(item.mask == IGNORE, np.uint8(params.ignore), item.mask))
        disk.write_bytes(path, array.getvalue())
        count += 1
    disk.write_json(out / "classes.json", list(space.names))
    lost = () if params.ignore == IGNORE else (f"pixels of 255 are written as {params.ignore}",)
    return Exported({"images": count}, lost)
