"""Pictures of a batch, read ahead of the model by threads."""

from __future__ import annotations

from collections.abc import Mapping
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
