"""The order of items in an epoch: a function of (seed, epoch) and of nothing else."""

from __future__ import annotations

import random

from pseudolabel.draws import seed_of


def epoch_order(seed: int, epoch: int, count: int) -> list[int]:
    """A permutation of 0..count-1 that follows from seed and epoch alone."""
    order = list(range(count))
    random.Random(seed_of("order", seed, epoch)).shuffle(order)
    return order


def batches(order: list[int], size: int) -> list[list[int]]:
    """Consecutive batches; a last batch of one joins the one before it, since batch norm needs two."""
    if size < 1:
        raise ValueError(f"batch size is {size}; it is at least 1")
    rows = [order[start : start + size] for start in range(0, len(order), size)]
    if size > 1 and len(rows) > 1 and len(rows[-1]) == 1:
        last = rows.pop()
        rows[-1] = rows[-1] + last
    return rows
