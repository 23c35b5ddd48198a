"""Masks as 8-bit grey PNGs (mode L): the one form that every segmentation trainer reads rightly.

    OUT/masks/<id>.png    ids 0..N and 255, one channel
    OUT/list.txt          an id a line
    OUT/classes.txt       a name a line, background first: line number - 1 = id
    OUT/about.json        numbering, classes, what 255 means, sizes, pixels of each class

Source: palette PNGs read through Pillow's convert("L"), OpenCV's grey mode or imageio come back as the grey
of their colours; an 8-bit grey PNG comes back as ids from all of them (measured).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pseudolabel import masks
from pseudolabel.errors import DataError
from pseudolabel.records import IGNORE, Exported, ExportItem, LabelSpace
from pseudolabel.registry import Parameters, component
from pseudolabel.runs import disk, layout


class Grey(Parameters):
    """Nothing is left to choose."""


@component(Grey)
def grey(items: Iterable[ExportItem], space: LabelSpace, out: Path, params: Grey) -> Exported:
    """Write masks, lists, class names and what a reader must know about them.

    Args:
        items: images of a run, taken one by one; ids unique.
        space: the class names.
        out: the folder; files of the same names are replaced.
        params: see `Grey`.

    Returns:
        `wrote`: what stands in about.json, `sizes` excepted. Nothing is lost.

    Raises:
        DataError: a value outside the classes, an id that makes no file name or no line of a list, two
            ids that meet in one file name.
        MachineError: it cannot be written.
    """
    counts = np.zeros(256, np.int64)
    sizes: dict[str, list[int]] = {}
    folded_ids: dict[str, str] = {}
    for item in items:
        path = out / layout.mask_file(item.id)
        _check_id(item.id, folded_ids)
        masks.check_values(item.mask, space, path)
        disk.write_bytes(path, masks.encode_grey(item.mask))
        counts += np.bincount(item.mask.ravel(), minlength=256)
        sizes[item.id] = list(item.size)
    about = {
        "form": "8-bit grey PNG, one channel, size of the image as shown",
        "numbering": "B0: background 0, classes 1 to N",
        "classes": list(space.names),
        "foreground": space.foreground,
        "ignore": IGNORE,
        "images": len(sizes),
        "pixels": {name: int(counts[index]) for index, name in enumerate(space.names)},
        "pixels_ignored": int(counts[IGNORE]),
    }
    disk.write_text(out / "list.txt", "".join(f"{item}\n" for item in sizes))
    disk.write_text(out / layout.CLASSES, space.text())
    disk.write_json(out / "about.json", {**about, "sizes": sizes})
    return Exported(about)


def _check_id(item: str, folded_ids: dict[str, str]) -> None:
    if item != item.strip() or len(item.splitlines()) != 1:
        raise DataError(f"id {item!r} makes no line of a list (blanks at its ends, line breaks); rename it")
    folded = unicodedata.normalize("NFC", item).casefold()
    if folded in folded_ids:
        other = folded_ids[folded]
        raise DataError(f"ids {other!r} and {item!r} meet in one file name on some systems; rename one")
    folded_ids[folded] = item
