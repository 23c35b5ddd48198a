"""Which pictures share a forward: planned from the list and the recipe alone.

Only pictures of one size share a batch (padding would shift the average pooling). Kills, workers and what is
already done change nothing: an unfinished batch is computed whole again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pseudolabel import images
from pseudolabel.errors import DataFault
from pseudolabel.records import ImageRecord

WINDOW = 8  # batches whose records are looked at together for pictures of one size


def plan(
    records: Sequence[ImageRecord], pictures: int, limit: int | None = None
) -> Iterator[tuple[ImageRecord, ...]]:
    """Batches of at most `pictures` records of equal picture size.

    Args:
        records: in list order.
        pictures: most pictures of a batch, >= 1.
        limit: only batches that hold one of the first so many records; they are those of the whole list.

    Yields:
        Batches; each record stands in at most one. Sizes come from the files' headers; a record whose
        header cannot be read stands alone, and decoding will tell what is wrong with it.
    """
    wanted = len(records) if limit is None else min(limit, len(records))
    if pictures == 1:
        yield from ((record,) for record in records[:wanted])
        return
    window = WINDOW * pictures
    for start in range(0, wanted, window):
        groups: dict[tuple[int, int] | str, list[int]] = {}
        for index in range(start, min(start + window, len(records))):
            groups.setdefault(_size(records[index]), []).append(index)
        for group in groups.values():
            for at in range(0, len(group), pictures):
                batch = group[at : at + pictures]
                if batch[0] < wanted:
                    yield tuple(records[index] for index in batch)


def _size(record: ImageRecord) -> tuple[int, int] | str:
    try:
        return images.read_size(record.image)
    except DataFault:
        return record.id
