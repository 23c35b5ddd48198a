"""Images for the model: batches planned from the list, each file opened once for its digest and its pixels.

Only images of one size share a batch (padding would shift the average pooling). The plan follows from the
list and
the recipe alone: kills, workers and what is already done change nothing, an unfinished batch is computed
whole again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudolabel import images
from pseudolabel.errors import DataError
from pseudolabel.records import ImageRecord
from pseudolabel.runs import disk, layout, writing

WINDOW = 8  # batches whose records are looked at together for images of one size


def plan(
    records: Sequence[ImageRecord], size: int, limit: int | None = None
) -> Iterator[tuple[ImageRecord, ...]]:
    """Batches of at most `size` records of equal image size.

    Args:
        records: in list order.
        size: most images of a batch, >= 1.
        limit: only batches that hold one of the first so many records; they are those of the whole list.

    Yields:
        Batches; each record stands in at most one. Sizes come from the files' headers; a record whose header
        cannot be read stands alone, and decoding will say what is wrong with it.
    """
    wanted = len(records) if limit is None else min(limit, len(records))
    if size == 1:
        yield from ((record,) for record in records[:wanted])
        return
    window = WINDOW * size
    for start in range(0, wanted, window):
        groups: dict[tuple[int, int] | str, list[int]] = {}
        for index in range(start, min(start + window, len(records))):
            groups.setdefault(_size(records[index]), []).append(index)
        for group in groups.values():
            for first in range(0, len(group), size):
                batch = group[first : first + size]
                if batch[0] < wanted:
                    yield tuple(records[index] for index in batch)


def _size(record: ImageRecord) -> tuple[int, int] | str:
    try:
        return images.read_size(record.image)
    except DataError:
        return record.id


@dataclass(frozen=True, eq=False)
class InputImage:
    """One image of a batch.

    Attributes:
        record: whose it is.
        listed: it is within the limit.
        done: its mask is there already.
        values: (H, W, 3) uint8 as shown, or None where it was not needed or could not be read.
        sha256: of the file, or None where it could not be read.
        fault: why it could not be read.
    """

    record: ImageRecord
    listed: bool
    done: bool = False
    values: NDArray[np.uint8] | None = None
    sha256: str | None = None
    fault: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether its mask is to be made."""
        return self.listed and not self.done


def read_batch(
    batch: Sequence[ImageRecord], listed: Mapping[str, Any], finished: Mapping[str, Mapping[str, Any]]
) -> list[InputImage]:
    """The images of one batch, decoded only where at least one of them is still to be done.

    Args:
        batch: records of equal image size.
        listed: ids within the limit.
        finished: manifest lines of what is done; a file that has changed since is done again.

    Returns:
        One image a record, in the batch's order.
    """
    contents: dict[str, bytes] = {}
    batch_images: list[InputImage] = []
    for record in batch:
        image = InputImage(record, record.id in listed)
        try:
            content = images.read_file(record.image)
        except DataError as error:
            batch_images.append(replace(image, fault=str(error)))
            continue
        contents[record.id] = content
        sha256 = disk.sha256_bytes(content)
        done = record.id in finished and finished[record.id].get("input_sha256") == sha256
        batch_images.append(replace(image, sha256=sha256, done=done))
    if not any(image.wanted and image.fault is None for image in batch_images):
        return batch_images
    return [_decoded(image, contents.get(image.record.id)) for image in batch_images]


def _decoded(image: InputImage, content: bytes | None) -> InputImage:
    if content is None:
        return image
    path = image.record.image
    try:
        values = images.read_image(path, data=content)
        size = images.read_size(path, data=content)
        if values.shape[:2] != size:
            raise DataError(f"{path}: its header says {size}, its pixels {values.shape[:2]}; save it again")
    except DataError as error:
        return replace(image, fault=str(error))
    return replace(image, values=values)


class Complete(Mapping[str, Mapping[str, Any]]):
    """Manifest lines of the finished images that have every file which is wanted now.

    Args:
        folder: the run's.
        maps, overlays: whether these files are wanted beside the masks.
    """

    def __init__(self, folder: writing.RunFolder, *, maps: bool, overlays: bool) -> None:
        self._finished = folder.finished()
        self._maps = maps
        self._folder = folder.path if overlays else None

    def __getitem__(self, item: str) -> Mapping[str, Any]:
        return self._finished[item]

    def __iter__(self) -> Iterator[str]:
        return (item for item in self._finished if item in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        if item not in self._finished:
            return False
        if self._maps and layout.maps_file(str(item)) not in self._finished[str(item)].get("files", {}):
            return False
        return self._folder is None or (self._folder / layout.overlay_file(str(item))).is_file()
