"""How sure a mIoU is: percentile interval over images drawn again with replacement.

Each draw takes as many images as there are, sums their confusion matrices and divides once, so a draw's
mIoU is the mIoU of a data set. It shows the spread over images, not over trainings.

Source: Efron 1979, percentile interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pseudolabel.metrics.confusion import Counts, Reading, iou, mean, read

BLOCK = 64  # draws summed at once; bounds the memory, changes no result
EXACT = 2**53  # largest integer up to which float64 sums of counts are exact


def miou_interval(
    matrices: Counts,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    reading: Reading = "background",
    average_over: Sequence[int] | None = None,
) -> tuple[float, float]:
    """Interval that holds the share `level` of the mIoUs of data sets drawn from these images.

    Args:
        matrices: (N, C+1, C+2) int64, one confusion matrix an image. Their order does not matter.
        draws: number of data sets.
        level: share 0..1.
        seed: of the draws.
        reading: of a predicted 255.
        average_over: class ids of the mean; None for all.

    Returns:
        low, high; NaN where no draw has a defined mIoU.

    Raises:
        ValueError: no image, or counts too large to be summed exactly.
    """
    count, names = len(matrices), matrices.shape[1]
    if count == 0:
        raise ValueError("bootstrap: no image")
    flat = matrices.reshape(count, -1)
    if int(flat.sum(axis=1).max()) * count >= EXACT:
        raise ValueError("bootstrap: counts are too large to be summed exactly")
    # The draws pick by position: sorted, the same images give the same interval in any order.
    flat = flat[np.lexsort(flat.T[::-1])].astype(np.float64)
    random = np.random.default_rng(seed)
    classes = range(names) if average_over is None else average_over
    mious = []
    for start in range(0, draws, BLOCK):
        rows = min(BLOCK, draws - start)
        picked = random.integers(0, count, size=(rows, count))
        times = np.stack([np.bincount(row, minlength=count) for row in picked])
        sums = np.rint(times.astype(np.float64) @ flat).astype(np.int64).reshape(rows, *matrices.shape[1:])
        mious += [mean(values, classes)[0] for values in iou(read(sums, reading))]
    kept = [value for value in mious if not math.isnan(value)]
    if not kept:
        return math.nan, math.nan
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
