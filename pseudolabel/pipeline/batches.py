"""Which images share a forward: planned from the list and the recipe alone.

Only images of one size share a batch (padding would shift the average pooling). Kills, workers and what is
already done change nothing: an unfinished batch is computed whole again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pseudolabel import images
from pseudolabel.errors import DataError
from pseudolabel.records import ImageRecord

WINDOW = 8  # batches whose records are looked at together for images of one size


def plan(
    records: Sequence[ImageRecord], images: int, limit: int | None = None
) -> Iterator[tuple[ImageRecord, ...]]:
    """Batches of at most `images` records of equal image size.

    Args:
        records: in list order.
        images: most images of a batch, >= 1.
        limit: only batches that hold one of the first so many records; they are those of the whole list.

    Yields:
        Batches; each record stands in at most one. Sizes come from the files' headers; a record whose
        header cannot be read stands alone, and decoding will tell what is wrong with it.
    """
    wanted = len(records) if limit is None else min(limit, len(records))
    if images == 1:
        yield from ((record,) for record in records[:wanted])
        return
    window = WINDOW * images
    for start in range(0, wanted, window):
        groups: dict[tuple[int, int] | str, list[int]] = {}
        for index in range(start, min(start + window, len(records))):
            groups.setdefault(_size(records[index]), []).append(index)
        for group in groups.values():
            for at in range(0, len(group), images):
                batch = group[at : at + images]
                if batch[0] < wanted:
                    yield tuple(records[index] for index in batch)


def _size(record: ImageRecord) -> tuple[int, int] | str:
    try:
        return images.read_size(record.image)
    except DataError:
        return record.id
