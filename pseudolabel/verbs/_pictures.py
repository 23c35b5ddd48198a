"""Pictures of a batch, read ahead of the model by threads, and which of them are already done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images, storage
from pseudolabel.errors import DataFault, EnvironmentFault
from pseudolabel.records import ImageRecord


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a batch.

    Attributes:
        record: whose it is.
        wanted: its mask is to be written; False where that is done, or beyond the limit.
        pixels: (H, W, 3) uint8 as shown, or None where it was not needed or could not be read.
        sha256: of the file, or None where it could not be read.
        fault: why it could not be read.
    """

    record: ImageRecord
    wanted: bool
    pixels: NDArray[np.uint8] | None = None
    sha256: str | None = None
    fault: str | None = None


def read_batch(
    batch: tuple[ImageRecord, ...], wanted: Mapping[str, bool], finished: Mapping[str, dict[str, Any]]
) -> list[Picture]:
    """The pictures of one batch, decoded only where at least one of them is still to be done.

    Args:
        batch: records of equal picture size.
        wanted: ids within the limit.
        finished: manifest lines of what is done; a file that has changed since is done again.

    Returns:
        One picture a record, in the batch's order.
    """
    found: list[Picture] = []
    for record in batch:
        if record.id not in wanted:
            found.append(Picture(record, False))
            continue
        try:
            images.read_size(record.image)  # refuses what is no plain file before it is opened
            digest = storage.sha256_file(record.image)
        except (DataFault, EnvironmentFault) as error:
            found.append(Picture(record, True, fault=str(error)))
            continue
        done = record.id in finished and finished[record.id].get("input_sha256") == digest
        found.append(Picture(record, not done, sha256=digest))
    if not any(picture.wanted and picture.fault is None for picture in found):
        return found
    return [_decoded(picture) for picture in found]


def _decoded(picture: Picture) -> Picture:
    if picture.fault is not None:
        return picture
    try:
        pixels = images.read_image(picture.record.image)
        size = images.read_size(picture.record.image)
        if pixels.shape[:2] != size:
            raise DataFault(f"{picture.record.image}: its header says {size}, its pixels {pixels.shape[:2]}")
    except DataFault as error:
        return Picture(picture.record, picture.wanted, sha256=picture.sha256, fault=str(error))
    return Picture(picture.record, picture.wanted, pixels, picture.sha256)


class Complete(Mapping[str, dict[str, Any]]):
    """Manifest lines of the finished pictures that have every file which is wanted now.

    Args:
        folder: the run's.
        maps, overlays: whether these files are wanted beside the masks.
    """

    def __init__(self, folder: storage.RunFolder, *, maps: bool, overlays: bool) -> None:
        self._finished = folder.finished()
        self._maps = maps
        self._overlays = folder.path / "overlays" if overlays else None

    def __getitem__(self, item: str) -> dict[str, Any]:
        return self._finished[item]

    def __iter__(self) -> Iterator[str]:
        return (item for item in self._finished if item in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        if item not in self._finished:
            return False
        if self._maps and f"maps/{item}.safetensors" not in self._finished[str(item)].get("files", {}):
            return False
        return self._overlays is None or (self._overlays / f"{item}.png").is_file()
