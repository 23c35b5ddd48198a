"""Images of a batch, read ahead of the model by threads, and which of them are already done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images
from pseudolabel.errors import DataError, MachineError
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk, writing


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image of a batch.

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
) -> list[InputImage]:
    """The images of one batch, decoded only where at least one of them is still to be done.

    Args:
        batch: records of equal image size.
        wanted: ids within the limit.
        finished: manifest lines of what is done; a file that has changed since is done again.

    Returns:
        One image a record, in the batch's order.
    """
    found: list[InputImage] = []
    for record in batch:
        if record.id not in wanted:
            found.append(InputImage(record, False))
            continue
        try:
            images.read_size(record.image)  # refuses what is no plain file before it is opened
            digest = disk.sha256_file(record.image)
        except (DataError, MachineError) as error:
            found.append(InputImage(record, True, fault=str(error)))
            continue
        done = record.id in finished and finished[record.id].get("input_sha256") == digest
        found.append(InputImage(record, not done, sha256=digest))
    if not any(image.wanted and image.fault is None for image in found):
        return found
    return [_decoded(image) for image in found]


def _decoded(image: InputImage) -> InputImage:
    if image.fault is not None:
        return image
    try:
        pixels = images.read_image(image.record.image)
        size = images.read_size(image.record.image)
        if pixels.shape[:2] != size:
            raise DataError(f"{image.record.image}: its header says {size}, its pixels {pixels.shape[:2]}")
    except DataError as error:
        return InputImage(image.record, image.wanted, sha256=image.sha256, fault=str(error))
    return InputImage(image.record, image.wanted, pixels, image.sha256)


class Complete(Mapping[str, dict[str, Any]]):
    """Manifest lines of the finished images that have every file which is wanted now.

    Args:
        folder: the run's.
        maps, overlays: whether these files are wanted beside the masks.
    """

    def __init__(self, folder: writing.RunFolder, *, maps: bool, overlays: bool) -> None:
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
