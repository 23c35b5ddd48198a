"""The order of items in an epoch: a function of (seed, epoch) and of nothing else."""

from __future__ import annotations

import random
from typing import Literal

from pseudolabel.draws import seed_of

LastBatch = Literal["keep", "drop"]


def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    """A permutation of 0..count-1 that follows from seed and epoch alone."""
    order = list(range(count))
    random.Random(seed_of("order", seed, epoch)).shuffle(order)
    return order


def batches(order: list[int], size: int, last_batch: LastBatch = "keep") -> list[list[int]]:
    """Consecutive batches.

    Args:
        order: items.
        size: of a batch.
        last_batch: what becomes of an incomplete last batch. `keep`: it is a step, and a single item joins
            the batch before it, since batch norm needs two. `drop`: it is left out unless it is the only one.
    """
    if size < 1:
        raise ValueError(f"batch size is {size}; it is at least 1")
    rows = [order[start : start + size] for start in range(0, len(order), size)]
    if last_batch == "drop" and len(rows) > 1 and len(rows[-1]) < size:
        return rows[:-1]
    if size > 1 and len(rows) > 1 and len(rows[-1]) == 1:
        last = rows.pop()
        rows[-1] = rows[-1] + last
    return rows
