"""Which images of a list stand for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pseudolabel.draws import seed_of
from pseudolabel.errors import UsageError
from pseudolabel.records import ImageRecord, nearest

SEARCHED = 10_000  # ids; a longer list is not searched for the one that was meant


def spread(records: Sequence[ImageRecord], count: int, seed: int) -> list[ImageRecord]:
    """Images from all over the list and of many classes; the same ones for the same list and seed.

    The list is cut into `count` stretches of equal length. Each gives one image, in turn: one that has
    labels, with the class that the images so far show least; among equals the lowest draw of (seed, id).
    """
    count = min(count, len(records))
    shown: Counter[int] = Counter()
    selection = []
    for index in range(count):
        stretch = records[len(records) * index // count : len(records) * (index + 1) // count]

        def rank(record: ImageRecord) -> tuple[bool, int, int]:
            labels = record.labels or ()
            least = min((shown[label] for label in labels), default=0)
            return not labels, least, seed_of(seed, "preview", record.id)

        best = min(stretch, key=rank)
        shown.update(best.labels or ())
        selection.append(best)
    return selection


def named(records: Sequence[ImageRecord], ids: Sequence[str]) -> list[ImageRecord]:
    """The records of some ids, each once, in the order of the ids.

    Raises:
        UsageError: none is named, or one is not in the list.
    """
    wanted = dict.fromkeys(ids)
    if not wanted:
        raise UsageError("--ids names no image; give ids of the list, comma separated")
    by_id = {record.id: record for record in records if record.id in wanted}
    for item in wanted:
        if item not in by_id:
            known = [record.id for record in records[:SEARCHED]]
            raise UsageError(f"--ids: {item!r} is not in the list of {len(records)}; {nearest(item, known)}")
    return [by_id[item] for item in wanted]
