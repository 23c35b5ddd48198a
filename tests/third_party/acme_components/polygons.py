"""Polygons: images in a folder, objects as polygons in one JSON file.

    ROOT/<id>.png
    ROOT/polygons.json   {"classes": [...], "images": {id: [[class name, [[x, y], ...]], ...]}}

Source: ours, an example.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pseudolabel.errors import DataError
from pseudolabel.images import read_size
from pseudolabel.records import Dataset, ImageRecord, LabelSpace
from pseudolabel.registry import Parameters, component, parameter
from pseudolabel.runs import disk

Polygon = tuple[int, tuple[tuple[float, float], ...]]


class Polygons(Parameters):
    """Where the images and their polygons lie."""

    root: str = parameter(help="folder with the images and polygons.json")


@dataclass(frozen=True)
class PolygonMask:
    """The mask that the polygons of one image draw; a later one lies above an earlier one."""

    image: Path
    polygons: tuple[Polygon, ...]

    def __str__(self) -> str:
        return f"polygons of {self.image.name}"

    def read(self) -> NDArray[np.uint8]:
        """(H, W) uint8."""
        height, width = read_size(self.image)
        drawn = Image.new("L", (width, height))
        for label, points in self.polygons:
            ImageDraw.Draw(drawn).polygon(list(points), fill=label)
        return np.array(drawn)

    def digest(self) -> str:
        """Of the polygons and the size that they are drawn in."""
        return disk.digest([list(read_size(self.image)), self.polygons])


@component(Polygons, kind="readers", oracles="acme_components.oracles")
def polygons(params: Polygons) -> Dataset:
    """Records in the order of the file.

    Raises:
        DataError: there is no such file.
    """
    root = Path(params.root)
    path = root / "polygons.json"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; look at data.root")
    listed: dict[str, Any] = json.loads(path.read_bytes())
    space = LabelSpace(("background", *listed["classes"]))
    records = []
    for item, objects in listed["images"].items():
        shapes = tuple((space.id_of(name), tuple((x, y) for x, y in points)) for name, points in objects)
        labels = tuple(sorted({label for label, _ in shapes}))
        image = root / f"{item}.png"
        records.append(ImageRecord(item, image, labels, PolygonMask(image, shapes)))
    return Dataset(tuple(records), space)
